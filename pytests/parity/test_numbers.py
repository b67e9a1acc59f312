"""Python numbers beside tensors: what does not fit is refused, or wraps, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
import pytest

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

LIMITS = {"uint8": 255, "int8": 127, "int16": 32767, "int32": 2**31 - 1, "int64": 2**63 - 1, "bool": 1}


def written(write: Callable[[Any], Any], x: Any) -> Any:
    write(x)
    return x


# Of the library, a tensor of four elements, a mask, the number and the tensor's dtype.
Call = Callable[[Any, Any, Any, float, Any], Any]
REFUSING: dict[str, Call] = {
    "fill_": lambda T, x, m, v, d: x.fill_(v),
    "full": lambda T, x, m, v, d: T.full((2,), v, dtype=d),
    "full_like": lambda T, x, m, v, d: T.full_like(x, v),
    "new_full": lambda T, x, m, v, d: x.new_full((2,), v),
    "tensor": lambda T, x, m, v, d: T.tensor([v], dtype=d),
    "masked_fill": lambda T, x, m, v, d: x.masked_fill(m, v),
    "masked_fill_": lambda T, x, m, v, d: x.masked_fill_(m, v),
    "clamp min": lambda T, x, m, v, d: x.clamp(min=v),
    "clamp max": lambda T, x, m, v, d: x.clamp(max=v),
    "clamp": lambda T, x, m, v, d: x.clamp(3, v),
    "clamp_": lambda T, x, m, v, d: x.clamp_(max=v),
    "where else": lambda T, x, m, v, d: T.where(m, x, v),
    "where then": lambda T, x, m, v, d: T.where(m, v, x),
    "set one": lambda T, x, m, v, d: written(lambda t: t.__setitem__(0, v), x),
    "set slice": lambda T, x, m, v, d: written(lambda t: t.__setitem__(slice(1, 3), v), x),
    "set mask": lambda T, x, m, v, d: written(lambda t: t.__setitem__(m, v), x),
    "set listed": lambda T, x, m, v, d: written(lambda t: t.__setitem__([0, 2], v), x),
    "add alpha": lambda T, x, m, v, d: T.add(x, x, alpha=v),
    "sub alpha": lambda T, x, m, v, d: T.sub(x, x, alpha=v),
    "addcmul": lambda T, x, m, v, d: T.addcmul(x, x, x, value=v),
    "scatter": lambda T, x, m, v, d: x.scatter(0, T.tensor([0]), v),
    "index_fill": lambda T, x, m, v, d: x.index_fill(0, T.tensor([0]), v),
    "pow": lambda T, x, m, v, d: x**v,
    "masked_fill by tensor": lambda T, x, m, v, d: x.masked_fill(m, T.tensor(v)),
}
WRAPPING: dict[str, Call] = {
    "add": lambda T, x, m, v, d: x + v,
    "sub": lambda T, x, m, v, d: x - v,
    "rsub": lambda T, x, m, v, d: v - x,
    "mul": lambda T, x, m, v, d: x * v,
    "add_": lambda T, x, m, v, d: x.add_(v),
    "floor_divide": lambda T, x, m, v, d: x // v,
    "remainder": lambda T, x, m, v, d: x % v,
    "fmod": lambda T, x, m, v, d: T.fmod(x, v),
    "and": lambda T, x, m, v, d: x & v,
    "lt": lambda T, x, m, v, d: x < v,
    "ge": lambda T, x, m, v, d: x >= v,
    "eq": lambda T, x, m, v, d: x == v,
    "maximum": lambda T, x, m, v, d: T.maximum(x, T.tensor(v)),
    "clamp by tensor": lambda T, x, m, v, d: x.clamp(min=T.tensor(v)),
    "div": lambda T, x, m, v, d: x / v,
}


CALLS = REFUSING | WRAPPING


def outcome(library: Any, call: Call, dtype: str, number: float) -> Any:
    """Values and dtype, or the class of the error."""
    own = getattr(library, dtype)
    x = library.tensor([0, 1, 100, 127]).to(own)
    try:
        result = call(library, x, library.tensor([True, False, True, False]), number, own)
    except Exception as error:
        return next(base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins")
    values = result.tolist()
    return str(result.dtype).split(".")[-1], [f"{v:.6g}" if isinstance(v, float) else v for v in values]


def compare(name: str, dtype: str, number: float) -> None:
    ours = outcome(deepseek, CALLS[name], dtype, number)
    theirs = outcome(torch, CALLS[name], dtype, number)
    assert ours == theirs, f"{name} of {dtype} and {number}"


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", CALLS)
def test_integers_beside_integers(name: str, dtype: str) -> None:
    limit = LIMITS[dtype]
    if dtype == "bool" and name in ("sub", "rsub", "addcmul", "pow"):
        return  # bool has no subtraction and no power, and addcmul of bools is ours alone
    for number in (limit, limit + 1, -1, -limit, -limit - 1, -limit - 2, 2 * limit + 7, 300):
        if abs(number) < 2**63:
            compare(name, dtype, number)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
@pytest.mark.parametrize("name", ["fill_", "full", "full_like", "new_full", "tensor", "masked_fill", "masked_fill_"])
def test_floats_stored_in_integers(name: str, dtype: str) -> None:
    limit = LIMITS[dtype]
    for number in (limit + 0.5, limit - 0.5, -0.5, -1.5, -limit - 1.5, float("nan"), float("inf")):
        compare(name, dtype, number)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", REFUSING)
def test_large_numbers_stored_in_floats(name: str, dtype: str) -> None:
    for number in (65504.0, 70000.0, -70000.0, 3.4e38, 1e39, float("inf"), float("-inf")):
        compare(name, dtype, number)
