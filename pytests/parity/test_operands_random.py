"""Operators with NumPy arrays, NumPy scalars and Python numbers: wherever torch gives a tensor, ours is the same.

torch refuses most operators with an array on the left, takes ``!=`` for "not the same object", reads a NumPy bool as a
float, and makes uint8 of bools it got from NumPy: there generators/test_random_operands.py compares with NumPy.
"""

from __future__ import annotations

import operator
import random
import warnings
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from generators.cases import cases
from torch_bridge import DTYPES, back

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parity

NAMES = (
    *("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("and_", "or_", "xor", "lshift", "rshift", "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"),
)
TENSORS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
ARRAYS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
SHAPES = (((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((3,), ()), ((), (3,)), ((2, 1), (1, 3)), ((), ()))
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-10}


def run(f: Callable[[], Any]) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return f()
        except Exception as error:
            return error


def operand(rng: random.Random) -> Any:
    """An array, a NumPy scalar or a Python number, and the shape for the tensor beside it."""
    shape, other = rng.choice(SHAPES)
    dtype = rng.choice(ARRAYS)
    count = int(np.prod(other))
    values = np.array([rng.randint(1, 4) for _ in range(count)]).reshape(other).astype(dtype)
    kind = rng.choice(("array", "array", "scalar", "number"))
    if kind == "array":
        return values, shape
    scalar = values.reshape(-1)[0]
    return (scalar if kind == "scalar" and dtype != "bool" else scalar.item()), shape


def one(number: int) -> str | None:
    rng = random.Random(number)
    name = rng.choice(NAMES)
    f = getattr(operator, name)
    value, shape = operand(rng)
    values = [rng.randint(1, 4) for _ in range(int(np.prod(shape)))]
    dtype = rng.choice(TENSORS)
    mine = deepseek.tensor(values).reshape(shape).to(getattr(deepseek, dtype))
    its = torch.tensor(values).reshape(shape).to(getattr(torch, dtype))
    array = isinstance(value, np.ndarray)
    first = name.startswith("i") or rng.random() < 0.6
    ours = run(lambda: f(mine, value) if first else f(value, mine))
    theirs = run(lambda: f(its, value) if first else f(value, its))
    where = f"case {number}: {name} of {dtype}{list(shape)} and {value!r}, tensor first: {first}"
    if array and (name.startswith("i") or not isinstance(theirs, torch.Tensor)):
        return None  # torch makes a new tensor of `x += array`
    if array and name == "truediv" and not first:
        return None  # the array times torch's reciprocal, which is in the tensor's dtype
    if dtype == "bool" and ((array and value.dtype == bool) or name.endswith(("pow", "floordiv"))):
        return None  # powers and quotients of bools are bools here, and refused there
    if isinstance(theirs, Exception):
        return "" if isinstance(ours, Exception) else f"{where}: {ours} for torch's {theirs!r}"
    if isinstance(ours, Exception) or type(ours) is not deepseek.Tensor:
        return f"{where}: {ours!r} for torch's {theirs}"
    if DTYPES[theirs.dtype] is not ours.dtype or tuple(ours.shape) != tuple(theirs.shape):
        return f"{where}: {ours.dtype}{tuple(ours.shape)} for torch's {theirs.dtype}{tuple(theirs.shape)}"
    tolerance = TOLERANCE.get(theirs.dtype, 0.0)
    if not torch.allclose(back(ours).double(), theirs.double(), tolerance, tolerance, equal_nan=True):
        return f"{where}: {ours.tolist()} for torch's {theirs.tolist()}"
    return ""


def test_random_operands() -> None:
    texts = [one(number) for number in cases(1500)]
    wrong = [text for text in texts if text]
    compared = sum(text is not None for text in texts)
    assert not wrong, f"{len(wrong)} of {compared} differ:\n" + "\n".join(wrong[:30])
