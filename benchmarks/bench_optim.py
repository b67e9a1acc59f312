"""An optimizer step over 32 million parameters: one tensor, and the 46 tensors of a small transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main

PARAMETERS = 32 * 2**20
MANY = [(2**16, 512 - 7 * 9)] + [(512, 3 * 512), (512, 512), (512, 512 * 2), (512,), (512,)] * 9
ADAMW_BYTES = 28e-9  # read gradient, read and write parameter and two moments


def step(T: Any, shapes: list[tuple[int, ...]], **options: Any) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        parameters = [T.randn(*shape).requires_grad_() for shape in shapes]
        for parameter in parameters:
            parameter.grad = T.randn(*parameter.shape)
        optimizer = T.optim.AdamW(parameters, lr=1e-3, **options)
        return optimizer.step, ADAMW_BYTES * sum(p.numel() for p in parameters), "GB_per_s"

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    return {
        "AdamW 32M": step(T, [(PARAMETERS,)]),
        "AdamW 32M, fused": step(T, [(PARAMETERS,)], fused=True),
        "AdamW 46 tensors, fused": step(T, MANY, fused=True),
    }


if __name__ == "__main__":
    main("optim", cases, goals={"AdamW 32M": 2.8, "AdamW 32M, fused": 1.0, "AdamW 46 tensors, fused": 1.0}.get)
