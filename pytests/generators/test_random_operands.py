"""Operators of tensors with NumPy arrays and NumPy's scalars, in both orders and in place: NumPy is the oracle."""

from __future__ import annotations

import operator
import random
import warnings
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from cases import cases

pytestmark = pytest.mark.filterwarnings("ignore")

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
}
BITWISE: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("and_", "or_", "xor", "lshift", "rshift")
}
OPERATORS = COMPARISONS | ARITHMETIC | BITWISE | {"divmod": divmod}
SHAPES = (
    *(((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((), (3,))),
    *(((3,), ()), ((2, 1), (1, 3)), ((0,), (0,)), ((), ())),
)
SQUARES = (((3, 3), (3, 3)), ((3,), (3, 3)), ((2, 3, 3), (3, 3)), ((3,), (3,)))


def array(rng: random.Random, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Small numbers above zero: what overflows or divides by zero is a matter of each library."""
    count = int(np.prod(shape))
    halves = (0.0, 0.5) if dtype.startswith("f") else (0,)
    values = np.array([rng.randint(1, 4) + rng.choice(halves) for _ in range(count)])
    made = values.reshape(shape).astype(dtype)
    layout = rng.randrange(4)
    if layout == 1 and made.ndim:
        return made[::-1]  # negative strides
    if layout == 2 and made.ndim:
        return np.repeat(made, 2, axis=0)[::2]
    if layout == 3:
        made.flags.writeable = False
    return made


def run(f: Callable[[], Any]) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return f()
        except Exception as error:
            return error


def same(ours: Any, theirs: Any) -> str:
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        both = isinstance(theirs, Exception) and isinstance(ours, Exception)
        return "" if both else f"{ours!r} for NumPy's {theirs!r}"
    if isinstance(theirs, tuple):
        return next(filter(None, map(same, ours, theirs)), "")
    theirs = np.asarray(theirs)
    if not isinstance(ours, deepseek.Tensor):
        return f"{type(ours).__name__} for a tensor"
    found = ours.detach().numpy()
    if found.dtype != theirs.dtype or found.shape != theirs.shape:
        return f"{found.dtype}{found.shape} for NumPy's {theirs.dtype}{theirs.shape}"
    if theirs.dtype.kind != "f":
        return "" if (found == theirs).all() else f"{found.tolist()} for NumPy's {theirs.tolist()}"
    tolerance = {2: 4e-3, 4: 1e-5, 8: 1e-12}[theirs.dtype.itemsize]
    near = np.allclose(found.astype("float64"), theirs.astype("float64"), tolerance, tolerance, equal_nan=True)
    return "" if near else f"{found.tolist()} for NumPy's {theirs.tolist()}"


def one(number: int) -> str:
    rng = random.Random(number)
    name = rng.choice(list(OPERATORS))
    f = OPERATORS[name]
    a_type, b_type = rng.choice(DTYPES), rng.choice(DTYPES)
    a_shape, b_shape = rng.choice(SQUARES if name == "matmul" else SHAPES)
    x, y = array(rng, a_type, a_shape), array(rng, b_type, b_shape)
    tensor_first = rng.random() < 0.5
    if tensor_first:
        ours, theirs = run(lambda: f(deepseek.tensor(x.copy()), y)), run(lambda: f(x, y))
    else:
        ours, theirs = run(lambda: f(x, deepseek.tensor(y.copy()))), run(lambda: f(x, y))
    text = same(ours, theirs)
    order = "tensor, array" if tensor_first else "array, tensor"
    return f"case {number}: {name} of {order}: {a_type}{a_shape}, {b_type}{b_shape}: {text}" if text else ""


def test_operators_with_arrays() -> None:
    wrong = [text for number in cases(1500) if (text := one(number))]
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:20])


def in_place(number: int) -> str:
    """A tensor keeps its memory and dtype, as an array does."""
    rng = random.Random(number)
    name = rng.choice(("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"))
    f = getattr(operator, name)
    a_type, b_type = rng.choice(DTYPES), rng.choice(DTYPES)
    a_shape, b_shape = rng.choice(SHAPES)
    x, y = array(rng, a_type, a_shape), array(rng, b_type, b_shape)
    tensor = deepseek.tensor(x.copy())
    before = tensor
    ours, theirs = run(lambda: f(tensor, y)), run(lambda: f(np.array(x), y))
    if isinstance(theirs, Exception):  # NumPy knows fewer casts: not int64 into int8
        return ""
    if isinstance(ours, Exception):
        return f"case {number}: {name} of {a_type}{a_shape}, {b_type}{b_shape}: {ours!r}"
    if ours is not before:
        return f"case {number}: {name} returned another tensor"
    text = same(ours, theirs)
    narrow = a_type == "float16"  # ours computes in a wider dtype, and rounds once
    return f"case {number}: {name} of {a_type}{a_shape}, {b_type}{b_shape}: {text}" if text and not narrow else ""


def test_operators_with_arrays_in_place() -> None:
    wrong = [text for number in cases(500) if (text := in_place(number))]
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:20])


def with_scalar(number: int) -> str:
    """A NumPy scalar is a number: a tensor with dims keeps its dtype beside one of its own kind."""
    rng = random.Random(number)
    name = rng.choice([n for n in OPERATORS if n != "matmul"])
    f = OPERATORS[name]
    a_type, b_type = rng.choice(DTYPES), rng.choice(DTYPES)
    tensor = deepseek.tensor(array(rng, a_type, (3,)).copy())
    scalar = array(rng, b_type, ())[()]
    number_of_python = scalar.item()
    tensor_first = rng.random() < 0.5

    def call(value: Any) -> Any:
        return f(tensor, value) if tensor_first else f(value, tensor)

    ours, theirs = run(lambda: call(scalar)), run(lambda: call(number_of_python))
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        if type(ours) is type(theirs):
            return ""
        return f"case {number}: {name} {a_type} {scalar!r} tensor_first={tensor_first}: {ours!r} for {theirs!r}"
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    for mine, its in pairs:
        if mine.dtype is not its.dtype or not deepseek.equal(mine.nan_to_num(), its.nan_to_num()):
            return f"case {number}: {name} {a_type} {scalar!r} tensor_first={tensor_first}: {mine} for {its}"
    return ""


def test_operators_with_scalars_of_numpy() -> None:
    wrong = [text for number in cases(1000) if (text := with_scalar(number))]
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:20])
