"""When a function is Python and when C++: the rule of docs/architecture.md, held against every function's signature."""

from __future__ import annotations

import inspect
from typing import Any

from deepseek import _functions

# Types that a schema of the op table can say. PyTorch's `layout` and `pin_memory` are accepted and do nothing.
ARGUMENTS = {
    "Tensor", "Tensor | None", "Tensor | float", "Sequence[Tensor]", "tuple[Tensor, Tensor] | None",
    "int", "int | None", "Sequence[int]", "int | Sequence[int]", "int | Sequence[int] | None", "float", "float | None",
    "bool", "bool | None", "str", "str | None", "dtype", "dtype | None", "device | str | None",
}  # fmt: skip
RESULTS = {"Tensor", "tuple[Tensor, ...]", "tuple[Tensor, Tensor]"}
IGNORED = {"layout", "pin_memory"}

# A schema could say their signatures, but not what they do.
NEED_PYTHON = {
    "positive": "it gives its argument itself",
    "split": "lists of any length, an op's have at most 8 numbers",
    "split_with_sizes": "lists of any length",
    "std": "a bool in the place of dim is `unbiased`",
    "std_mean": "as std",
    "var": "as std",
    "var_mean": "as std",
}


def fits_a_schema(function: Any) -> bool:
    """From tensors and plain attributes to tensors, which is what an op of the table does."""
    parameters = inspect.signature(function).parameters.values()
    arguments = all(
        p.kind is not p.VAR_POSITIONAL and (p.annotation in ARGUMENTS or p.name in IGNORED) for p in parameters
    )
    return arguments and function.__annotations__["return"] in RESULTS


def test_what_an_op_could_do_is_an_op() -> None:
    functions = {
        name: value for name in vars(_functions)["__all__"] if inspect.isfunction(value := vars(_functions)[name])
    }
    fitting = {name for name, function in functions.items() if fits_a_schema(function)}
    assert fitting - NEED_PYTHON.keys() == set(), "write it in csrc/ops/, or say in NEED_PYTHON what it needs"
    assert NEED_PYTHON.keys() - fitting == set(), "these are ops now, or gone: take them off the list"
