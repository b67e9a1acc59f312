"""Ops behind torch.nn.functional: embedding, dropout, losses, rotary embedding, attention, mixture of experts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .core import A, B, E, I, S, T, op
from .pointwise import silu
from .softmax_norm import log_softmax

BIG = (300, 401)
SHAPE = r"size|shape|mismatch|match|dim"


def embedding(index: np.ndarray, weight: np.ndarray, padding_idx: Any = None, **_: Any) -> np.ndarray:
    return weight[index]


op(
    "embedding",
    embedding,
    S(A([0, 2, 2]), T(4, 3)),
    S(A([[1, 0], [3, 1]]), T(4, 3)),
    S(A(1), T(4, 3)),
    S(I(0, hi=1), T(4, 3)),
    S(I(2, 0, hi=1), T(4, 3)),
    big=[S(I(500, hi=60), T(60, 301))],
    errors=[
        E((IndexError, RuntimeError), "range|bounds", A([4]), T(4, 3)),
        E((IndexError, RuntimeError), "range|bounds|negative", A([-1]), T(4, 3)),
        E((RuntimeError, TypeError), "int|index|dtype|type", A([0.0], dtype="float32"), T(4, 3)),
    ],
)


def reduced(values: np.ndarray, reduction: str) -> Any:
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.mean()


REDUCTION = E((ValueError, RuntimeError), "reduction|none|mean|sum", T(3), T(3), reduction="max")
op(
    "mse_loss",
    lambda x, y, reduction="mean": reduced((x - y) ** 2, reduction),
    S(T(3, 4), T(3, 4)),
    S(T(3, 4), T(3, 4), reduction="sum"),
    S(T(3), T(3), reduction="none"),
    S(T(), T()),
    S(T(0, 3), T(0, 3)),
    S(T(0), T(0), reduction="none"),
    big=[S(T(*BIG), T(*BIG))],
    errors=[E(RuntimeError, "size|shape", T(3), T(4)), REDUCTION],
    rows=[S(T(37, 129), T(37, 129), reduction="none")],
)
op(
    "l1_loss",
    lambda x, y, reduction="mean": reduced(np.abs(x - y), reduction),
    S(T(3, 4), T(3, 4)),
    S(T(3, 4), T(3, 4), reduction="sum"),
    S(T(), T()),
    S(T(0, 3), T(0, 3)),
    big=[S(T(*BIG), T(*BIG))],
    errors=[E(RuntimeError, "size|shape", T(3), T(4)), REDUCTION],
    rows=[S(T(37, 129), T(37, 129), reduction="none")],
)


def nll_loss(
    x: np.ndarray, target: np.ndarray, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    """Classes along dim 1 (dim 0 when there is no batch)."""
    if x.ndim == 1:
        x, flat = x[None], target.reshape(1)
        loss = nll_loss(x, flat, weight, ignore_index, reduction)
        return loss[0] if reduction == "none" else loss
    w = np.ones(x.shape[1]) if weight is None else weight
    out, total = np.zeros(target.shape), 0.0
    for at in np.ndindex(target.shape):
        c = int(target[at])
        if c != ignore_index:
            out[at] = -w[c] * x[(at[0], c, *at[1:])]
            total += w[c]
    if reduction == "none":
        return out
    return out.sum() if reduction == "sum" else np.float64(out.sum()) / total


def cross_entropy(
    x: np.ndarray,
    target: np.ndarray,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    dim = 0 if x.ndim == 1 else 1
    logp = log_softmax(x, dim)
    if target.dtype.kind == "f":  # class probabilities
        n = x.shape[dim]
        target = target * (1 - label_smoothing) + label_smoothing / n
        w = 1 if weight is None else weight.reshape([n if d == dim else 1 for d in range(x.ndim)])
        loss = -(w * target * logp).sum(axis=dim)
        if reduction == "none":
            return loss
        return loss.sum() / (max(loss.size, 1) if reduction == "mean" else 1)
    hard = nll_loss(logp, target, weight, ignore_index, reduction)
    if not label_smoothing:
        return hard
    w = np.ones(x.shape[dim]) if weight is None else weight
    smooth = -(logp * w.reshape([-1 if d == dim else 1 for d in range(x.ndim)])).sum(axis=dim) / x.shape[dim]
    smooth = np.where(target == ignore_index, 0, smooth)
    if reduction == "mean":
        smooth = smooth.sum() / sum(w[int(t)] for t in target.reshape(-1) if t != ignore_index)
    elif reduction == "sum":
        smooth = smooth.sum()
    return (1 - label_smoothing) * hard + label_smoothing * smooth


W = T(4, lo=0.3, hi=2.0, grad=False)
TARGETS = [
    S(T(3, 4), A([0, 3, 1])),
    S(T(3, 4), A([0, -100, 1])),
    S(T(3, 4), A([0, 3, 1]), W),
    S(T(3, 4), A([0, 2, 1]), ignore_index=2),
    S(T(3, 4), A([0, 3, 1]), reduction="sum"),
    S(T(3, 4), A([0, 3, -100]), reduction="none"),
    S(T(2, 4, 3), I(2, 3, hi=4)),
    S(T(4), A(2)),
    S(T(0, 4), I(0, hi=1)).but(grad=False),
    S(T(0, 4), I(0, hi=1), reduction="sum"),
    S(T(3, 4), A([0, -100, 1]), W, reduction="mean"),
]
TARGET_ERRORS = [
    E((IndexError, RuntimeError), "range|bounds|class", T(3, 4), A([0, 4, 1])),
    E((RuntimeError, ValueError), "batch|size|shape", T(3, 4), A([0, 1])),
]
op(
    "nll_loss",
    nll_loss,
    *TARGETS,
    big=[S(T(3000, 40), I(3000, hi=40))],
    errors=TARGET_ERRORS,
    tol=2,
    rows=[S(T(37, 129), I(37, hi=129), reduction="none")],
)
op(
    "cross_entropy",
    cross_entropy,
    *TARGETS,
    S(T(3, 4), A([0, 3, 1]), label_smoothing=0.1),
    S(T(3, 4), T(3, 4, lo=0, hi=1)),
    S(T(3, 4), A([0, -100, 1]), W, label_smoothing=0.2),
    S(A([[1000.0, -1000.0], [0.0, 500.0]]), A([1, 1])).but(grad=False, low=False),
    big=[S(T(3000, 40), I(3000, hi=40)), S(T(20, 4001), I(20, hi=4001))],
    errors=TARGET_ERRORS,
    tol=2,
    low_tol=2,
    rows=[S(T(37, 129), I(37, hi=129), reduction="none", label_smoothing=0.1)],
)


def linear_cross_entropy(
    x: np.ndarray,
    w: np.ndarray,
    target: np.ndarray,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Any:
    logits = np.tensordot(x, w, axes=(x.ndim - 1, w.ndim - 1))
    if linear_bias is not None:
        logits = logits + linear_bias
    ignored = -100 if ignore_index is None else ignore_index
    return cross_entropy(logits, target, weight, ignored, reduction, label_smoothing)


op(
    "linear_cross_entropy",
    linear_cross_entropy,
    S(T(3, 5), T(4, 5), A([0, 3, 1])),
    S(T(3, 5), T(4, 5), A([0, -100, 1]), linear_bias=T(4), label_smoothing=0.2),
    S(T(3, 5), T(4, 5), A([0, 2, 1]), reduction="sum", ignore_index=2),
    S(T(5), T(4, 5), A(2)),
    S(T(3, 5), T(4, 5), A([0, 3, 1]), weight=W),
    S(T(3, 5), T(4, 5), A([0, 3, 1]), reduction="none"),
    S(T(3, 5), T(4, 5), T(3, 4, lo=0, hi=1)),
    S(T(3, 5), T(4, 2, 5), I(3, 2, hi=4), linear_bias=T(4, 2)),
    S(T(0, 5), T(4, 5), I(0, hi=1), reduction="sum"),
    big=[S(T(300, 33), T(1009, 33), I(300, hi=1009), linear_bias=T(1009))],
    errors=[
        E(IndexError, "bounds", T(3, 5), T(4, 5), A([0, 4, 1])),
        E((RuntimeError, ValueError), "batch", T(3, 5), T(4, 5), A([0, 1])),
        E(RuntimeError, r"\[N, D\]", T(3, 5), T(4, 6), A([0, 1, 2])),
        E(RuntimeError, "probabilities", T(3, 5), T(4, 5), T(3, 4, lo=0, hi=1), ignore_index=0),
        E(RuntimeError, r"batched input, \[N, 5\]", T(5), T(4, 2, 5), I(2, hi=4)),
        E(RuntimeError, "same dtype", T(3, 5), T(4, 5, dtype="float16"), A([0, 3, 1]), reduction="none"),
    ],
    tol=4,
    low_tol=2,
    rows=[S(T(37, 19), T(129, 19), I(37, hi=129), reduction="none")],
)


def check_dropout(result: Any, x: Any, p: float = 0.5, train: bool = True) -> None:
    """Kept values are scaled by 1/(1-p), the share of zeros is p; identity when not training."""
    got, given = result.detach().double().numpy(), x.detach().double().numpy()
    if not train or p == 0:
        np.testing.assert_array_equal(got, given)
        return
    kept = got != 0
    if p < 1:
        np.testing.assert_allclose(got[kept], given[kept] / (1 - p), rtol=2e-2 if x.element_size() == 2 else 1e-6)
    if got.size >= 1000:
        assert abs((~kept).mean() - p) < 5 * math.sqrt(p * (1 - p) / got.size) + 1e-9


op(
    "dropout",
    None,
    S(T(50, 40, lo=0.5), 0.3),
    S(T(50, 40, lo=0.5), 0.0),
    S(T(50, 40, lo=0.5), 1.0),
    S(T(3, 4, lo=0.5), 0.5, False),
    S(T(3, 4, lo=0.5), 0.4),
    S(T(0, 3), 0.5),
    S(T(lo=0.5), 0.5),
    S(T(40, 30, lo=0.5), p=0.9, train=True),
    check=check_dropout,
    random=True,
    gradgrad=False,
    big=[S(T(*BIG), 0.3)],
    errors=[
        E((ValueError, RuntimeError), "probab|p|between", T(3), 1.5),
        E((ValueError, RuntimeError), "probab|p|between", T(3), -0.1),
    ],
)


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
op(
    "swiglu",
    lambda gate, up: silu(gate) * up,
    S(T(3, 4), T(3, 4)),
    S(T(), T()),
    S(T(0, 3), T(0, 3)),
    S(T(2, 3, 17), T(2, 3, 17)),
    special=0,
    tol=2,
    big=[S(T(*BIG), T(*BIG))],
    errors=[E(RuntimeError, "size|shape", T(3, 4), T(3, 5))],
)
