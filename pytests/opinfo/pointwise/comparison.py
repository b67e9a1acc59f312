"""Comparisons, logic, bits and float classification: results that are bool or integer, never differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import INTS, INTS_BOOL, A, B, E, S, T, op
from .pointwise import BIG, INF, NAN, SHAPE_ERROR, pairs

for _name, _ref in {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}.items():
    op(
        _name,
        _ref,
        *pairs(grad=False),
        S(A([1.0, 2.0, NAN]), A([1.0, 3.0, NAN])),
        S(A([1, 2, 3]), A([1.0, 2.5, 3.0])),
        S(A([1, 2, 3]), 2.5),
        S(A([True, False]), A([1, 1])),
        out="bool",
        grad=False,
        ints=INTS_BOOL,
        special=2,
        big=[S(T(*BIG), T(*BIG))],
        errors=[SHAPE_ERROR],
    )

op(
    "isnan",
    np.isnan,
    S(A([NAN, INF, -INF, 0.0])),
    S(T()),
    S(T(0, 3)),
    out="bool",
    grad=False,
    special=1,
    ints=INTS_BOOL,
    big=[S(T(*BIG))],
)
op(
    "isinf",
    np.isinf,
    S(A([NAN, INF, -INF, 0.0])),
    S(T()),
    S(T(0, 3)),
    out="bool",
    grad=False,
    special=1,
    ints=INTS_BOOL,
    big=[S(T(*BIG))],
)
op(
    "isfinite",
    np.isfinite,
    S(A([NAN, INF, -INF, 0.0])),
    S(T()),
    S(T(0, 3)),
    out="bool",
    grad=False,
    special=1,
    ints=INTS_BOOL,
    big=[S(T(*BIG))],
)


def logical(name: str, ref: Callable[..., Any]) -> None:
    op(
        name,
        ref,
        S(B(3, 4), B(4)),
        S(B(), B()),
        S(B(0, 3), B(3)),
        S(T(3, 4), T(3, 4)),
        S(A([0.0, 1.0, NAN]), B(3)),
        S(A([0, 1, 2, 0]), A([0, 0, 5, 1])),
        S(A([0, 2]), A([0.0, 0.5])),
        out="bool",
        grad=False,
        ints=INTS_BOOL,
        big=[S(B(*BIG), B(*BIG))],
        errors=[SHAPE_ERROR],
    )


logical("logical_and", np.logical_and)
logical("logical_or", np.logical_or)
logical("logical_xor", np.logical_xor)
op(
    "logical_not",
    np.logical_not,
    S(B(3, 4)),
    S(B()),
    S(B(0, 3)),
    S(A([0.0, 1.0, NAN])),
    S(A([0, 3])),
    S(T(3)),
    out="bool",
    grad=False,
    ints=INTS_BOOL,
    big=[S(B(*BIG))],
)


def bitwise(name: str, ref: Callable[..., Any], dtypes: tuple[str, ...] = INTS_BOOL, **kw: Any) -> None:
    op(
        name,
        ref,
        S(T(3, 4), T(4)),
        S(T(), T()),
        S(T(0, 3), T(3)),
        S(T(5), 1).but(ints=True),
        S(T(2, 1), T(1, 3)),
        grad=False,
        floats=(),
        low=(),
        ints=dtypes,
        big=[S(T(*BIG), T(*BIG))],
        errors=[
            E(RuntimeError, "float|integ|dtype|implemented", T(3, dtype="float32"), T(3, dtype="float32")),
            E(RuntimeError, "size|shape", A([1, 2]), A([1, 2, 3])),
        ],
        **kw,
    )


bitwise("bitwise_and", lambda a, b: np.bitwise_and(a, b))
bitwise("bitwise_or", lambda a, b: np.bitwise_or(a, b))
bitwise("bitwise_xor", lambda a, b: np.bitwise_xor(a, b))
bitwise("bitwise_left_shift", lambda a, b: np.left_shift(a, b), INTS, int_range=(0, 4))
bitwise("bitwise_right_shift", lambda a, b: np.right_shift(a, b), INTS, int_range=(0, 4))
op(
    "bitwise_not",
    lambda a: np.logical_not(a) if a.dtype == bool else np.invert(a),
    S(T(3, 4)),
    S(T()),
    S(T(0, 3)),
    grad=False,
    floats=(),
    low=(),
    ints=INTS_BOOL,
    big=[S(T(*BIG))],
    errors=[E(RuntimeError, "float|integ|dtype|implemented", T(3, dtype="float32"))],
)

op(
    "isclose",
    lambda a, b, rtol=1e-5, atol=1e-8, equal_nan=False: np.isclose(a, b, rtol, atol, equal_nan),
    S(T(3, 4), T(4)),
    S(T(), T()),
    S(T(0, 3), T(3)),
    S(A([1.0, NAN, INF, -INF, 1.0]), A([1.000001, NAN, INF, INF, 2.0])).but(low=False),
    S(A([1.0, NAN]), A([1.0, NAN]), equal_nan=True),
    S(A([1.0]), A([1.2]), rtol=0.5),
    out="bool",
    grad=False,
    errors=[SHAPE_ERROR],
)
