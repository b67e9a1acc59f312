"""`deepseek.moe.DeepseekMoE`, its router included, beside PyTorch modules (`_experts.layer`): 512 tokens, 64 experts of
1024 -> 512 -> 1024, 6 a token.

And 8 experts of 1024 -> 1024 -> 1024, 2 a token, beside our own dense layer with as many parameters, 1024 -> 8192 ->
1024: at most 4 times as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _experts
from _harness import main_beside

TOKENS, EXPERTS, TOP_K, DIM, HIDDEN = 512, 64, 6, 1024, 512
DTYPES = {"f32": "float32", "bf16": "bfloat16", "int8": "bfloat16"}  # int8: bfloat16 beside it
GOALS = {
    "forward, grouped f32": 2.0,
    "forward, grouped bf16": 1.5,
    "forward, grouped int8": 2.7,
    "training, loop f32": 2.0,
    "training, loop bf16": 1.7,
}
DENSE_GOAL = 3.2


def timed(layer: Any, x: Any, T: Any, training: bool) -> Callable[[], None]:
    parameters = list(layer.parameters())

    def forward() -> None:
        with T.no_grad():
            layer(x)

    grad = T.ones_like(x)

    def step() -> None:
        layer(x).backward(grad)
        for leaf in (x, *parameters):
            leaf.grad = None

    if training:
        x.requires_grad_(True)
    return step if training else forward


def beside_torch(T: Any, training: bool, by: str, label: str) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        x = T.randn(TOKENS, DIM).to(getattr(T, DTYPES[label]))
        if T.__name__ == "torch":
            layer = _experts.layer(T, DIM, HIDDEN, EXPERTS, TOP_K, by)
        else:
            layer = T.moe.DeepseekMoE(DIM, HIDDEN, EXPERTS, TOP_K)
        layer = layer.to(x.dtype).train(training)
        if label == "int8" and T.__name__ == "deepseek":
            T.quantization.quantize_(layer, "int8")
        return (
            timed(layer, x, T, training),
            (18e-9 if training else 6e-9) * TOKENS * TOP_K * DIM * HIDDEN,
            "GFLOP_per_s",
        )

    return setup


def beside_dense(T: Any, training: bool, label: str, dense: bool) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        layer = T.moe.SwiGLU(DIM, 8 * DIM) if dense else T.moe.DeepseekMoE(DIM, DIM, 8, 2)
        x = T.randn(TOKENS, DIM).to(getattr(T, DTYPES[label]))
        return timed(layer.to(x.dtype).train(training), x, T, training), TOKENS, "tokens_per_s"

    return setup


def cases(T: Any, dense: bool) -> dict[str, Callable[[], Any]]:
    table: dict[str, Callable[[], Any]] = {}
    if not dense:
        for by in ("grouped", "loop"):
            for label in ("f32", "bf16", *(["int8"] if by == "grouped" else [])):
                table[f"forward, {by} {label}"] = beside_torch(T, False, by, label)
                if label != "int8":
                    table[f"training, {by} {label}"] = beside_torch(T, True, by, label)
    if T.__name__ == "deepseek":
        for training, kind in ((False, "forward"), (True, "training")):
            for label in ("f32", "bf16"):
                table[f"8 experts top-2 {kind} {label}"] = beside_dense(T, training, label, dense)
    return table


def goal(case: str) -> float | None:
    return DENSE_GOAL if case.endswith(", dense") else GOALS.get(case)


if __name__ == "__main__":
    main_beside(
        "moe_layer",
        "DeepseekMoE beside PyTorch modules and beside a dense layer.",
        lambda T, worker: cases(T, worker == "dense"),
        ("deepseek", "dense"),
        goal,
        9,
    )
