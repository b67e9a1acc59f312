"""An optimizer step over 32 million parameters: one tensor, and the 46 tensors of a small transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main

PARAMETERS = 32 * 2**20
MANY = [(2**16, 512 - 7 * 9)] + [(512, 3 * 512), (512, 512), (512, 512 * 2), (512,), (512,)] * 9
# Read gradient, read and write parameter and two moments. With float32 masters the gradient and the parameter that is
# written beside its master are half as long: 28 as well.
ADAMW_BYTES = 28e-9


def step(T: Any, shapes: list[tuple[int, ...]], dtype: str = "float32", **options: Any) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        kind = getattr(T, dtype)
        parameters = [T.randn(*shape).to(kind).requires_grad_() for shape in shapes]
        for parameter in parameters:
            parameter.grad = T.randn(*parameter.shape).to(kind)
        optimizer = T.optim.AdamW(parameters, lr=1e-3, **options)
        return optimizer.step, ADAMW_BYTES * sum(p.numel() for p in parameters), "GB_per_s"

    return setup


def with_masters(T: Any) -> Callable[[], Any]:
    """PyTorch has no such optimizer; its float32 parameters are what the masters are."""
    if T.__name__ == "torch":
        return step(T, [(PARAMETERS,)], fused=True)
    return step(T, [(PARAMETERS,)], dtype="bfloat16", master_weights=True)


GOALS = {
    "AdamW 32M": 2.8,
    "AdamW 32M, fused": 1.0,
    "AdamW 32M, bfloat16 with float32 masters": 1.0,
    "AdamW 46 tensors, fused": 1.0,
}


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    return {
        "AdamW 32M": step(T, [(PARAMETERS,)]),
        "AdamW 32M, fused": step(T, [(PARAMETERS,)], fused=True),
        "AdamW 32M, bfloat16 with float32 masters": with_masters(T),
        "AdamW 46 tensors, fused": step(T, MANY, fused=True),
    }


if __name__ == "__main__":
    main("optim", cases, goals=GOALS.get)
