"""Pointwise arithmetic, transcendental functions and activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import INTS, INTS_BOOL, SIGNED, A, B, E, S, Sample, T, op

NAN, INF = math.nan, math.inf
BIG = (300, 401)

erf = np.vectorize(math.erf, otypes=[float])
erfc = np.vectorize(math.erfc, otypes=[float])


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def softplus(x: np.ndarray, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    return np.where(x * beta > threshold, x, np.log1p(np.exp(np.minimum(x * beta, threshold))) / beta)


def unary(
    name: str, ref: Callable[..., Any], lo: float = -2.0, hi: float = 2.0, *extra: Sample, out: str = "float", **kw: Any
) -> None:
    """An entry for f(input): the usual shapes, NaN and inf, one size that is cut over threads."""
    samples = [S(T(3, 4, lo=lo, hi=hi)), S(T(lo=lo, hi=hi)), S(T(0, 3)), S(T(2, 1, 17, lo=lo, hi=hi)), *extra]
    kw.setdefault("special", 1)
    kw.setdefault("ints", INTS_BOOL)
    op(name, ref, *samples, out=out, big=[S(T(*BIG, lo=lo, hi=hi))], **kw)


def keep(f: Callable[..., Any]) -> Callable[..., Any]:
    """f on floats, identity on integers."""
    return lambda x: f(x) if x.dtype.kind == "f" else x


unary("abs", np.abs, out="same", ints=INTS)
unary("neg", np.negative, out="same", ints=INTS, errors=[E(RuntimeError, "bool", B(3))])
unary("sign", lambda x: np.sign(np.nan_to_num(x)) if x.dtype.kind == "f" else np.sign(x), out="same", ints=INTS)
unary("exp", np.exp)
unary("exp2", np.exp2)
unary("expm1", np.expm1)
unary("log", np.log, 0.1, 5.0)
unary("log2", np.log2, 0.1, 5.0)
unary("log10", np.log10, 0.1, 5.0)
unary("log1p", np.log1p, -0.9, 5.0)
unary("sqrt", np.sqrt, 0.1, 5.0)
unary("rsqrt", lambda x: 1 / np.sqrt(x), 0.1, 5.0)
unary("reciprocal", lambda x: 1 / x, 0.3, 3.0)
unary("square", np.square, out="same", ints=INTS)
unary("sin", np.sin)
unary("cos", np.cos)
unary("tan", np.tan, -1.2, 1.2)
unary("asin", np.arcsin, -0.9, 0.9)
unary("acos", np.arccos, -0.9, 0.9)
unary("atan", np.arctan)
unary("sinh", np.sinh)
unary("cosh", np.cosh)
unary("tanh", np.tanh)
unary("asinh", np.arcsinh)
unary("acosh", np.arccosh, 1.2, 5.0)
unary("atanh", np.arctanh, -0.9, 0.9)
unary("sigmoid", sigmoid)
unary("erf", erf)
unary("erfc", erfc)
unary("floor", keep(np.floor), out="same", ints=INTS)
unary("ceil", keep(np.ceil), out="same", ints=INTS)
unary("trunc", keep(np.trunc), out="same", ints=INTS)
unary("frac", lambda x: x - np.trunc(x), out="same", ints=(), special_skip=(INF, -INF))


def rounded(x: np.ndarray, decimals: int = 0) -> np.ndarray:
    return np.round(x, decimals) if x.dtype.kind == "f" else x


unary(
    "round", rounded, -9.0, 9.0, S(A([0.5, 1.5, 2.5, -0.5, -1.5])).but(grad=False),
    S(T(3, 4, lo=-9, hi=9), decimals=1).but(ints=False, low=False, grad=False),
    S(T(3, 4, lo=-900, hi=900), decimals=-2).but(ints=False, low=False, grad=False), out="same", ints=INTS,
)  # fmt: skip
unary(
    "relu",
    lambda x: np.where(x > 0, x, 0 * x if x.dtype.kind != "f" else np.where(np.isnan(x), x, 0)),
    out="same",
    ints=INTS,
)
unary("silu", silu, ints=(), special_skip=(INF, -INF), tol=2)
unary(
    "gelu",
    gelu,
    -3.0,
    3.0,
    S(T(3, 5), approximate="tanh"),
    S(T(), approximate="tanh"),
    ints=(),
    tol=2,
    special_skip=(INF, -INF),
    errors=[E(RuntimeError, "approximate|none|tanh", T(3), approximate="erf")],
)
unary(
    "softplus",
    softplus,
    -3.0,
    3.0,
    S(T(4, lo=-3, hi=3), beta=2.0),
    S(A([-30.0, 19.0, 21.0, 500.0])).but(grad=False),
    S(T(4), 1.0, 0.5),
    ints=(),
)
unary(
    "leaky_relu",
    lambda x, negative_slope=0.01: np.where(x > 0, x, x * negative_slope),
    -2.0,
    2.0,
    S(T(3, 4), 0.2),
    S(T(5), negative_slope=0.5),
    ints=(),
    out="same",
)
unary(
    "elu",
    lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    -2.0,
    2.0,
    S(T(3, 4), 1.7),
    S(T(5), alpha=0.5),
    ints=(),
    out="same",
)
unary(
    "nan_to_num",
    lambda x, nan=0.0, posinf=None, neginf=None: np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf),
    -2.0,
    2.0,
    S(A([NAN, INF, -INF, 1.5]), 7.0, 8.0, -9.0).but(grad=False),
    S(A([NAN, INF, -INF]), nan=1.0, posinf=2.0, neginf=3.0).but(grad=False),
    special=0,
    out="same",
    ints=INTS,
)


# --- two arguments, broadcast ---------------------------------------------------------------------------------------
def pairs(lo: float = -2.0, hi: float = 2.0, scalars: tuple[Any, ...] = (1.5, 2), grad: bool = True) -> list[Sample]:
    """Equal shapes, every broadcast, 0-d, zero-size and Python scalars."""
    a = {"lo": lo, "hi": hi}
    shapes = [
        ((3, 4), (3, 4)),
        ((3, 4), (4,)),
        ((3, 1), (1, 4)),
        ((), (3, 2)),
        ((2, 3, 1), ()),
        ((), ()),
        ((0, 3), (3,)),
        ((1, 3), (0, 1)),
        ((2, 1, 2, 1), (3, 1, 5)),
    ]
    out = [S(T(*x, **a), T(*y, **a)) for x, y in shapes]
    out += [S(T(3, 4, **a), value).but(ints=isinstance(value, int)) for value in scalars]
    return out if grad else [sample.but(grad=False) for sample in out]


SHAPE_ERROR = E(RuntimeError, r"size|shape|broadcast", T(3, 4), T(3, 5))


def binary(
    name: str,
    ref: Callable[..., Any],
    *extra: Sample,
    lo: float = -2.0,
    hi: float = 2.0,
    out: str = "same",
    scalars: tuple[Any, ...] = (1.5, 2),
    **kw: Any,
) -> None:
    """An entry for f(input, other) with broadcasting."""
    kw.setdefault("special", 2)
    kw.setdefault("ints", INTS)
    kw["errors"] = [SHAPE_ERROR, *kw.get("errors", [])]
    big = [S(T(*BIG, lo=lo, hi=hi), T(*BIG, lo=lo, hi=hi)), S(T(*BIG, lo=lo, hi=hi), T(BIG[1], lo=lo, hi=hi))]
    op(name, ref, *pairs(lo, hi, scalars), *extra, out=out, big=big, **kw)


def floor_mod(a: Any, b: Any) -> Any:
    """Remainder with the sign of the divisor; inf divisors as C's fmod plus a correction."""
    return np.mod(a, b)


