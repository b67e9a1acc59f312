"""Attention to selected keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import A, E, I, S, T, op, to_numpy
from .attention import attention_and_lse

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


def gradients(
    g: np.ndarray, by_lse: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, attend: Callable[..., Any], scale: float
) -> tuple[np.ndarray, ...]:
    """From the weights; attend(value) gives the result and the logarithms."""
    out, _ = attend(v)
    weights, _ = attend(np.broadcast_to(np.eye(k.shape[2]), (*k.shape[:3], k.shape[2])))
    delta = (g * out).sum(-1) - (0 if by_lse is None else by_lse)
    dq, dk, dv, heads = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), q.shape[1] // k.shape[1]
    for b, h in np.ndindex(q.shape[:2]):
        at = (b, h // heads)
        by_scores = weights[b, h] * (g[b, h] @ v[at].T - delta[b, h][:, None]) * scale
        dq[b, h] = by_scores @ k[at]
        dk[at] += by_scores.T @ q[b, h]
        dv[at] += weights[b, h].T @ g[b, h]
    return dq, dk, dv


def block_sparse_backward(
    g: np.ndarray, by_lse: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, indices: np.ndarray, _out: Any, _lse: Any,
    *rule: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    return gradients(g, by_lse, q, k, v, lambda value: block_sparse(q, k, value, indices, *rule), rule[3])


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


def backward_sample(attend: Callable[..., Any], qkv: Any, indices: Any, lse: Any, rule: tuple[Any, ...]) -> Any:
    """What forward gives goes in as literals."""
    rng = np.random.default_rng(3)
    q, k, v = (np.round(rng.uniform(-2, 2, spec.shape), 2) for spec in qkv)
    out = attend(q, k, v, np.array(indices.value), *rule)
    given = [A(q), A(k), A(v), indices, *[A(x, grad=False) for x in out]]
    return S(T(*out[0].shape), lse, *given, *rule).but(grad=False, low=False)


op(
    "_block_sparse_attention_backward",
    block_sparse_backward,
    backward_sample(block_sparse, QKV, CHOSEN, None, RULE),
    backward_sample(block_sparse, QKV, PAIRS, T(1, 4, 3), (16, 2, True, 0.5, 9, 33)),
    S(*[T(0, 2, 3, 4), None], *[T(0, 2, 3, 4)] * 3, I(0, 2, 3, 1), T(0, 2, 3, 4), T(0, 2, 3), *RULE),
    tol=8,
    low_tol=2,
    scalar=False,
    rows=[S(T(9, 2, 70, 24), None, T(9, 2, 70, 32), T(9, 2, 140, 32), T(9, 2, 140, 24), I(9, 2, 70, 2, lo=-1, hi=9),
            T(9, 2, 70, 24), T(9, 2, 70, lo=3, hi=4), *RULE)],
)  # fmt: skip


def index_scores(
    q: np.ndarray, k: np.ndarray, w: np.ndarray, is_causal: bool = False, query_start: int = 0
) -> np.ndarray:
    """(batch, L, heads, D), (batch, S, D), (batch, L, heads) -> (batch, L, S)."""
    scores = (np.maximum(np.einsum("blhd,bsd->blhs", q, k), 0) * w[..., None]).sum(2)
    ahead = np.arange(k.shape[1]) - (query_start + np.arange(q.shape[1])[:, None])
    return np.where(ahead <= 0, scores, -np.inf) if is_causal else scores


def index_scores_int8(
    q: np.ndarray, q_scale: np.ndarray, k: np.ndarray, k_scale: np.ndarray, w: np.ndarray, causal: bool, start: int
) -> np.ndarray:
    rows = [x.astype(float) * scale[..., None] for x, scale in ((q, q_scale), (k, k_scale))]
    return index_scores(*rows, w, causal, start)


def check_rows(result: Any, x: Any) -> None:
    codes, scales = (to_numpy(t).astype(float) for t in result)
    x = to_numpy(x)
    most = np.abs(x).max(-1, initial=0)
    assert np.allclose(scales, most / 127, rtol=1e-3)
    assert (np.abs(codes * scales[..., None] - x) <= 0.51 * scales[..., None] + 1e-2 * np.abs(x)).all()


INDEX = (T(2, 3, 4, 5), T(2, 6, 5), T(2, 3, 4))
CODES = (I(2, 3, 4, 5, lo=-127, hi=128, dtype="int8"), T(2, 3, 4, lo=0.01, hi=0.02),
         I(2, 6, 5, lo=-127, hi=128, dtype="int8"), T(2, 6, lo=0.01, hi=0.02), T(2, 3, 4))  # fmt: skip
INDEX_ERRORS = (
    (r"query must be \[B, L, heads, D\]", T(1, 3, 2, 4), T(1, 5, 3), T(1, 3, 2)),
    ("weights must be", T(1, 3, 2, 4), T(1, 5, 4), T(1, 2, 2)),
)
op(
    "_index_scores",
    index_scores,
    S(*INDEX, False, 0),
    S(*INDEX, True, 2),
    S(T(1, 1, 1, 1), T(1, 1, 1), T(1, 1, 1), True, 0),
    S(T(0, 3, 2, 4), T(0, 5, 4), T(0, 3, 2), False, 0),
    S(T(1, 3, 2, 4), T(1, 0, 4), T(1, 3, 2), False, 0),
    out="stat",
    tol=4,
    low_tol=4,
    scalar=False,
    big=[S(T(1, 40, 8, 32), T(1, 1500, 32), T(1, 40, 8), True, 1400)],
    errors=[
        *[E(RuntimeError, text, *args, False, 0) for text, *args in INDEX_ERRORS],
        E(RuntimeError, "negative", *INDEX, True, -1),
        E(RuntimeError, "floating", T(1, 3, 2, 4), T(1, 5, 4), I(1, 3, 2), False, 0),
        E(NotImplementedError, "int64", I(1, 3, 2, 4), I(1, 5, 4), T(1, 3, 2), False, 0),
    ],
    rows=[S(T(9, 17, 6, 32), T(9, 140, 32), T(9, 17, 6), True, 100)],
)
op(
    "_index_scores_int8",
    index_scores_int8,
    S(*CODES, False, 0),
    S(*CODES, True, 2),
    grad=False,
    gradgrad=False,
    out="float32",
    floats=("float32",),
    low=(),
    tol=4,
    scalar=False,
    zero_size=False,
    errors=[
        E(RuntimeError, "must be int8", T(1, 3, 2, 4), T(1, 3, 2), T(1, 5, 4), T(1, 5), T(1, 3, 2), False, 0),
        E(RuntimeError, "one number a row", CODES[0], T(2, 3), *CODES[2:], False, 0),
    ],
    rows=[S(I(9, 17, 6, 32, lo=-127, hi=128, dtype="int8"), T(9, 17, 6), I(9, 140, 32, lo=-127, hi=128, dtype="int8"),
            T(9, 140), T(9, 17, 6), True, 100)],
)  # fmt: skip
op(
    "_quantize_rows",
    None,
    S(T(3, 4)),
    S(T(2, 3, 17)),
    S(T(5)),
    S(T(0, 3)),
    S(T(3, 0)),
    S(A([[0.0, 0.0], [1.0, -2.0]])),
    check=check_rows,
    grad=False,
    gradgrad=False,
    out="int8",
    scalar=False,
    errors=[E(RuntimeError, "floating point", I(3, 4)), E(RuntimeError, "one dim", T())],
    rows=[S(T(37, 129))],
)


def token_sparse(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, indices: np.ndarray, causal: bool, scale: float, window: int,
    start: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    mask = np.zeros((q.shape[0], 1, q.shape[2], k.shape[2]), bool)
    for b, i, n in np.ndindex(indices.shape):
        if indices[b, i, n] >= 0:
            mask[b, 0, i, indices[b, i, n]] = True
    return attention_and_lse(q, k, v, mask, causal, scale, True, window, 0.0, None, start)


def token_sparse_attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, indices: np.ndarray, *, is_causal: bool = False, scale: Any = None,
    window: int = 0, query_start: int = 0,
) -> np.ndarray:  # fmt: skip
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return token_sparse(q, k, v, indices, is_causal, scale, window, query_start)[0]


def token_sparse_backward(
    g: np.ndarray, by_lse: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, indices: np.ndarray, _out: Any, _lse: Any,
    *rule: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    return gradients(g, by_lse, q, k, v, lambda value: token_sparse(q, k, value, indices, *rule), rule[1])


FEW = (T(1, 4, 3, 4), T(1, 1, 7, 4), T(1, 1, 7, 6))
TOKENS = A([[[0, 5, -1], [-1, -1, -1], [6, 2, 2]]])
TOKEN_RULE = (False, 0.5, 0, 0)  # is_causal, scale, window, query_start
op(
    "token_sparse_attention",
    token_sparse_attention,
    S(*FEW, TOKENS),
    S(*FEW, TOKENS, is_causal=True, query_start=4),
    S(*FEW, TOKENS, window=3, scale=0.3),
    S(T(1, 4, 2, 4), T(1, 2, 3, 4), T(1, 2, 3, 4), A([[[0], [2]]])),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 5, 4), I(0, 3, 1)),
    tol=4,
    low_tol=2,
    scalar=False,
    errors=[
        E(RuntimeError, SHAPE, T(1, 2, 3, 4), T(1, 2, 5, 3), T(1, 2, 5, 4), I(1, 3, 1, hi=1)),
        E(RuntimeError, "window must be positive", *FEW, TOKENS, window=0),
        E(RuntimeError, "token_indices must be int64", *FEW, I(1, 2, 3, hi=1)),
        E(IndexError, "token index 7 is out of range", *FEW, A([[[7]] * 3])),
        E(IndexError, "token index -2 is out of range", *FEW, A([[[-2]] * 3])),
        E(RuntimeError, "4 dims", T(3, 4), T(3, 4), T(3, 4), I(1, 3, 1, hi=1)),
    ],
    big=[S(T(1, 8, 40, 32), T(1, 1, 700, 32), T(1, 1, 700, 24), I(1, 40, 90, lo=-1, hi=700), is_causal=True,
           query_start=600)],
    rows=[S(T(9, 2, 20, 32), T(9, 1, 140, 32), T(9, 1, 140, 24), I(9, 20, 70, lo=-1, hi=140))],
)  # fmt: skip
op(
    "_token_sparse_attention",
    token_sparse,
    S(*FEW, A([[[0, 5, -1], [4, -1, 6], [6, 2, 2]]]), *TOKEN_RULE),
    S(*FEW, A([[[3, 2], [5, 0], [6, 4]]]), True, 0.5, 3, 4),
    S(*FEW, TOKENS, True, 0.5, 3, 4).but(grad=False),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 5, 4), I(0, 3, 1), *TOKEN_RULE),
    S(T(1, 2, 3, 4), T(1, 2, 0, 4), T(1, 2, 0, 4), I(1, 3, 0), *TOKEN_RULE).but(grad=False),
    tol=4,
    low_tol=2,
    scalar=False,
    errors=[E(RuntimeError, "negative", *FEW, TOKENS, False, 0.5, -1, 0)],
    rows=[S(T(9, 2, 20, 32), T(9, 1, 140, 32), T(9, 1, 140, 24), I(9, 20, 70, lo=-1, hi=140), *TOKEN_RULE)],
)
op(
    "_token_sparse_attention_backward",
    token_sparse_backward,
    backward_sample(token_sparse, FEW, TOKENS, None, TOKEN_RULE),
    backward_sample(token_sparse, FEW, TOKENS, T(1, 4, 3), (True, 0.5, 3, 4)),
    S(*[T(0, 2, 3, 4), None], *[T(0, 2, 3, 4)] * 3, I(0, 3, 1), T(0, 2, 3, 4), T(0, 2, 3), *TOKEN_RULE),
    tol=8,
    low_tol=2,
    scalar=False,
    rows=[S(T(9, 2, 20, 24), None, T(9, 2, 20, 32), T(9, 2, 140, 32), T(9, 2, 140, 24), I(9, 20, 70, lo=-1, hi=140),
            T(9, 2, 20, 24), T(9, 2, 20, lo=3, hi=4), *TOKEN_RULE)],
)  # fmt: skip


def select_blocks(
    q: np.ndarray, k: np.ndarray, means: np.ndarray, size: int, most: int, ratio: float, mass: float, causal: bool,
    scale: float, start: int,
) -> np.ndarray:  # fmt: skip
    """int64 (batch, key_heads, L, n)."""
    keys, group = k.shape[2], q.shape[1] // k.shape[1]
    total = -(-keys // size)
    lists = np.full((q.shape[0], k.shape[1], q.shape[2], min(most, total)), -1)
    for b, h, i in np.ndindex(lists.shape[:3]):
        seen = start + i + 1 if causal else keys
        own, blocks, queries = (start + i) // size, -(-seen // size), q[b, h * group : (h + 1) * group, i]
        there = [np.arange(j * size, min((j + 1) * size, seen)) for j in range(blocks)]
        mean = np.array([means[b, h, j] if j < means.shape[2] else 0 * k[b, h, 0] for j in range(blocks)])
        rank = mean @ queries.mean(0)
        if mass:
            weights = np.exp(queries @ mean.T * scale) * [len(block) for block in there]
            weights[:, own] = np.exp(queries @ k[b, h, there[own]].T * scale).sum(-1)
            rank = (weights / weights.sum(-1, keepdims=True)).sum(0)
        budget = min(most, -(-max(1, int(ratio * seen)) // size)) if ratio else most
        chosen = [own] if budget < 2 or own == 0 else [own, 0]
        for j in sorted(range(blocks), key=lambda j: (-rank[j], j)):
            enough = 0 < mass < 1 and rank[chosen].sum() >= mass * group
            if len(chosen) < budget and not enough and j not in chosen:
                chosen.append(j)
        lists[b, h, i, : len(chosen)] = sorted(chosen)
    return lists


HEADS = (T(2, 4, 9, 5), T(2, 2, 85, 5))
op(
    "_select_blocks",
    select_blocks,
    S(*HEADS, T(2, 2, 5, 5), 16, 3, 0.0, 0.0, True, 0.4, 76),
    S(*HEADS, T(2, 2, 6, 5), 16, 4, 0.5, 0.0, False, 0.4, 0),
    S(*HEADS, T(2, 2, 5, 5), 16, 6, 0.0, 0.5, True, 1.4, 70),
    S(*HEADS, T(2, 2, 6, 5), 16, 3, 0.0, 1.0, False, 1.4, 30),
    S(T(1, 2, 3, 4), T(1, 1, 3, 4), T(1, 1, 0, 4), 64, 9, 0.3, 0.0, True, 0.5, 0),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 1, 4), 16, 1, 0.0, 0.0, False, 0.5, 0),
    grad=False,
    gradgrad=False,
    out="int64",
    low=(),  # sums of another precision may order blocks otherwise
    scalar=False,
    zero_size=False,
    errors=[
        E(RuntimeError, SHAPE, T(1, 2, 3, 4), T(1, 2, 5, 3), T(1, 2, 1, 3), 16, 1, 0.0, 0.0, False, 0.5, 0),
        E(RuntimeError, "must be positive, got 0 and 1", *HEADS, T(2, 2, 6, 5), 0, 1, 0.0, 0.0, False, 0.5, 0),
        E(RuntimeError, "must be positive, got 16 and 0", *HEADS, T(2, 2, 6, 5), 16, 0, 0.0, 0.0, False, 0.5, 0),
        E(RuntimeError, r"in \[0, 1\], got 0 and 2", *HEADS, T(2, 2, 6, 5), 16, 1, 0.0, 2.0, False, 0.5, 0),
        E(RuntimeError, "lie among the keys", *HEADS, T(2, 2, 6, 5), 16, 1, 0.0, 0.0, True, 0.5, 77),
        E(RuntimeError, "means must be", *HEADS, T(2, 2, 5, 5), 16, 1, 0.0, 0.0, False, 0.5, 0),
        E(RuntimeError, "means must be", *HEADS, T(2, 1, 6, 5), 16, 1, 0.0, 0.0, False, 0.5, 0),
        E(NotImplementedError, "int64", I(1, 2, 3, 4), I(1, 2, 5, 4), I(1, 2, 1, 4), 16, 1, 0.0, 0.0, True, 0.5, 0),
    ],
    rows=[
        S(T(9, 4, 70, 32), T(9, 2, 140, 32), T(9, 2, 9, 32), 16, 4, 0.0, 0.0, True, 0.2, 70),
        S(T(9, 4, 70, 32), T(9, 2, 140, 32), T(9, 2, 9, 32), 16, 4, 0.0, 0.8, True, 0.2, 70),
    ],
)
