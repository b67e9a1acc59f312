"""Row ops: softmax, log_softmax, layer_norm, rms_norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import DT, A, E, S, T, op

NAN, INF = math.nan, math.inf
BAD_DIM = E(IndexError, "dim|range", T(3, 4), 2)
BIG = [S(T(300, 401), 1), S(T(300, 401), 0), S(T(20, 67, 90), 1)]
ROWS = [S(T(37, 129), 1)]


def softmax(x: np.ndarray, dim: int, *, dtype: Any = None) -> np.ndarray:
    if x.ndim == 0:
        return np.ones(()) + 0 * x
    if x.shape[dim] == 0:
        return x
    e = np.exp(x - np.max(x, axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def log_softmax(x: np.ndarray, dim: int, *, dtype: Any = None) -> np.ndarray:
    if x.ndim == 0:
        return 0 * x
    if x.shape[dim] == 0:
        return x
    y = x - np.max(x, axis=dim, keepdims=True)
    return y - np.log(np.exp(y).sum(axis=dim, keepdims=True))


for _name, _ref in {"softmax": softmax, "log_softmax": log_softmax}.items():
    op(
        _name,
        _ref,
        S(T(3, 4), 1),
        S(T(3, 4), 0),
        S(T(3, 4), -1),
        S(T(2, 3, 5), 1),
        S(T(2, 3, 17), -1),
        S(T(), 0),
        S(T(0, 3), 1),
        S(T(3, 0), 1),
        S(T(3, 4), 1, dtype=DT("float64")),
        S(A([[1000.0, 999.0], [-1000.0, 1000.0]]), 1).but(grad=False),
        S(A([[NAN, 1.0], [-INF, 1.0], [-INF, -INF], [INF, 1.0]]), 1).but(grad=False),
        tol=2,
        big=BIG,
        rows=ROWS,
        errors=[BAD_DIM],
    )


def layer_norm(
    x: np.ndarray, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> np.ndarray:
    axis = tuple(range(-len(normalized_shape), 0))
    y = (x - x.mean(axis=axis, keepdims=True)) / np.sqrt(x.var(axis=axis, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(
    x: np.ndarray, normalized_shape: Any, weight: Any = None, eps: Any = None, machine: float = 0.0
) -> np.ndarray:
    axis = tuple(range(-len(normalized_shape), 0))
    y = x / np.sqrt((x * x).mean(axis=axis, keepdims=True) + (machine if eps is None else eps))
    return y if weight is None else y * weight


op(
    "layer_norm",
    layer_norm,
    S(T(3, 4), [4]),
    S(T(3, 4), [4], T(4), T(4)),
    S(T(2, 3, 5), [3, 5], T(3, 5), T(3, 5), 1e-3),
    S(T(4), [4], T(4)),
    S(T(0, 4), [4], T(4), T(4)),
    S(T(2, 17), [17], T(17), T(17), eps=1e-6),
    S(A([[1.0, NAN, 2.0], [INF, 1.0, 2.0]]), [3]).but(grad=False),
    S(A([[3.0, 3.0, 3.0]]), [3]).but(grad=False),
    tol=4,
    low_tol=2,
    scalar=False,
    big=[S(T(300, 401), [401], T(401), T(401))],
    rows=[S(T(37, 129), [129], T(129), T(129))],
    errors=[
        E(RuntimeError, "shape|size", T(3, 4), [5]),
        E(RuntimeError, "shape|size", T(3, 4), [4], T(5)),
        E(RuntimeError, "shape|normalized|at least", T(3, 4), []),
    ],
)
op(
    "rms_norm",
    rms_norm,
    S(T(3, 4), [4], eps=1e-6),
    S(T(3, 4), [4], T(4), 1e-5),
    S(T(2, 3, 5), [3, 5], T(3, 5), 1e-3),
    S(T(4), [4], T(4), 1e-6),
    S(T(0, 4), [4], T(4), 1e-6),
    S(T(2, 17), [17], T(17), eps=1e-6),
    S(T(3, 4), [4], T(4)),
    S(A([[1.0, NAN, 2.0], [1e10, 1.0, 2.0]]), [3], eps=1e-6).but(grad=False, low=False),
    tol=4,
    low_tol=2,
    scalar=False,
    big=[S(T(300, 401), [401], T(401), 1e-6)],
    rows=[S(T(37, 129), [129], T(129), 1e-6)],
    errors=[E(RuntimeError, "shape|size", T(3, 4), [5]), E(RuntimeError, "shape|size", T(3, 4), [4], T(5))],
)
