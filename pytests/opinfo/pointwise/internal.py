"""Ops whose names begin with _: fused derivatives and the kernels behind public composites."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import INTS, A, E, I, S, T, op
from .pointwise import BIG, binary, erf, gelu, pairs, sigmoid, softplus, unary


def silu_slope(x: np.ndarray) -> np.ndarray:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


def gelu_erf_slope(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    t = np.tanh(inner)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def derivative(name: str, slope: Callable[[np.ndarray], np.ndarray]) -> None:
    """grad * slope(value): gradients of gradients are checked through it."""
    binary(name, lambda g, x: g * slope(x), scalars=(), ints=(), special=0, tol=4, low_tol=2)


derivative("_tanh_backward", lambda y: 1 - y * y)
derivative("_sigmoid_backward", lambda y: y * (1 - y))
derivative("_silu_backward", silu_slope)
derivative("_gelu_erf_backward", gelu_erf_slope)
derivative("_gelu_tanh_backward", gelu_tanh_slope)
unary("_gelu_erf", gelu, -3.0, 3.0, ints=(), special=0, tol=4)
unary("_gelu_tanh", lambda x: gelu(x, "tanh"), -3.0, 3.0, ints=(), special=0, tol=4)
op(
    "_swiglu_backward",
    lambda g, gate, up: g * up * silu_slope(gate),
    S(T(3, 4), T(3, 4), T(3, 4)),
    S(T(), T(), T()),
    S(T(0, 3), T(0, 3), T(0, 3)),
    tol=4,
    low_tol=2,
    big=[S(T(*BIG), T(*BIG), T(*BIG))],
)
op(
    "_div_trunc",
    lambda a, b: np.trunc(np.true_divide(a, b)),
    *pairs(0.4, 9.0, scalars=(), grad=False),
    ints=("int64", "int32"),
    int_range=(1, 9),
    low=(),
)
binary("_clamp_min", np.maximum, scalars=(), ints=INTS)
binary("_clamp_max", np.minimum, scalars=(), ints=INTS)


def ternary(name: str, ref: Callable[..., Any], **kw: Any) -> None:
    op(
        name,
        ref,
        S(T(3, 4), T(3, 4), T(3, 4)),
        S(T(3, 4), T(4), T(3, 1)),
        S(T(), T(), T()),
        S(T(0, 3), T(3), T(1, 3)),
        big=[S(T(*BIG), T(*BIG), T(BIG[1]))],
        errors=[E(RuntimeError, "size|shape|broadcast", T(3), T(4), T(3))],
        **kw,
    )


ternary("_clamp", lambda x, low, high: np.minimum(np.maximum(x, low), high), ints=INTS)
ternary("_add_scaled", lambda a, b, alpha: a + b * alpha, ints=INTS)
ternary("_addcmul", lambda a, b, c: a + b * c, ints=INTS)

# Parameters of activations are 0-d inputs without a gradient.
P = T(lo=0.2, hi=0.9, grad=False)
SIZES = [(3, 4), (), (0, 3), (2, 17)]
op("_leaky_relu", lambda x, slope: np.where(x > 0, x, x * slope), *[S(T(*s), P) for s in SIZES], big=[S(T(*BIG), P)])
op("_elu", lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), *[S(T(*s), P) for s in SIZES], tol=2)
op("_softplus", softplus, *[S(T(*s), P, T(lo=19, hi=21, grad=False)) for s in SIZES], tol=2)

# Ops that look at values to refuse them, so that a captured function refuses them on every replay too.
op(
    "_normal_std",
    lambda std: std,
    *[S(T(*s, lo=0.0)) for s in SIZES],
    S(A([0.0, 1.5])),
    grad=False,
    big=[S(T(*BIG, lo=0.0))],
    errors=[E(RuntimeError, "std >= 0", A([1.0, -0.5]))],
)
op(
    "_one_hot",
    lambda classes, n: np.eye(n, dtype=np.int64)[classes],
    *[S(I(*s, hi=5), 5) for s in SIZES],
    S(I(3, 4, hi=2), 7),
    out="int64",
    grad=False,
    floats=("float32",),
    low=(),
    big=[S(I(300, 40, hi=5), 5)],
    errors=[
        E(RuntimeError, "non-negative", A([0, -1]), 3),
        E(RuntimeError, "smaller than num_classes", A([0, 3]), 3),
        E(RuntimeError, "smaller than num_classes", A([0]), -1),
        E(RuntimeError, "LongTensor", T(3), 3),
    ],
)
