"""Attention: a query at a time in NumPy, its logarithm of sums, its gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import A, B, E, I, S, T, op

SHAPE = r"size|shape|mismatch|match|dim"


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Any = None,
    query_start: int = 0,
) -> np.ndarray:
    """One query at a time. A row with nothing to attend to is zero."""
    return attention_and_lse(q, k, v, attn_mask, is_causal, scale, enable_gqa, window, softcap, sinks, query_start)[0]


def attention_and_lse(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    attn_mask: Any,
    is_causal: bool,
    scale: Any,
    enable_gqa: bool,
    window: Any,
    softcap: Any,
    sinks: Any,
    query_start: int,
) -> tuple[np.ndarray, np.ndarray]:
    if enable_gqa:
        k, v = (np.repeat(a, q.shape[-3] // a.shape[-3], axis=-3) for a in (k, v))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = q @ np.swapaxes(k, -1, -2) * scale
    scores = softcap * np.tanh(scores / softcap) if softcap else scores
    ahead = np.arange(k.shape[-2]) - (query_start + np.arange(q.shape[-2])[:, None])  # key position - query position
    if is_causal:
        scores = np.where(ahead <= 0, scores, -np.inf)
    if window:
        scores = np.where(abs(ahead) < window, scores, -np.inf)
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    sink = np.zeros((1, 1)) - np.inf if sinks is None else sinks[:, None, None]
    with np.errstate(all="ignore"):
        top = np.maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf), sink)
        top = np.where(np.isinf(top), 0, top)
        total = np.exp(scores - top).sum(axis=-1, keepdims=True) + np.exp(sink - top)
        weights = np.where(total == 0, 0, np.exp(scores - top) / total)
        return weights @ v, (top + np.log(total))[..., 0]


def attention_and_logs(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any, *rule: Any) -> tuple[np.ndarray, ...]:
    """With what rounding the logarithm cut off, which is kept under a mask of numbers: nothing, in float64."""
    out, lse = attention_and_lse(q, k, v, mask, *rule)
    return out, lse, np.zeros(0 if mask is None or mask.dtype == bool else lse.shape)


QKV = (T(1, 2, 3, 4), T(1, 2, 5, 4), T(1, 2, 5, 4))
op(
    "scaled_dot_product_attention",
    attention,
    S(*QKV),
    S(T(2, 3, 4), T(2, 3, 4), T(2, 3, 4), is_causal=True),
    S(*QKV, A([[True, False, True, True, False]] * 3)),
    S(*QKV, T(3, 5)),
    S(*QKV, scale=0.3),
    S(T(1, 4, 2, 3), T(1, 2, 2, 3), T(1, 2, 2, 3), enable_gqa=True),
    S(T(1, 2, 3, 4), T(1, 2, 3, 4), T(1, 2, 3, 6), is_causal=True),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 5, 4)),
    tol=4,
    low_tol=2,
    scalar=False,
    big=[S(T(2, 4, 70, 32), T(2, 4, 70, 32), T(2, 4, 70, 32), is_causal=True)],
    errors=[
        E(RuntimeError, SHAPE, T(1, 2, 3, 4), T(1, 2, 5, 3), T(1, 2, 5, 4)),
        E(RuntimeError, SHAPE + "|broadcast|mask", *QKV, B(4, 5)),
    ],
    rows=[S(T(37, 16), T(50, 16), T(50, 24)), S(T(9, 2, 70, 32), T(9, 2, 70, 32), T(9, 2, 70, 24), is_causal=True)],
)
op(
    "attention",
    lambda q, k, v, mask=None, **kw: attention(q, k, v, mask, **kw),
    S(*QKV),
    S(*QKV, mask=B(3, 5), sinks=T(2)),
    S(*QKV, mask=T(2, 3, 5), softcap=1.5),
    S(T(4, 2, 3), T(2, 2, 3), T(2, 2, 3), enable_gqa=True, scale=0.3),
    S(*QKV, is_causal=True, query_start=2, window=2),
    S(*QKV, window=2, sinks=T(2)),
    S(T(1, 2, 3, 4), T(1, 2, 0, 4), T(1, 2, 0, 4)),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 5, 4)),
    tol=4,
    low_tol=2,
    scalar=False,
    big=[
        S(T(1, 4, 70, 32), T(1, 2, 700, 32), T(1, 2, 700, 24), is_causal=True, query_start=600, enable_gqa=True),
        S(T(1, 2, 70, 32), T(1, 2, 700, 32), T(1, 2, 700, 24), window=90, sinks=T(2), softcap=2.0),
    ],
    errors=[
        E(RuntimeError, SHAPE, T(1, 2, 3, 4), T(1, 2, 5, 3), T(1, 2, 5, 4)),
        E(RuntimeError, "broadcast", *QKV, mask=B(4, 5)),
        E(RuntimeError, "window must be positive", *QKV, window=0),
        E(RuntimeError, "softcap must be positive", *QKV, softcap=-1.0),
        E(RuntimeError, "one for each query head", *QKV, sinks=T(3)),
        E(RuntimeError, "enable_gqa=True", T(4, 2, 3), T(2, 2, 3), T(2, 2, 3)),
    ],
    rows=[
        S(T(37, 16), T(50, 16), T(50, 24), window=30),
        S(T(9, 2, 70, 32), T(9, 2, 70, 32), T(9, 2, 70, 24), is_causal=True, sinks=T(2)),
    ],
)
FULL = (False, 0.5, 0, 0.0, 0.0, 0)  # is_causal, scale, window, softcap, dropout_p, query_start
op(
    "_attention",
    lambda q, k, v, mask, sinks, state, causal, scale, window, cap, p, start: attention_and_logs(
        q, k, v, mask, causal, scale, True, window, cap, sinks, start
    ),
    S(*QKV, None, None, None, *FULL),
    S(T(1, 4, 2, 3), T(1, 2, 2, 3), T(1, 2, 2, 3), None, T(4), None, *FULL),
    S(*QKV, A([[True, False, True, True, False]] * 3), None, None, *FULL),
    S(*QKV, T(3, 5), None, None, False, 0.5, 0, 1.5, 0.0, 0),
    S(*QKV, None, None, None, True, 0.5, 2, 0.0, 0.0, 1),
    S(*QKV, A([[True, False, True, True, False]] * 2 + [[False] * 5]), T(2), None, *FULL),
    S(T(1, 2, 3, 4), T(1, 2, 0, 4), T(1, 2, 0, 4), None, None, None, *FULL).but(grad=False),
    S(T(0, 2, 3, 4), T(0, 2, 5, 4), T(0, 2, 5, 4), None, None, None, *FULL),
    tol=4,
    low_tol=2,
    scalar=False,
    big=[S(T(1, 4, 140, 32), T(1, 2, 140, 32), T(1, 2, 140, 24), None, None, None, True, 0.2, 0, 0.0, 0.0, 0)],
    errors=[
        E(RuntimeError, SHAPE, T(1, 2, 3, 4), T(1, 2, 5, 3), T(1, 2, 5, 4), None, None, None, *FULL),
        E(RuntimeError, "divide", T(1, 3, 3, 4), T(1, 2, 5, 4), T(1, 2, 5, 4), None, None, None, *FULL),
        E(RuntimeError, "generator state", *QKV, None, None, None, False, 0.5, 0, 0.0, 0.5, 0),
        E(NotImplementedError, "int64", I(1, 2, 3, 4), I(1, 2, 5, 4), I(1, 2, 5, 4), None, None, None, *FULL),
    ],
    rows=[S(T(9, 2, 70, 32), T(9, 2, 70, 32), T(9, 2, 70, 24), None, T(2), None, True, 0.2, 0, 0.0, 0.0, 0)],
)


def attention_backward(
    g: np.ndarray, by_lse: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any, sinks: Any, _state: Any,
    _out: Any, _lse: Any, _low: Any, causal: bool, scale: float, window: int, cap: float, _p: float, start: int,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """One query head at a time, from the weights."""
    rule = (mask, causal, scale, True, window, cap, sinks, start)
    out, lse = attention_and_lse(q, k, v, *rule)
    eye = np.broadcast_to(np.eye(k.shape[-2]), (*k.shape[:-1], k.shape[-2]))
    weights, _ = attention_and_lse(q, k, eye, *rule)
    delta = (g * out).sum(-1) - (0 if by_lse is None else by_lse)
    dq, dk, dv, group = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), q.shape[1] // k.shape[1]
    for b, h in np.ndindex(q.shape[:2]):
        at = (b, h // group)
        scores = q[b, h] @ k[at].T * scale
        slope = scale * (1 - np.tanh(scores / cap) ** 2 if cap else 1)
        by_scores = weights[b, h] * (g[b, h] @ v[at].T - delta[b, h][:, None]) * slope
        dq[b, h] = by_scores @ k[at]
        dk[at] += by_scores.T @ q[b, h]
        dv[at] += weights[b, h].T @ g[b, h]
    none = np.zeros(0)
    return dq, dk, dv, none if sinks is None else -(np.exp(sinks[:, None] - lse) * delta).sum((0, 2))


def backward_sample(heads: int, mask: Any, sinks: Any, lse: Any, rule: tuple[Any, ...]) -> Any:
    """What forward gives goes in as literals."""
    rng = np.random.default_rng(3)
    q, k, v = (np.round(rng.uniform(-2, 2, s), 2) for s in ((1, heads, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6)))
    out = attention_and_logs(q, k, v, mask, *rule[:2], True, *rule[2:4], sinks, rule[5])
    given = [None if x is None else A(x) for x in (mask, sinks)]
    return S(T(1, heads, 3, 6), lse, A(q), A(k), A(v), *given, None, *[A(x, grad=False) for x in out], *rule).but(
        grad=False, low=False
    )


op(
    "_attention_backward",
    attention_backward,
    backward_sample(2, None, None, None, FULL),
    backward_sample(4, None, np.array([0.5, -1.0, 0.0, 1.5]), T(1, 4, 3), FULL),
    backward_sample(2, np.array([[True, False, True, True, False]] * 3), None, T(1, 2, 3), FULL),
    backward_sample(2, None, None, None, (True, 0.5, 2, 1.5, 0.0, 1)),
    backward_sample(2, np.array([[0.5, -1.0, -np.inf, 0.0, 2.0]] * 3), None, T(1, 2, 3), FULL),
    S(*[T(0, 2, 3, 4), None], *[T(0, 2, 3, 4)] * 3, None, None, None, T(0, 2, 3, 4), T(0, 2, 3), T(0), *FULL),
    tol=8,
    low_tol=2,
    scalar=False,
    rows=[S(T(9, 2, 70, 24), None, T(9, 2, 70, 32), T(9, 2, 70, 32), T(9, 2, 70, 24), None, None, None,
            T(9, 2, 70, 24), T(9, 2, 70, lo=3, hi=4), T(0), True, 0.2, 0, 0.0, 0.0, 0)],
)  # fmt: skip
