"""Unary functions of float32 against NumPy in float64: every value there is (`make slow`), or one in many and those
around the edges of ranges. No lane of a vector may change what its neighbours give, which is looked for too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import deepseek
import numpy as np
import pytest

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh,
}  # fmt: skip
MOST_ULP = {"exp": 1.0, "exp2": 1.0}  # else 4
PIECE = 1 << 24
EVERY = 1021
# Where a function leaves its fast path, becomes subnormal, 0 or infinite, or is not defined any more.
EDGES = (0.0, 1.0, 8256.0, 10000.0, 20.0, 86.643, 87.3365, 88.7228, 88.73, 89.4159, 89.5, 103.97, 104.0, 126.0,
         127.99999, 128.0, 149.0, 150.0, 151.0, 1.1754944e-38, 1.7e38, 1.8e38, 3.4028235e38)  # fmt: skip


def floats(bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.uint32).view(np.float32)


def around_edges() -> np.ndarray:
    near = np.arange(-300, 301)
    bits = [np.maximum(int(np.float32(edge).view(np.uint32)) + near, 0) for edge in EDGES]
    positive = floats(np.concatenate(bits))
    return np.concatenate([positive, -positive, np.float32([np.nan, np.inf, -np.inf])])


def pieces(every: int) -> Iterator[np.ndarray]:
    for begin in range(0, 1 << 32, PIECE * every):
        yield floats(np.arange(begin, min(begin + PIECE * every, 1 << 32), every, dtype=np.int64))


def check(name: str, x: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        got = getattr(deepseek, name)(deepseek.tensor(x)).numpy()
        exact = FUNCTIONS[name](x.astype(np.float64))
        want = exact.astype(np.float32)
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        finite = np.isfinite(want) & np.isfinite(got)
        ulp = np.maximum(np.spacing(np.abs(want)).astype(np.float64), 2.0**-149)
        near = np.abs(got.astype(np.float64) - exact) <= MOST_ULP.get(name, 4.0) * ulp
        good = np.where(finite, near & (np.signbit(got) == np.signbit(want)), same)
    at = np.flatnonzero(~good)[:5]
    assert at.size == 0, f"{name} of {x[at]} is {want[at]}, not {got[at]}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_floats_of_all_magnitudes(name):
    check(name, around_edges())
    for x in pieces(EVERY):
        check(name, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_float(name):
    for x in pieces(1):
        check(name, x)


@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.float64], ids=str)
@pytest.mark.parametrize("name", [*FUNCTIONS, "erfc", "erf"])
def test_a_value_is_the_same_whatever_stands_beside_it(name, dtype):
    some = [0.3, 0.9, 1.5, 7.0, 30.0, 80.0, 2e-40, 1e-310, -0.25, -0.0, -30.0, -95.0, -740.0, 9000.0, 2e6, 1e30]
    extreme = [np.nan, np.inf, -np.inf, 1e9, -1e9, 1e-42, -2.0, 0.0, 1.0, -1.0, 150.0, 710.0]
    rng = np.random.default_rng(7)
    function = getattr(deepseek, name)
    alone = np.concatenate([function(deepseek.tensor([v] * 16, dtype=dtype)).numpy()[:1] for v in [*some, *extreme]])
    for _ in range(20):
        order = rng.integers(0, len(alone), 257)
        mixed = function(deepseek.tensor(np.array([*some, *extreme])[order], dtype=dtype)).numpy()
        np.testing.assert_array_equal(mixed, alone[order])
