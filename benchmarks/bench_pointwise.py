"""Pointwise ops, reductions and row ops, from sizes that fit in L1 to sizes that fit in no cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main

SIZES = {"1e3": 10**3, "1e4": 10**4, "1e5": 10**5, "1e6": 10**6, "1e7": 10**7}
LARGEST = "1e7"


def pointwise(T: Any) -> dict[str, tuple[Callable[..., Any], int]]:
    """Ops and how many tensors they read."""
    F = T.nn.functional
    return {
        "add": (lambda a, b: a + b, 2),
        "mul": (lambda a, b: a * b, 2),
        "add number": (lambda a: a + 1.5, 1),
        "div": (lambda a, b: a / b, 2),
        "maximum": (T.maximum, 2),
        "where": (lambda a, b: T.where(a > b, a, b), 2),
        "clamp": (lambda a: a.clamp(0.7, 1.2), 1),
        "sqrt": (T.sqrt, 1),
        "exp": (T.exp, 1),
        "log": (T.log, 1),
        "sin": (T.sin, 1),
        "tanh": (T.tanh, 1),
        "sigmoid": (T.sigmoid, 1),
        "erf": (T.erf, 1),
        "relu": (T.relu, 1),
        "gelu": (F.gelu, 1),
        "gelu tanh": (lambda a: F.gelu(a, approximate="tanh"), 1),
        "silu": (F.silu, 1),
        "to bfloat16": (lambda a: a.to(T.bfloat16), 1),
    }


def reductions(T: Any) -> dict[str, Callable[[Any], Any]]:
    """Of all elements."""
    return {
        "sum": T.sum,
        "mean": T.mean,
        "max": T.max,
        "argmax": T.argmax,
        "var": T.var,
        "norm": T.linalg.vector_norm,
        "any": lambda a: (a < 0).any(),
    }


def by_rows(T: Any) -> dict[str, Callable[[Any], Any]]:
    """Of a matrix."""
    F = T.nn.functional
    return {
        "softmax of rows": lambda x: T.softmax(x, -1),
        "log_softmax of rows": lambda x: T.log_softmax(x, -1),
        "layer_norm of rows": lambda x: F.layer_norm(x, x.shape[-1:]),
        "rms_norm of rows": lambda x: F.rms_norm(x, x.shape[-1:]),
        "sum of rows": lambda x: x.sum(-1),
        "sum of columns": lambda x: x.sum(0),
        "max of columns": lambda x: x.amax(0),
        "cumsum of rows": lambda x: x.cumsum(-1),
        "softmax of columns": lambda x: T.softmax(x, 0),
        "add transposed": lambda x: x.t() + 1.0,
    }


def random(T: Any, dtype: str, sizes: tuple[int, ...]) -> Any:
    if dtype == "bool":
        return T.rand(*sizes) > 0.5
    if "int" in dtype:
        return T.randint(1, 100, sizes).to(getattr(T, dtype))
    return (T.rand(*sizes) + 0.5).to(getattr(T, dtype))


def timed(
    T: Any, op: Callable[..., Any], inputs: int, sizes: tuple[int, ...], traffic: int, dtype: str = "float32"
) -> Callable[[], Any]:
    """Times op on `inputs` tensors; `traffic` counts the tensors read and written, for GB/s."""

    def setup() -> Any:
        T.manual_seed(0)
        tensors = [random(T, dtype, sizes) for _ in range(inputs)]
        return lambda: op(*tensors), 1e-9 * tensors[0].element_size() * tensors[0].numel() * traffic, "GB_per_s"

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    table: dict[str, Callable[[], Any]] = {}
    for label, size in SIZES.items():
        for name, (op, inputs) in pointwise(T).items():
            table[f"{name} {label}"] = timed(T, op, inputs, (size,), inputs + 1)
        for name, reduction in reductions(T).items():
            table[f"{name} {label}"] = timed(T, reduction, 1, (size,), 1)
    for shape in ((64, 1024), (4096, 1024)):
        for name, op in by_rows(T).items():
            table[f"{name} {shape[0]}x{shape[1]}"] = timed(T, op, 1, shape, 2)
    return table


def goal(case: str) -> float:
    """Pointwise results of 1e7 elements are fresh pages every call for PyTorch, so that a caching allocator wins."""
    name, _, size = case.rpartition(" ")
    return 2.0 if size == LARGEST and name not in ("sum", "mean", "max", "argmax", "var", "norm", "any") else 1.0


if __name__ == "__main__":
    main(
        "pointwise",
        cases,
        readme=("add 1e6", "exp 1e6", "gelu 1e6", "sum 1e6", "add 1e7", "softmax of rows 4096x1024"),
        goals=goal,
    )
