"""Mixture of experts: rows one by one in NumPy, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from .core import A, E, I, S, T, op
from .nn.fused import SHAPE, G, X, lit
from .nn.nn import silu


def moe(
    x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray, ids: np.ndarray, weights: np.ndarray,
    limit: float | None = None, wide: bool = False,
) -> np.ndarray:  # fmt: skip
    """One token and one of its experts at a time."""
    most = np.inf if limit is None else limit
    out = np.zeros_like(x)
    for t, k in np.ndindex(ids.shape):
        e = ids[t, k]
        if e >= 0:
            inner = silu(np.minimum(gate[e] @ x[t], most)) * np.clip(up[e] @ x[t], -most, most)
            out[t] += weights[t, k] * (down[e] @ inner)
    return out


def with_args(sample: Any, *more: Any) -> Any:
    return S(*sample.args, *more)


EXPERTS = (T(3, 2, 4), T(3, 2, 4), T(3, 4, 2))
MOE_BIG = S(T(130, 40), T(5, 60, 40), T(5, 60, 40), T(5, 40, 60), I(130, 2, hi=5), T(130, 2))
MOE_ROWS = S(T(37, 40), T(5, 60, 40), T(5, 60, 40), T(5, 40, 60), I(37, 2, hi=5), T(37, 2))
MOE_ERRORS = [
    E(IndexError, "range", T(2, 4), *EXPERTS, A([[3], [0]]), T(2, 1)),
    E(IndexError, "range", T(2, 4), *EXPERTS, A([[-2], [0]]), T(2, 1)),
    E(ValueError, "swiglu_limit must be positive or None, got 0", T(2, 4), *EXPERTS, A([[1], [0]]), T(2, 1), 0.0),
    E(RuntimeError, SHAPE, T(2, 5), *EXPERTS, A([[1], [0]]), T(2, 1)),
    E(RuntimeError, SHAPE, T(2, 4), *EXPERTS, A([[1, 0], [0, 1]]), T(2, 1)),
    E(RuntimeError, "one dtype", T(2, 4, dtype="float64"), *[T(*e.shape, dtype="float32") for e in EXPERTS],
      A([[1], [0]]), T(2, 1)),
    E(NotImplementedError, "int64", I(2, 4), *EXPERTS, A([[1], [0]]), T(2, 1)),
    E(RuntimeError, "floating", T(2, 4), *EXPERTS, A([[1], [0]]), I(2, 1)),
]  # fmt: skip
op(
    "moe",
    moe,
    S(T(3, 4), *EXPERTS, A([[0, 2], [2, 1], [0, 1]]), T(3, 2)),
    S(T(2, 4), *EXPERTS, A([[1], [1]]), T(2, 1)),  # experts without a token
    S(T(2, 4), *EXPERTS, A([[1, 1], [0, 0]]), T(2, 2)),  # the same expert twice
    S(T(3, 4), *EXPERTS, A([[-1, 2], [-1, -1], [0, -1]]), T(3, 2)),  # slots without an expert
    S(T(2, 4), *EXPERTS, A([[-1], [-1]]), T(2, 1)),
    S(T(3, 4), *EXPERTS, A([[0, 2], [2, -1], [0, 1]]), T(3, 2), 0.4),
    S(T(0, 4), *EXPERTS, I(0, 2, hi=1), T(0, 2)),
    scalar=False,
    tol=8,
    low_tol=4,
    big=[MOE_BIG, with_args(MOE_BIG, 0.4)],
    errors=MOE_ERRORS,
    rows=[MOE_ROWS],
)


def sorted_rows(x: np.ndarray, weight: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The pairs' projections, sorted by expert; zeros at the end for slots without one."""
    pairs = np.argsort(np.where(ids < 0, len(weight), ids), axis=None, kind="stable")
    rows = [(weight[ids.flat[p]] if ids.flat[p] >= 0 else 0 * weight[0]) @ x[p // ids.shape[1]] for p in pairs]
    return np.array(rows).reshape(-1, weight.shape[1])


def moe_saving(x: np.ndarray, gate: np.ndarray, up: np.ndarray, *others: Any) -> tuple[np.ndarray, ...]:
    down, ids, weights, save, limit, _ = others
    none = np.zeros((0, gate.shape[1]))
    rows = [sorted_rows(x, w, ids) if save else none for w in (gate, up)]
    return moe(x, gate, up, down, ids, weights, limit), *rows


op(
    "_moe",
    moe_saving,
    S(T(3, 4), *EXPERTS, A([[0, 2], [2, 1], [0, 1]]), T(3, 2), True, None, False),
    S(T(2, 4), *EXPERTS, A([[1], [1]]), T(2, 1), True, None, False),
    S(T(2, 4), *EXPERTS, A([[1, 1], [0, 0]]), T(2, 2), False, None, False),
    S(T(3, 4), *EXPERTS, A([[0, -1], [2, -1], [0, 1]]), T(3, 2), True, 0.4, False),
    S(T(0, 4), *EXPERTS, I(0, 2, hi=1), T(0, 2), True, None, False),
    scalar=False,
    tol=8,
    low_tol=4,
    big=[with_args(MOE_BIG, True, 0.4, False)],
    rows=[with_args(MOE_ROWS, False, None, False)],
)


def moe_backward(
    g: np.ndarray, x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray, ids: np.ndarray,
    weights: np.ndarray, _gate_rows: np.ndarray, _up_rows: np.ndarray, needs: int, limit: float | None,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """One token and one of its experts at a time; the rows are functions of the others."""
    dx, d_gate, d_up, d_down, dw = (np.zeros_like(t) for t in (x, gate, up, down, weights))
    most = np.inf if limit is None else limit
    for t, k in np.ndindex(ids.shape):
        e, w = ids[t, k], weights[t, k]
        if e < 0:
            continue
        a, b, r = gate[e] @ x[t], up[e] @ x[t], down[e].T @ g[t]
        free_a, free_b = a <= most, np.abs(b) <= most
        a, b = np.minimum(a, most), np.clip(b, -most, most)
        s = 1 / (1 + np.exp(-a))
        dw[t, k] = r @ (a * s * b)
        da, db = free_a * w * r * b * s * (1 + a * (1 - s)), free_b * w * r * a * s
        dx[t] += gate[e].T @ da + up[e].T @ db
        d_gate[e] += np.outer(da, x[t])
        d_up[e] += np.outer(db, x[t])
        d_down[e] += np.outer(w * g[t], a * s * b)
    bits = ((dx, 1), (d_gate, 2), (d_up, 2), (d_down, 4), (dw, 8))
    return tuple(grad if needs & bit else np.zeros(0) for grad, bit in bits)


EXPERT_VALUES = [np.sin(np.arange(24) * step).reshape(shape) for step, shape in ((1, (3, 2, 4)), (2, (3, 2, 4)))]
IDS = np.array([[0, 2], [2, 1], [0, 1]])
SOME_IDS = np.array([[0, -1], [2, 1], [-1, -1]])
ROWS_OF_X, ROWS_OF_SOME = ([lit(sorted_rows(X, w, ids)) for w in EXPERT_VALUES] for ids in (IDS, SOME_IDS))
op(
    "_moe_backward",
    moe_backward,
    *[
        S(G, A(X), *[A(w) for w in EXPERT_VALUES], T(3, 4, 2), A(ids), T(3, 2), *rows, needs, limit).but(grad=False)
        for ids, rows, needs, limit in (
            *((IDS, ROWS_OF_X, needs, None) for needs in (15, 1, 2, 4, 8)),
            (IDS, ROWS_OF_X, 15, 0.4),
            (SOME_IDS, ROWS_OF_SOME, 15, 0.4),
        )
    ],
    S(T(0, 4), T(0, 4), *EXPERTS, I(0, 2, hi=1), T(0, 2), T(0, 2, grad=False), T(0, 2, grad=False), 15, None),
    scalar=False,
    tol=8,
    low_tol=4,
    no_rows="beside the input's gradient are those of the weights, sums over all rows; `moe` has the rows",
)
