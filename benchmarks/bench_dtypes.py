"""Pointwise ops, reductions and row ops in other dtypes than float32: 16-bit floats, float64, integers, bool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main
from bench_pointwise import SIZES, by_rows, pointwise, reductions, timed

Op = Callable[..., Any]
FLOATS = {"bfloat16": ("1e4", "1e6", "1e7"), "float16": ("1e6",), "float64": ("1e6",)}
INTEGERS = ("int64", "int32", "uint8")
MATRIX = (4096, 1024)


def of_numbers(T: Any) -> dict[str, tuple[Op, int]]:
    """Ops and how many tensors they read."""
    return {
        "neg": (lambda a: -a, 1),
        "lt": (lambda a, b: a < b, 2),
        "to float32": (lambda a: a.float(), 1),
    }


def of_floats(T: Any) -> dict[str, tuple[Op, int]]:
    ops = pointwise(T)
    del ops["to bfloat16"]
    return ops | of_numbers(T) | {"addcmul": (lambda a, b: T.addcmul(a, a, b), 2)}


def of_integers(T: Any) -> dict[str, tuple[Op, int]]:
    ops = pointwise(T)
    return {name: ops[name] for name in ("add", "mul", "maximum", "where")} | {
        "add number": (lambda a: a + 3, 1),
        "clamp": (lambda a: a.clamp(20, 50), 1),
        "floor_divide": (lambda a, b: a // b, 2),
        "and": (lambda a, b: a & b, 2),
        "eq number": (lambda a: a == 7, 1),
        **of_numbers(T),
    }


def of_bools(T: Any) -> dict[str, tuple[Op, int]]:
    return {
        "and": (lambda a, b: a & b, 2),
        "or": (lambda a, b: a | b, 2),
        "not": (lambda a: ~a, 1),
        "eq": (lambda a, b: a == b, 2),
        "to float32": (lambda a: a.float(), 1),
        "to int64": (lambda a: a.long(), 1),
    }


def sums(T: Any, *names: str) -> dict[str, tuple[Op, int]]:
    """Reductions of one tensor."""
    return {name: (op, 1) for name, op in reductions(T).items() if not names or name in names}


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    table: dict[str, Callable[[], Any]] = {}

    def add(dtype: str, labels: tuple[str, ...], ops: dict[str, tuple[Op, int]], rows: tuple[str, ...]) -> None:
        for label in labels:
            for name, (op, inputs) in ops.items():
                table[f"{name} {label} {dtype}"] = timed(T, op, inputs, (SIZES[label],), inputs + 1, dtype)
        for name, op in by_rows(T).items():
            if name in rows or not rows:
                table[f"{name} {MATRIX[0]}x{MATRIX[1]} {dtype}"] = timed(T, op, 1, MATRIX, 2, dtype)

    for dtype, labels in FLOATS.items():
        add(dtype, labels, of_floats(T) | sums(T), ())
    for dtype in INTEGERS:
        rows = ("sum of rows", "sum of columns", "max of columns", "cumsum of rows")
        add(dtype, ("1e6",), of_integers(T) | sums(T, "sum", "max", "argmax"), rows)
    add("bool", ("1e6",), of_bools(T) | sums(T, "sum"), ("sum of rows",))
    return table


if __name__ == "__main__":
    main("dtypes", cases, goals=lambda case: 1.0)
