"""Dtype rules. The tables are what PyTorch 2.13 answers: f4 is float32, bf bfloat16, u1 uint8, b1 bool, -- an error."""

from __future__ import annotations

from typing import Any

import deepseek
import pytest

SHORT = {
    "b1": "bool",
    "u1": "uint8",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "f2": "float16",
    "bf": "bfloat16",
    "f4": "float32",
    "f8": "float64",
}
ORDER = list(SHORT)

PROMOTE = """
b1  b1 u1 i1 i2 i4 i8 f2 bf f4 f8
u1  u1 u1 i2 i2 i4 i8 f2 bf f4 f8
i1  i1 i2 i1 i2 i4 i8 f2 bf f4 f8
i2  i2 i2 i2 i2 i4 i8 f2 bf f4 f8
i4  i4 i4 i4 i4 i4 i8 f2 bf f4 f8
i8  i8 i8 i8 i8 i8 i8 f2 bf f4 f8
f2  f2 f2 f2 f2 f2 f2 f2 f4 f4 f8
bf  bf bf bf bf bf bf f4 bf f4 f8
f4  f4 f4 f4 f4 f4 f4 f4 f4 f4 f8
f8  f8 f8 f8 f8 f8 f8 f8 f8 f8 f8
"""
ZERO_DIM = """
b1  b1 u1 i1 i2 i4 i8 f2 bf f4 f8
u1  u1 u1 u1 u1 u1 u1 f2 bf f4 f8
i1  i1 i1 i1 i1 i1 i1 f2 bf f4 f8
i2  i2 i2 i2 i2 i2 i2 f2 bf f4 f8
i4  i4 i4 i4 i4 i4 i4 f2 bf f4 f8
i8  i8 i8 i8 i8 i8 i8 f2 bf f4 f8
f2  f2 f2 f2 f2 f2 f2 f2 f2 f2 f2
bf  bf bf bf bf bf bf bf bf bf bf
f4  f4 f4 f4 f4 f4 f4 f4 f4 f4 f4
f8  f8 f8 f8 f8 f8 f8 f8 f8 f8 f8
"""
IN_PLACE = """
b1  b1 -- -- -- -- -- -- -- -- --
u1  u1 u1 u1 u1 u1 u1 -- -- -- --
i1  i1 i1 i1 i1 i1 i1 -- -- -- --
i2  i2 i2 i2 i2 i2 i2 -- -- -- --
i4  i4 i4 i4 i4 i4 i4 -- -- -- --
i8  i8 i8 i8 i8 i8 i8 -- -- -- --
f2  f2 f2 f2 f2 f2 f2 f2 f2 f2 f2
bf  bf bf bf bf bf bf bf bf bf bf
f4  f4 f4 f4 f4 f4 f4 f4 f4 f4 f4
f8  f8 f8 f8 f8 f8 f8 f8 f8 f8 f8
"""
# One column per dtype of ORDER.
EXPRESSIONS = {
    "x + True": "b1 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x + 1": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x + 1.5": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x * 2": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x / 2": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x // 2": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x % 2": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x ** 2": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x ** 0.5": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "2 ** x": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "2.0 ** x": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "1 - x": "-- u1 i1 i2 i4 i8 f2 bf f4 f8",
    "1.0 - x": "-- f4 f4 f4 f4 f4 f2 bf f4 f8",
    "1 / x": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x == 1": "b1 b1 b1 b1 b1 b1 b1 b1 b1 b1",
    "x & 1": "i8 u1 i1 i2 i4 i8 -- -- -- --",
    "x | True": "b1 u1 i1 i2 i4 i8 -- -- -- --",
    "~x": "b1 u1 i1 i2 i4 i8 -- -- -- --",
    "x << 1": "i8 u1 i1 i2 i4 i8 -- -- -- --",
    "-x": "-- u1 i1 i2 i4 i8 f2 bf f4 f8",
    "abs(x)": "-- u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.sum()": "i8 i8 i8 i8 i8 i8 f2 bf f4 f8",
    "x.prod()": "i8 i8 i8 i8 i8 i8 f2 bf f4 f8",
    "x.mean()": "-- -- -- -- -- -- f2 bf f4 f8",
    "x.cumsum(0)": "i8 i8 i8 i8 i8 i8 f2 bf f4 f8",
    "x.max()": "b1 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.argmax()": "-- i8 i8 i8 i8 i8 i8 i8 i8 i8",
    "x.exp()": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x.sqrt()": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x.sigmoid()": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x.floor()": "-- u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.relu()": "-- u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.sign()": "b1 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.square()": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.reciprocal()": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x.clamp(0, 1)": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.clamp(0.0, 1.0)": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "x.any()": "b1 u1 b1 b1 b1 b1 b1 b1 b1 b1",
    "x.isnan()": "b1 b1 b1 b1 b1 b1 b1 b1 b1 b1",
    "x.logical_not()": "b1 b1 b1 b1 b1 b1 b1 b1 b1 b1",
    "x.var()": "-- -- -- -- -- -- f2 bf f4 f8",
    "x.norm()": "-- -- -- -- -- -- f2 bf f4 f8",
    "x.softmax(0)": "-- -- -- -- -- -- f2 bf f4 f8",
    "x.round()": "-- u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.masked_fill(m, 1.5)": "b1 u1 i1 i2 i4 i8 f2 bf f4 f8",
    "x.sort()[1]": "i8 i8 i8 i8 i8 i8 i8 i8 i8 i8",
    "deepseek.where(m, x, 1.5)": "f4 f4 f4 f4 f4 f4 f2 bf f4 f8",
    "deepseek.where(m, x, 1)": "i8 u1 i1 i2 i4 i8 f2 bf f4 f8",
}


