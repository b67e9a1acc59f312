"""Arithmetic and comparisons under other names."""

from __future__ import annotations

import numpy as np

from ..core import INTS, A, E, S, T, op
from .pointwise import BIG, INF, NAN

BOUNDS = [
    S(T(3, 4), 0.5).but(ints=False),
    S(T(3, 4), T(4)).but(ints=False),
    S(T(2, 3), T(3)),
    S(T(), T()),
    S(T(5), 1),
    S(T(0, 3), 1),
    S(A([NAN, INF, -INF]), -1.0).but(grad=False, ints=False),
]
op(
    "clamp_min",
    lambda x, min: np.maximum(x, min),
    *BOUNDS,
    S(T(3, 4), min=1),
    ints=INTS,
    big=[S(T(*BIG), -1.0)],
    errors=[E(TypeError, "argument 'min' must be Tensor or number, not NoneType", T(3), None)],
)
op(
    "clamp_max",
    lambda x, max: np.minimum(x, max),
    *BOUNDS,
    S(T(3, 4), max=1),
    ints=INTS,
    big=[S(T(*BIG), 1.0)],
    errors=[E(TypeError, "argument 'max' must be Tensor or number, not NoneType", T(3), None)],
)
op(
    "rsub",
    lambda x, other, alpha=1: other - (x if alpha == 1 else alpha * x),
    S(T(3, 4), T(4)),
    S(T(3, 4), T(3, 1), alpha=2),
    S(T(3, 4), 3),
    S(T(3, 4), 3, alpha=1.0).but(ints=False),
    S(T(3, 4), 2.5, alpha=0.5).but(ints=False),
    S(T(), T()),
    S(T(0, 3), 1),
    ints=INTS,
    big=[S(T(*BIG), T(*BIG), alpha=2)],
    errors=[E(RuntimeError, "size|shape", T(3), T(4))],
)


def float_power(x: np.ndarray | float, exponent: np.ndarray | float) -> np.ndarray:
    return np.float_power(x, exponent)


op(
    "float_power",
    float_power,
    S(T(3, 4, lo=0.5, hi=2), T(4)),
    S(T(3, 4, lo=0.5, hi=2), 2),
    S(T(3, 4, lo=0.5, hi=2), exponent=0.5),
    S(2, T(3, 4)),
    S(T(lo=0.5, hi=2), T()),
    S(T(0, 3), 2),
    out="float64",
    low=(),
    tol=4,  # torch takes log(2) in float32
    ints=("int64", "uint8"),
    int_range=(1, 5),
    errors=[E(TypeError, "float_power", 2, 3), E(RuntimeError, "size|shape", T(3), T(4))],
)
op(
    "isin",
    lambda x, tests, invert=False: np.isin(x, tests, invert=invert),
    S(A([1.0, 2.0, 3.0]), A([[2.0], [7.0]])),
    S(A([[1, 2], [3, 300]]), A([2, 300]), invert=True),
    S(A([1.0, 2.0, 3.0]), 2),
    S(A([1.0, 0.1, 3.0], dtype="float64"), 0.1),
    S(A([1, 2, 3]), 2.0, invert=True),
    S(T(3), T(0)),
    S(T(), T()),
    S(T(0, 3), T(2)),
    out="bool",
    grad=False,
    low=(),
    ints=INTS,
    errors=[E(TypeError, "isin", T(3), "2"), E(TypeError, "isin", 2, T(3))],
)
