"""Attention to selected keys."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .core import A, E, I, S, T, op
from .nn import attention_and_lse

SHAPE = r"shapes do not match"


def block_mask(indices: np.ndarray, q: np.ndarray, k: np.ndarray, block_size: int, group: int) -> np.ndarray:
    """bool (batch, heads, L, S)."""
    mask = np.zeros((*q.shape[:3], k.shape[2]), bool)
    for b, h, i in np.ndindex(q.shape[:3]):
        for block in indices[b, h // (q.shape[1] // k.shape[1]), i // group]:
            if block >= 0:
                mask[b, h, i, block * block_size : (block + 1) * block_size] = True
    return mask


def block_sparse(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, indices: np.ndarray, block_size: int, group: int, causal: bool,
    scale: float, window: int, start: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    mask = block_mask(indices, q, k, block_size, group)
    return attention_and_lse(q, k, v, mask, causal, scale, True, window, 0.0, None, start)


def block_sparse_attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, indices: np.ndarray, *, block_size: int = 64, group: int = 1,
    is_causal: bool = False, scale: Any = None, window: int = 0, query_start: int = 0,
) -> np.ndarray:  # fmt: skip
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return block_sparse(q, k, v, indices, block_size, group, is_causal, scale, window, query_start)[0]


def block_sparse_backward(
    g: np.ndarray, by_lse: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, indices: np.ndarray, _out: Any, _lse: Any,
    block_size: int, group: int, causal: bool, scale: float, window: int, start: int,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    rule = (indices, block_size, group, causal, scale, window, start)
    out, _ = block_sparse(q, k, v, *rule)
    eye = np.broadcast_to(np.eye(k.shape[2]), (*k.shape[:3], k.shape[2]))
    weights, _ = block_sparse(q, k, eye, *rule)
    delta = (g * out).sum(-1) - (0 if by_lse is None else by_lse)
    dq, dk, dv, heads = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), q.shape[1] // k.shape[1]
    for b, h in np.ndindex(q.shape[:2]):
        at = (b, h // heads)
        by_scores = weights[b, h] * (g[b, h] @ v[at].T - delta[b, h][:, None]) * scale
        dq[b, h] = by_scores @ k[at]
        dk[at] += by_scores.T @ q[b, h]
        dv[at] += weights[b, h].T @ g[b, h]
    return dq, dk, dv


QKV = (T(1, 4, 3, 4), T(1, 2, 37, 4), T(1, 2, 37, 6))
CHOSEN = A([[[[0, 2], [1, -1], [2, 2]], [[-1, -1], [0, 1], [1, 0]]]])  # query 0 of the second key head sees nothing
PAIRS = A([[[[0, 2], [1, -1]], [[2, 1], [0, -1]]]])  # two queries choose together
RULE = (16, 1, False, 0.5, 0, 0)  # block_size, group, is_causal, scale, window, query_start
op(
    "block_sparse_attention",
    block_sparse_attention,
    S(*QKV, CHOSEN, block_size=16),
    S(*QKV, PAIRS, block_size=16, group=2, is_causal=True, query_start=33),
    S(*QKV, PAIRS, block_size=16, group=2, window=4, scale=0.3),
    S(T(1, 2, 3, 4), T(1, 1, 3, 4), T(1, 1, 3, 4), A([[[[0]]]]), group=3, is_causal=True),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 5, 4), I(0, 2, 3, 1)),
    tol=4,
    low_tol=2,
    scalar=False,
    errors=[
        E(RuntimeError, SHAPE, T(1, 2, 3, 4), T(1, 2, 5, 3), T(1, 2, 5, 4), I(1, 2, 3, 1, hi=1)),
        E(RuntimeError, "divide", T(1, 3, 3, 4), T(1, 2, 5, 4), T(1, 2, 5, 4), I(1, 2, 3, 1, hi=1)),
        E(RuntimeError, "multiple of 16", *QKV, CHOSEN, block_size=24),
        E(RuntimeError, "group must be positive", *QKV, CHOSEN, group=0),
        E(RuntimeError, "window must be positive", *QKV, CHOSEN, window=0),
        E(RuntimeError, "block_indices must be int64", *QKV, CHOSEN, block_size=16, group=2),
        E(RuntimeError, "block_indices must be int64", *QKV, T(1, 2, 3, 1)),
        E(IndexError, "block index 2 is out of range", *QKV, CHOSEN, block_size=32),
        E(IndexError, "block index -2 is out of range", *QKV, A([[[[-2]] * 3] * 2])),
        E(RuntimeError, "4 dims", T(3, 4), T(3, 4), T(3, 4), I(1, 1, 3, 1, hi=1)),
        E(NotImplementedError, "int64", I(1, 2, 3, 4), I(1, 2, 5, 4), I(1, 2, 5, 4), I(1, 2, 3, 1, hi=1)),
    ],
    big=[
        S(T(1, 4, 140, 32), T(1, 2, 140, 32), T(1, 2, 140, 24), I(1, 2, 140, 2, lo=-1, hi=3), is_causal=True),
        S(T(1, 4, 70, 32), T(1, 2, 700, 32), T(1, 2, 700, 24), I(1, 2, 14, 5, lo=-1, hi=43), block_size=16, group=5),
    ],
    rows=[
        S(T(9, 2, 70, 32), T(9, 2, 140, 32), T(9, 2, 140, 24), I(9, 2, 24, 2, lo=-1, hi=3), group=3, is_causal=True),
    ],
)
op(
    "_block_sparse_attention",
    block_sparse,
    S(*QKV, CHOSEN, *RULE),
    S(*QKV, PAIRS, 16, 2, True, 0.5, 9, 33),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 5, 4), I(0, 2, 3, 1), *RULE),
    S(T(1, 2, 3, 4), T(1, 2, 0, 4), T(1, 2, 0, 4), I(1, 2, 3, 0), *RULE).but(grad=False),
    tol=4,
    low_tol=2,
    scalar=False,
    errors=[
        E(RuntimeError, SHAPE, T(1, 2, 3, 4), T(1, 2, 5, 3), T(1, 2, 5, 4), I(1, 2, 3, 1, hi=1), *RULE),
        E(RuntimeError, "negative", *QKV, CHOSEN, 16, 1, False, 0.5, -1, 0),
    ],
    rows=[S(T(9, 2, 70, 32), T(9, 2, 140, 32), T(9, 2, 140, 24), I(9, 2, 70, 2, lo=-1, hi=9), *RULE)],
)


def backward_sample(indices: Any, lse: Any, rule: tuple[Any, ...]) -> Any:
    """What forward gives goes in as literals."""
    rng = np.random.default_rng(3)
    q, k, v = (np.round(rng.uniform(-2, 2, spec.shape), 2) for spec in QKV)
    out = block_sparse(q, k, v, np.array(indices.value), *rule)
    given = [A(q), A(k), A(v), indices, *[A(x, grad=False) for x in out]]
    return S(T(1, 4, 3, 6), lse, *given, *rule).but(grad=False, low=False)


op(
    "_block_sparse_attention_backward",
    block_sparse_backward,
    backward_sample(CHOSEN, None, RULE),
    backward_sample(PAIRS, T(1, 4, 3), (16, 2, True, 0.5, 9, 33)),
    S(*[T(0, 2, 3, 4), None], *[T(0, 2, 3, 4)] * 3, I(0, 2, 3, 1), T(0, 2, 3, 4), T(0, 2, 3), *RULE),
    tol=8,
    low_tol=2,
    scalar=False,
    rows=[S(T(9, 2, 70, 24), None, T(9, 2, 70, 32), T(9, 2, 140, 32), T(9, 2, 140, 24), I(9, 2, 70, 2, lo=-1, hi=9),
            T(9, 2, 70, 24), T(9, 2, 70, lo=3, hi=4), *RULE)],
)  # fmt: skip
