"""Pointwise ops, reductions and row ops, from sizes that fit in L1 to sizes that fit in no cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main

SIZES = {"1k": 1 << 10, "64k": 1 << 16, "1M": 1 << 20, "16M": 1 << 24}


def made(T: Any, op: Callable[..., Any], inputs: int, size: int, traffic: int) -> Callable[[], Any]:
    """Times op on `inputs` float32 tensors; `traffic` counts the tensors read and written, for GB/s."""

    def setup() -> Any:
        T.manual_seed(0)
        tensors = [T.rand(size) + 0.5 for _ in range(inputs)]
        return lambda: op(*tensors), 4e-9 * size * traffic, "GB_per_s"

    return setup


def rows(T: Any, op: Callable[[Any], Any], shape: tuple[int, int], traffic: int) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        x = T.randn(*shape)
        return lambda: op(x), 4e-9 * shape[0] * shape[1] * traffic, "GB_per_s"

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    table: dict[str, Callable[[], Any]] = {}
    for label, size in SIZES.items():
        table[f"add {label}"] = made(T, lambda a, b: a + b, 2, size, 3)
        table[f"exp {label}"] = made(T, T.exp, 1, size, 2)
        table[f"gelu {label}"] = made(T, T.nn.functional.gelu, 1, size, 2)
        table[f"sum {label}"] = made(T, T.sum, 1, size, 1)
    for shape in ((64, 1024), (4096, 1024)):
        name = f"{shape[0]}x{shape[1]}"
        table[f"softmax {name}"] = rows(T, lambda x: T.softmax(x, -1), shape, 2)
        table[f"rms_norm {name}"] = rows(T, lambda x: T.nn.functional.rms_norm(x, x.shape[-1:]), shape, 2)
        table[f"sum of columns {name}"] = rows(T, lambda x: x.sum(0), shape, 1)
        table[f"add transposed {name}"] = rows(T, lambda x: x.t() + 1.0, shape, 2)
    return table


if __name__ == "__main__":
    main(
        "pointwise", cases, readme=("add 1M", "exp 1M", "gelu 1M", "sum 1M", "softmax 4096x1024", "rms_norm 4096x1024")
    )
