"""Fused ops of a training step, forward and backward, beside what they are made of in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from _harness import main

TOKENS, DIM, VOCABULARY = 2048, 768, 50257
ROWS = (4096, 1024)
HEADS = (4, 1024, 12, 64)  # batch, time, heads, head_dim


def gradients_dropped(*tensors: Any) -> None:
    for tensor in tensors:
        tensor.grad = None


def linear_cross_entropy_inputs(T: Any) -> tuple[Any, Any, Any]:
    T.manual_seed(0)
    x = T.randn(TOKENS, DIM).requires_grad_()
    weight = (T.randn(VOCABULARY, DIM) * DIM**-0.5).requires_grad_()
    return x, weight, T.randint(0, VOCABULARY, (TOKENS,))


def losses(T: Any) -> dict[str, Callable[[Any, Any, Any], Any]]:
    """The ways to this loss; PyTorch has two."""
    F = T.nn.functional
    if T.__name__ == "deepseek":
        return {"fused": F.linear_cross_entropy}
    chunked = T.nn.LinearCrossEntropyOptions()
    return {
        "plain": lambda x, weight, target: F.cross_entropy(F.linear(x, weight), target),
        "chunked": lambda x, weight, target: F.linear_cross_entropy(x, weight, target, options=chunked),
    }


def linear_cross_entropy(T: Any) -> Callable[[], Any]:
    def setup() -> Any:
        x, weight, target = linear_cross_entropy_inputs(T)

        def runner(loss: Callable[[Any, Any, Any], Any]) -> Callable[[], None]:
            def run() -> None:
                gradients_dropped(x, weight)
                loss(x, weight, target).backward()

            return run

        def seconds(run: Callable[[], None]) -> float:
            run()
            begin = time.perf_counter()
            run()
            return time.perf_counter() - begin

        ways = [runner(loss) for loss in losses(T).values()]
        best = min(ways, key=seconds) if len(ways) > 1 else ways[0]
        return best, 6e-9 * TOKENS * DIM * VOCABULARY, "GFLOP_per_s"

    return setup


def rope(T: Any, dtype: str) -> Callable[[], Any]:
    def setup() -> Any:
        batch, time_steps, heads, dim = HEADS
        x = T.randn(*HEADS).to(getattr(T, dtype)).requires_grad_()
        angles = T.arange(time_steps).unsqueeze(1) * 10000.0 ** (-T.arange(0, dim, 2) / dim)
        cos, sin = T.cos(angles).to(x.dtype), T.sin(angles).to(x.dtype)
        grad = T.randn(batch, heads, time_steps, dim).to(x.dtype)

        def run() -> None:
            gradients_dropped(x)
            T.nn.functional.rope(x.transpose(1, 2), cos, sin).backward(grad)

        return run, 4e-9 * x.numel() * x.element_size(), "GB_per_s"

    return setup


def add_rms_norm(T: Any, dtype: str) -> Callable[[], Any]:
    def setup() -> Any:
        kind = getattr(T, dtype)
        x, residual = (T.randn(*ROWS).to(kind).requires_grad_() for _ in range(2))
        weight = T.ones(ROWS[1]).to(kind).requires_grad_()
        grads = [T.randn(*ROWS).to(kind) for _ in range(2)]

        def run() -> None:
            gradients_dropped(x, residual, weight)
            T.autograd.backward(T.nn.functional.add_rms_norm(x, residual, weight, 1e-6), grads)

        return run, 8e-9 * x.numel() * x.element_size(), "GB_per_s"

    return setup


def embedding(T: Any) -> Callable[[], Any]:
    def setup() -> Any:
        weight = T.randn(VOCABULARY, DIM).requires_grad_()
        ids, grad = T.randint(0, VOCABULARY, (TOKENS,)), T.randn(TOKENS, DIM)
        out = T.nn.functional.embedding(ids, weight)

        def run() -> None:
            gradients_dropped(weight)
            out.backward(grad, retain_graph=True)

        return run, 4e-9 * (weight.numel() + 2 * grad.numel()), "GB_per_s"

    return setup


GOALS = {
    "linear + cross-entropy 2048x768x50257 forward and backward": 1.3,
    "rope forward and backward": 1.5,
    "rope forward and backward, bfloat16": 1.5,
    "rms_norm with residual forward and backward": 1.3,
    "rms_norm with residual forward and backward, bfloat16": 1.3,
    "embedding backward 50257x768, 2048 tokens": 1.0,
}


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    return {
        "linear + cross-entropy 2048x768x50257 forward and backward": linear_cross_entropy(T),
        "rope forward and backward": rope(T, "float32"),
        "rope forward and backward, bfloat16": rope(T, "bfloat16"),
        "rms_norm with residual forward and backward": add_rms_norm(T, "float32"),
        "rms_norm with residual forward and backward, bfloat16": add_rms_norm(T, "bfloat16"),
        "embedding backward 50257x768, 2048 tokens": embedding(T),
    }


if __name__ == "__main__":
    main("fused", cases, goals=GOALS.get)