def parse(table: str) -> dict[tuple[str, str], str]:
    rows = [line.split() for line in table.strip().splitlines()]
    return {(row[0], column): cell for row in rows for column, cell in zip(ORDER, row[1:], strict=True)}


def dtype(code: str) -> Any:
    return getattr(deepseek, SHORT[code])


def ones(code: str, *shape: int) -> Any:
    return deepseek.ones(shape, dtype=dtype(code))


PAIRS = parse(PROMOTE)
SAME = {
    "promote_types": lambda a, b: deepseek.promote_types(dtype(a), dtype(b)),
    "result_type": lambda a, b: deepseek.result_type(ones(a, 2), ones(b, 2)),
    "add": lambda a, b: (ones(a, 2) + ones(b, 2)).dtype,
    "mul": lambda a, b: (ones(a, 2) * ones(b, 2)).dtype,
    "maximum": lambda a, b: deepseek.maximum(ones(a, 2), ones(b, 2)).dtype,
    "add of 0-d": lambda a, b: (ones(a) + ones(b)).dtype,
    "cat": lambda a, b: deepseek.cat([ones(a, 2), ones(b, 2)]).dtype,
    "where": lambda a, b: deepseek.where(deepseek.tensor([True, False]), ones(a, 2), ones(b, 2)).dtype,
}


@pytest.mark.parametrize("how", SAME)
def test_two_tensors(how: str) -> None:
    wrong = {pair: str(SAME[how](*pair)) for pair, want in PAIRS.items() if SAME[how](*pair) != dtype(want)}
    assert not wrong


@pytest.mark.parametrize("how", ["div", "atan2"])
def test_integers_become_the_default_float(how: str) -> None:
    f = {"div": lambda a, b: a / b, "atan2": lambda a, b: deepseek.atan2(a, b)}[how]
    for (a, b), want in PAIRS.items():
        got = f(ones(a, 2), ones(b, 2)).dtype
        assert got == dtype(want if want in ("f2", "bf", "f4", "f8") else "f4"), (a, b)


def test_a_zero_dim_tensor_counts_only_by_its_kind() -> None:
    for (a, b), want in parse(ZERO_DIM).items():
        assert (ones(a, 2) * ones(b)).dtype == dtype(want), (a, b)
        assert (ones(b) * ones(a, 2)).dtype == dtype(want), (b, a)


