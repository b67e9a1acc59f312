"""Mixture of experts, 64 of 1024 -> 512 -> 1024, 6 a token: forward, and the forward and backward of training; forward
with quantized weights, beside PyTorch's bfloat16 (it has no low-bit experts for CPUs).

PyTorch in the two ways models use it (`_experts.py`): a loop over the experts, whose weights are separate for training
(stacked ones are slower), and `torch._grouped_mm`. The peak of two cores of the machine the goals were set on is
234 GFLOP/s in float32 and 468 in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _experts
from _harness import main

EXPERTS, TOP_K, DIM, HIDDEN = 64, 6, 1024, 512
QUANTIZED = (("int8", 0), ("int8", 32), ("int4", 32), ("fp8", 128))
DTYPES = {"f32": "float32", "bf16": "bfloat16"}


def inputs(T: Any, tokens: int, dtype: str) -> tuple[Any, list[Any], Any, Any]:
    """Tokens, stacked weights, chosen experts, routing weights."""
    T.manual_seed(0)
    kind = getattr(T, dtype)
    x = T.randn(tokens, DIM).to(kind)
    shapes = ((HIDDEN, DIM), (HIDDEN, DIM), (DIM, HIDDEN))
    stacked = [(T.randn(EXPERTS, *shape) * shape[1] ** -0.5).to(kind) for shape in shapes]
    top, chosen = T.softmax(T.randn(tokens, EXPERTS), -1).topk(TOP_K, dim=-1)
    return x, stacked, chosen, top.to(kind)


def call(T: Any, peer: Callable[..., Any], *args: Any) -> Any:
    return peer(T, *args) if T.__name__ == "torch" else T.nn.functional.moe(*args)


def forward(T: Any, tokens: int, dtype: str, peer: Callable[..., Any]) -> Callable[[], Any]:
    def setup() -> Any:
        x, stacked, chosen, top = inputs(T, tokens, dtype)

        def run() -> None:
            with T.no_grad():
                call(T, peer, x, *stacked, chosen, top)

        return run, 6e-9 * tokens * TOP_K * DIM * HIDDEN, "GFLOP_per_s"

    return setup


def quantized(T: Any, tokens: int, name: str, block: int) -> Callable[[], Any]:
    """Few tokens use other experts in turn, as in decoding: 8 routings."""

    def setup() -> Any:
        x, stacked, chosen, top = inputs(T, tokens, "bfloat16")
        turns = 1 if tokens > 16 else 8
        routes = [(chosen + turn * EXPERTS // turns) % EXPERTS for turn in range(turns)]
        if T.__name__ == "torch":
            peer = _experts.by_grouped_products if tokens > 16 else _experts.by_loop
            one = lambda ids: peer(T, x, *stacked, ids, top)  # noqa: E731
        else:
            from deepseek.quantization import qmoe, quantize

            held = [quantize(w, name, block) for w in stacked]
            one = lambda ids: qmoe(x, *held, ids, top)  # noqa: E731

        def run() -> None:
            with T.no_grad():
                for ids in routes:
                    one(ids)

        return run, 6e-9 * tokens * TOP_K * DIM * HIDDEN * turns, "GFLOP_per_s"

    return setup


def training(T: Any, tokens: int, dtype: str, peer: Callable[..., Any], separate: bool) -> Callable[[], Any]:
    def setup() -> Any:
        x, stacked, chosen, top = inputs(T, tokens, dtype)
        weights: list[Any] = list(stacked)
        if separate and T.__name__ == "torch":
            weights = [[w.clone() for w in stack.unbind(0)] for stack in stacked]
        grad = T.ones_like(x)
        leaves = [x, top]
        for w in weights:
            leaves += w if isinstance(w, list) else [w]
        for leaf in leaves:
            leaf.requires_grad_(True)

        def run() -> None:
            call(T, peer, x, *weights, chosen, top).backward(grad)
            for leaf in leaves:
                leaf.grad = None

        return run, 18e-9 * tokens * TOP_K * DIM * HIDDEN, "GFLOP_per_s"

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    table: dict[str, Callable[[], Any]] = {}
    for label, dtype in DTYPES.items():
        for name, peer in (("grouped", _experts.by_grouped_products), ("loop", _experts.by_loop)):
            table[f"forward, 512 tokens, {name} {label}"] = forward(T, 512, dtype, peer)
            table[f"training, 512 tokens, {name} {label}"] = training(T, 512, dtype, peer, separate=name == "loop")
        for tokens in (1, 64):
            table[f"forward, {tokens} tokens, loop {label}"] = forward(T, tokens, dtype, _experts.by_loop)
    for name, block in QUANTIZED:
        for tokens in (512, 64, 1):
            label = f"{name}/{block}"
            table[f"quantized, {tokens} tokens, bf16 with {label}"] = quantized(T, tokens, name, block)
    return table


GOALS = {"forward f32": 1.7, "forward bf16": 1.5, "training f32": 1.7, "training bf16": 1.7}


def goal(case: str) -> float | None:
    kind, size, label = case.split(", ")
    if kind == "quantized":
        return 2.5 if size == "512 tokens" and "fp8" not in label else None
    return GOALS[f"{kind} {label.split()[1]}"] if size == "512 tokens" else None


def why(case: str) -> str:
    return "" if case.startswith("quantized") else "products of both are near the peak of BF16 instructions"


if __name__ == "__main__":
    main("moe", cases, goals=goal, why=why)
