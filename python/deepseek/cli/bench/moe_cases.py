"""What ``deepseek bench moe`` measures, of deepseek and of PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

TOKENS, EXPERTS, TOP_K, DIM, HIDDEN = 512, 64, 6, 1024, 512
DTYPES = {"f32": "float32", "bf16": "bfloat16", "int8": "bfloat16"}
BATCH = 8  # sequences of the demo's training step

Setups = dict[str, Callable[[], Callable[[], Any]]]


def cases(T: Any, full: bool) -> Setups:
    """Functions that make the inputs of a case and return what is timed."""
    return _torch(T) if T.__name__ == "torch" else _deepseek(T)


def _deepseek(T: Any) -> Setups:
    moe = importlib.import_module("deepseek.moe")

    def layer(kind: str) -> Any:
        made = moe.DeepseekMoE(DIM, HIDDEN, EXPERTS, TOP_K).to(getattr(T, DTYPES[kind]))
        return importlib.import_module("deepseek.quantization").quantize_(made, "int8") if kind == "int8" else made

    table: Setups = {}
    for kind in DTYPES:
        table[f"forward {kind}"] = _bind(_forward, T, _bind(layer, kind), kind)
    for kind in ("f32", "bf16"):
        table[f"training {kind}"] = _bind(_training, T, _bind(layer, kind), kind)
        few, one = (lambda: moe.DeepseekMoE(DIM, DIM, 8, 2)), (lambda: moe.SwiGLU(DIM, 8 * DIM))
        for name, make in (("8 experts", few), ("dense", one)):
            table[f"{name} {kind}"] = _bind(_forward, T, _converted(T, make, kind), kind)
        table[f"demo {kind}"] = _bind(_demo, T, kind == "bf16")
    return table


def _torch(T: Any) -> Setups:
    experts = importlib.import_module("torch_experts")

    def layer(by: str, kind: str) -> Any:
        return experts.layer(T, DIM, HIDDEN, EXPERTS, TOP_K, by).to(getattr(T, DTYPES[kind]))

    table: Setups = {}
    for kind in ("f32", "bf16"):
        table[f"forward {kind}"] = _bind(_forward, T, _bind(layer, "grouped", kind), kind)
        table[f"training {kind}"] = _bind(_training, T, _bind(layer, "loop", kind), kind)
    return table


def _bind(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _converted(T: Any, make: Callable[[], Any], kind: str) -> Callable[[], Any]:
    return lambda: make().to(getattr(T, DTYPES[kind]))


def _forward(T: Any, make: Callable[[], Any], kind: str) -> Callable[[], Any]:
    T.manual_seed(0)
    layer, x = make().eval(), T.randn(TOKENS, DIM).to(getattr(T, DTYPES[kind]))

    def run() -> Any:
        with T.no_grad():
            return layer(x)

    return run


def _training(T: Any, make: Callable[[], Any], kind: str) -> Callable[[], Any]:
    T.manual_seed(0)
    layer = make().train()
    x = T.randn(TOKENS, DIM).to(getattr(T, DTYPES[kind])).requires_grad_(True)
    gradient = T.ones_like(x.detach())

    def run() -> None:
        layer(x).backward(gradient)
        for leaf in (x, *layer.parameters()):
            leaf.grad = None

    return run


def _demo(T: Any, autocast: bool) -> Callable[[], Any]:
    """A training step of the model of ``deepseek demo``."""
    models = importlib.import_module("deepseek.models")
    T.manual_seed(0)
    model = models.LanguageModel(models.ModelConfig())
    optimizer = T.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = T.randint(0, 256, (BATCH, model.config.context + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def run() -> None:
        with T.autocast("cpu", dtype=T.bfloat16, enabled=autocast):
            loss = model.loss(inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        T.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run
