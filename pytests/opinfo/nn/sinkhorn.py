"""Doubly stochastic matrices, as hyper-connections mix their streams."""

from __future__ import annotations

import numpy as np

from ..core import E, S, T, op


def steps(x: np.ndarray, rounds: int, eps: float) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray, int]]]:
    """The softmax, and of each step its result, what was divided by, and along which dim was summed."""
    p = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    p = p / p.sum(axis=-1, keepdims=True)
    w, done = p + eps, []
    for axis in [-2, *[-1, -2] * (rounds - 1)]:
        total = w.sum(axis=axis, keepdims=True) + eps
        w = w / total
        done.append((w, total, axis))
    return p, done


def sinkhorn(x: np.ndarray, rounds: int, eps: float) -> np.ndarray:
    return steps(x, rounds, eps)[1][-1][0]


def sinkhorn_backward(g: np.ndarray, x: np.ndarray, rounds: int, eps: float) -> np.ndarray:
    p, done = steps(x, rounds, eps)
    for w, total, axis in reversed(done):
        g = (g - (g * w).sum(axis=axis, keepdims=True)) / total
    return p * (g - (g * p).sum(axis=-1, keepdims=True))


CLOSE = {"tol": 4, "scalar": False, "floats": ("float32", "float64"), "low": ()}
ERRORS = (
    (RuntimeError, "n, n", T(2, 3, 4), 2, 1e-6),
    (RuntimeError, "n, n", T(3), 2, 1e-6),
    (RuntimeError, "rounds", T(3, 3), 0, 1e-6),
    (RuntimeError, "eps", T(3, 3), 2, -1.0),
    (NotImplementedError, "float32", T(3, 3, dtype="float16"), 2, 1e-6),
)
op(
    "_sinkhorn",
    sinkhorn,
    S(T(4, 4), 20, 1e-6),
    S(T(2, 5, 4, 4), 20, 1e-6),
    S(T(3, 3, 3), 1, 0.01),
    S(T(2, 1, 1), 3, 0.0),
    S(T(9, 7, 7), 4, 1e-6),
    S(T(0, 4, 4), 20, 1e-6),
    S(T(2, 0, 0), 20, 1e-6),
    big=[S(T(501, 4, 4), 20, 1e-6)],
    rows=[S(T(21, 4, 4), 20, 1e-6)],
    errors=[E(*e) for e in ERRORS],
    **CLOSE,
)
op(
    "_sinkhorn_backward",
    sinkhorn_backward,
    S(T(4, 4), T(4, 4), 5, 1e-6),
    S(T(2, 5, 3, 3), T(2, 5, 3, 3), 3, 0.01),
    S(T(3, 3, 3), T(3, 3, 3), 1, 0.01),
    S(T(0, 4, 4), T(0, 4, 4), 20, 1e-6),
    big=[S(T(501, 4, 4), T(501, 4, 4), 20, 1e-6)],
    rows=[S(T(21, 4, 4), T(21, 4, 4), 20, 1e-6)],
    errors=[E(RuntimeError, "differs", T(3, 3), T(2, 3, 3), 2, 1e-6)],
    **CLOSE,
)