def test_in_place_keeps_the_dtype_or_refuses() -> None:
    for (a, b), want in parse(IN_PLACE).items():
        x = ones(a, 2)
        if want == "--":
            with pytest.raises(RuntimeError, match="can't be cast|cast"):
                x.add_(ones(b, 2))
            assert x.tolist() == [1, 1]
        else:
            assert x.add_(ones(b, 2)) is x and x.dtype == dtype(want), (a, b)


def test_bool_subtraction_is_refused() -> None:
    for a, b in PAIRS:
        if "b1" in (a, b):
            with pytest.raises(RuntimeError, match="bool"):
                ones(a, 2) - ones(b, 2)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_scalars_and_reductions(text: str) -> None:
    wrong = {}
    for code, want in zip(ORDER, EXPRESSIONS[text].split(), strict=True):
        names = {"x": ones(code, 2), "m": deepseek.tensor([True, False]), "deepseek": deepseek}
        try:
            got = str(eval(text, names).dtype).split(".")[-1]
        except (RuntimeError, NotImplementedError, TypeError):
            got = "--"
        if got != SHORT.get(want, want):
            wrong[code] = f"{got}, torch {want}"
    assert not wrong


def test_python_literals() -> None:
    cases = {"float32": [1.5, [1.0, 2], [[1.5]], []], "int64": [1, [1, 2]], "bool": [True, [True, False]]}
    for name, values in cases.items():
        for value in values:
            assert deepseek.tensor(value).dtype == getattr(deepseek, name), value
    assert deepseek.tensor([True, 2]).dtype == deepseek.int64


def test_default_dtype() -> None:
    assert deepseek.get_default_dtype() == deepseek.float32
    try:
        deepseek.set_default_dtype(deepseek.float64)
        assert (
            deepseek.tensor(1.5).dtype
            == deepseek.zeros(2).dtype
            == (deepseek.tensor([1]) / 2).dtype
            == deepseek.float64
        )
        assert (deepseek.ones(2, dtype=deepseek.float32) * 2.5).dtype == deepseek.float32
    finally:
        deepseek.set_default_dtype(deepseek.float32)
    with pytest.raises((TypeError, RuntimeError)):
        deepseek.set_default_dtype(deepseek.int64)


@pytest.mark.parametrize(
    ("source", "target", "want"),
    [
        ("float32", "int32", False),
        ("int64", "float32", True),
        ("float64", "float16", True),
        ("int64", "uint8", True),
        ("bool", "int8", True),
        ("int8", "bool", False),
    ],
)
def test_can_cast(source: str, target: str, want: bool) -> None:
    assert deepseek.can_cast(getattr(deepseek, source), getattr(deepseek, target)) is want


@pytest.mark.parametrize(
    ("value", "source", "target", "want"),
    [
        (3.9, "float32", "int64", 3),
        (-3.9, "float32", "int32", -3),
        (300, "int64", "uint8", 44),
        (-1, "int64", "uint8", 255),
        (0.1, "float64", "bool", True),
        (0.0, "float32", "bool", False),
        (2**24 + 1, "int64", "float32", 2.0**24),
        (1.00390625, "float32", "bfloat16", 1.0),
        (70000.0, "float32", "float16", float("inf")),
        (1 + 3 * 2**-8, "float32", "bfloat16", 1.015625),
        (2049.0, "float32", "float16", 2048.0),
    ],
)
def test_conversion_values(value: float, source: str, target: str, want: float) -> None:
    x = deepseek.tensor([value], dtype=getattr(deepseek, source)).to(getattr(deepseek, target))
    assert x.dtype == getattr(deepseek, target) and x.item() == want


def test_a_number_beyond_the_dtype_is_among_no_elements() -> None:
    """PyTorch wraps it: 300 is 44 in int8."""
    assert deepseek.isin(deepseek.tensor([1, 44], dtype=deepseek.int8), 300).tolist() == [False, False]
    assert deepseek.isin(deepseek.tensor([2, 3], dtype=deepseek.uint8), 2.5, invert=True).tolist() == [True, True]
    assert deepseek.isin(deepseek.tensor([True, False]), 1).tolist() == [True, False]