def rounding_div(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    integral = np.asarray(a).dtype.kind in "iub" and np.asarray(b).dtype.kind in "iub"
    if rounding_mode is None:
        return np.true_divide(a, b)
    if integral:
        if rounding_mode == "floor":
            return np.floor_divide(a, b)
        return np.trunc(np.true_divide(a, b)).astype(np.result_type(a, b))
    return np.floor(np.true_divide(a, b)) if rounding_mode == "floor" else np.trunc(np.true_divide(a, b))


ALPHA = (S(T(3, 4), T(4), alpha=2), S(T(3), 1.0, alpha=0.5).but(ints=False), S(T(2), T(2), alpha=-1.5).but(ints=False))
binary("add", lambda a, b, alpha=1: a + alpha * b, *ALPHA, ints=INTS)
binary("sub", lambda a, b, alpha=1: a - alpha * b, *ALPHA, ints=INTS, errors=[E(RuntimeError, "bool", B(3), B(3))])
binary("mul", lambda a, b: a * b, ints=INTS_BOOL)
NONZERO = {"lo": 0.4, "hi": 3.0}
binary(
    "div",
    rounding_div,
    S(T(3, 4, lo=-9, hi=9), T(4, **NONZERO), rounding_mode="floor").but(ints=False),
    S(T(3, 4, lo=-9, hi=9), T(4, **NONZERO), rounding_mode="trunc").but(ints=False),
    S(T(0), T(0)),
    lo=0.4,
    hi=3.0,
    out="float",
    special=2,
    ints=SIGNED,
    errors=[E(RuntimeError, "rounding", T(3), T(3), rounding_mode="up")],
)
binary(
    "floor_divide",
    lambda a, b: np.floor_divide(a, b),
    lo=0.4,
    hi=9.0,
    special=0,
    int_range=(1, 9),
    low=(),
    errors=[E(RuntimeError, "zero", A([4, 5]), A([1, 0]))],
)
binary(
    "remainder",
    floor_mod,
    S(T(3, lo=-9, hi=-1), T(3, lo=1, hi=3)),
    S(T(4, lo=-9, hi=9), -2.5).but(ints=False),
    S(A([7, -7, 7, -7]), A([3, 3, -3, -3])),
    lo=0.4,
    hi=9.0,
    int_range=(1, 9),
    special=0,
    low=(),
    errors=[E(RuntimeError, "zero", A([4, 5]), A([1, 0]))],
)
binary(
    "fmod",
    np.fmod,
    S(T(3, lo=-9, hi=-1), T(3, lo=1, hi=3)),
    S(A([7, -7, 7, -7]), A([3, 3, -3, -3])),
    lo=0.4,
    hi=9.0,
    int_range=(1, 9),
    special=0,
    low=(),
    errors=[E(RuntimeError, "zero", A([4, 5]), A([1, 0]))],
)
binary(
    "pow",
    lambda a, b: np.power(a, b),
    S(T(3, 4, lo=-2, hi=2), 2),
    S(T(3, lo=-2, hi=2), 3),
    S(T(3, lo=0.3, hi=2), 0.5).but(ints=False),
    S(T(3, lo=0.3, hi=2), -1.0).but(ints=False),
    S(T(3), 0),
    S(2.0, T(3)).but(ints=False),
    S(A([0.0, 2.0]), A([2.0, 0.0])).but(grad=False),
    lo=0.3,
    hi=2.5,
    int_range=(0, 4),
    ints=("int64", "int32"),
    errors=[E(RuntimeError, "negative", A([2, 3]), -1)],
)
binary("atan2", np.arctan2, lo=0.3, hi=2.0, scalars=(), out="float")
binary("minimum", np.minimum, scalars=(), ints=INTS_BOOL)
binary("maximum", np.maximum, scalars=(), ints=INTS_BOOL)
binary("fmin", np.fmin, scalars=())
binary("fmax", np.fmax, scalars=())
binary(
    "logaddexp",
    np.logaddexp,
    S(A([1000.0, -1000.0]), A([1000.5, -1001.0])).but(low=False, grad=False),
    scalars=(),
    ints=(),
)
binary("hypot", np.hypot, lo=0.4, hi=3.0, scalars=(), ints=())


# --- three arguments ------------------------------------------------------------------------------------------------
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    if min is not None:
        x = np.maximum(x, min)
    return x if max is None else np.minimum(x, max)


op(
    "clamp",
    clamp,
    S(T(3, 4), -1.0, 1.0).but(ints=False),
    S(T(3, 4), min=-0.5).but(ints=False),
    S(T(), max=0.5).but(ints=False),
    S(T(0, 3), 0, 1),
    S(T(5), 1, 2),
    S(T(3, 4), T(4, lo=-2, hi=-1), T(4, lo=1, hi=2)).but(ints=False),
    S(T(3, 4), min=T(3, 1)),
    S(T(4), max=T(4)),
    S(T(3), 1.0, -1.0).but(ints=False),
    S(A([NAN, INF, -INF]), -1.0, 1.0).but(grad=False),
    ints=INTS,
    big=[S(T(*BIG), -1.0, 1.0)],
    errors=[E((RuntimeError, ValueError), "min|max", T(3))],
)
op(
    "lerp",
    lambda a, b, w: a + w * (b - a),
    S(T(3, 4), T(4), 0.3),
    S(T(3, 4), T(3, 4), T(4)),
    S(T(), T(), 0.7),
    S(T(0, 3), T(3), 0.5),
    big=[S(T(*BIG), T(*BIG), 0.3)],
    errors=[E(RuntimeError, "size|shape", T(3), T(4), 0.5)],
)
op(
    "addcmul",
    lambda x, a, b, value=1: x + value * a * b,
    S(T(3, 4), T(4), T(3, 1)),
    S(T(3), T(3), T(3), value=0.5),
    S(T(), T(), T()),
    S(T(0, 2), T(2), T(1, 2)),
    big=[S(T(*BIG), T(*BIG), T(*BIG))],
    errors=[E(RuntimeError, "size|shape", T(3), T(4), T(3))],
)
op(
    "addcdiv",
    lambda x, a, b, value=1: x + value * a / b,
    S(T(3, 4), T(4), T(3, 1, lo=0.5)),
    S(T(3), T(3), T(3, lo=0.5, hi=2), value=-0.5),
    S(T(), T(), T(lo=0.5, hi=2)),
    S(T(0, 2), T(2), T(1, 2)),
    big=[S(T(*BIG), T(*BIG), T(*BIG, lo=0.5))],
    tol=4,
    errors=[E(RuntimeError, "size|shape", T(3), T(4), T(3))],
)
op(
    "where",
    np.where,
    S(B(3, 4), T(3, 4), T(3, 4)),
    S(B(4), T(3, 1), T(4)),
    S(B(), T(), T()),
    S(B(0, 3), T(3), T(0, 3)),
    S(B(3, 4), T(3, 4), 0.5).but(ints=False),
    S(B(3, 4), 1.5, T(4)).but(ints=False),
    S(A([True, False]), A([NAN, 1.0]), A([2.0, NAN])).but(grad=False),
    ints=INTS_BOOL,
    big=[S(B(*BIG), T(*BIG), T(*BIG))],
    errors=[E(RuntimeError, "bool|condition", T(3), T(3), T(3)), E(RuntimeError, "size|shape", B(3), T(4), T(3))],
)
op(
    "masked_fill",
    lambda x, m, v: np.where(m, v, x) if np.asarray(x).dtype.kind == "f" else np.where(m, v, x).astype(x.dtype),
    S(T(3, 4), B(3, 4), 1.5).but(ints=False),
    S(T(3, 4), B(4), T()).but(ints=False),
    S(T(), B(), 2.0).but(ints=False),
    S(T(0, 3), B(3), 1.0),
    S(T(2, 3), B(2, 1), -math.inf).but(ints=False, grad=False),
    S(T(3), B(3), 2),
    ints=INTS,
    big=[S(T(*BIG), B(BIG[1]), 0.5)],
    errors=[E(RuntimeError, "bool", T(3), T(3), 1.0), E(RuntimeError, "size|shape|expand", T(3), B(4), 1.0)],
)

unary("isposinf", np.isposinf, out="bool", grad=False, ints=INTS_BOOL)
unary("isneginf", np.isneginf, out="bool", grad=False, ints=INTS_BOOL)
unary("signbit", lambda x: np.signbit(x) if x.dtype.kind == "f" else x < 0, out="bool", grad=False, ints=INTS)
unary("logsigmoid", lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), -3.0, 3.0, ints=())
binary("copysign", np.copysign, scalars=(), ints=(), out="float")
