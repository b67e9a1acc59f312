"""Fused ops and the derivatives behind them: norms, softmax, cross-entropy, rotary embedding, mixture of experts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import A, E, I, S, T, op
from .softmax_norm import log_softmax

SHAPE = r"size|shape|match|dim|must be"
CLOSE: dict[str, Any] = {"tol": 4, "low_tol": 2}
EPS = 1e-5


# --- softmax ---------------------------------------------------------------------------------------------------------
ROWS = [S(T(3, 4), T(3, 4), 1), S(T(3, 4), T(3, 4), 0), S(T(2, 3, 5), T(2, 3, 5), -2), S(T(0, 3), T(0, 3), 1)]
BIG = [S(T(300, 401), T(300, 401), 1), S(T(300, 401), T(300, 401), 0)]
op(
    "_softmax_backward",
    lambda g, y, dim: y * (g - (g * y).sum(axis=dim, keepdims=True)),
    *ROWS,
    scalar=False,
    big=BIG,
    rows=[S(T(37, 129), T(37, 129), 1)],
    **CLOSE,
)
op(
    "_log_softmax_backward",
    lambda g, y, dim: g - np.exp(y) * g.sum(axis=dim, keepdims=True),
    *ROWS,
    scalar=False,
    big=BIG,
    rows=[S(T(37, 129), T(37, 129), 1)],
    **CLOSE,
)


# --- norms over the last dim -----------------------------------------------------------------------------------------
def layer_norm(x: np.ndarray, weight: Any, bias: Any, eps: float) -> tuple[np.ndarray, ...]:
    mean, rstd = x.mean(-1), 1 / np.sqrt(x.var(-1) + eps)
    y = (x - mean[..., None]) * rstd[..., None]
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, rstd


def rms_norm(x: np.ndarray, weight: Any, eps: float) -> tuple[np.ndarray, ...]:
    rstd = 1 / np.sqrt((x * x).mean(-1) + eps)
    y = x * rstd[..., None]
    return y if weight is None else y * weight, rstd


op(
    "_layer_norm",
    layer_norm,
    S(T(3, 4), T(4), T(4), EPS),
    S(T(3, 4), None, None, EPS),
    S(T(2, 3, 17), T(17), None, 1e-3),
    S(T(0, 4), T(4), T(4), EPS),
    scalar=False,
    big=[S(T(300, 401), T(401), T(401), EPS)],
    rows=[S(T(37, 129), T(129), T(129), EPS)],
    **CLOSE,
)
op(
    "_rms_norm",
    rms_norm,
    S(T(3, 4), T(4), EPS),
    S(T(3, 4), None, EPS),
    S(T(2, 3, 17), T(17), 1e-3),
    S(T(0, 4), T(4), EPS),
    scalar=False,
    big=[S(T(300, 401), T(401), EPS)],
    rows=[S(T(37, 129), T(129), EPS)],
    **CLOSE,
)

# The statistics given to a backward must be those of x, so x is written out; gradcheck and gradgradcheck of the forward
# ops look at the derivatives of these.
X = np.array([[0.3, -1.2, 0.7, 1.9], [1.4, 0.2, -0.6, -1.1], [-0.4, 0.9, 1.6, 0.1]])
G, W, BIAS = T(3, 4), T(4), T(4)


def lit(value: Any) -> Any:
    return A(value, grad=False)


def layer_norm_backward(
    g: np.ndarray, x: np.ndarray, mean: np.ndarray, rstd: np.ndarray, weight: Any, bias: Any, eps: float
) -> tuple[np.ndarray, ...]:
    xhat = (x - mean[..., None]) * rstd[..., None]
    gx = g if weight is None else g * weight
    dx = rstd[..., None] * (gx - gx.mean(-1, keepdims=True) - xhat * (gx * xhat).mean(-1, keepdims=True))
    axes = tuple(range(x.ndim - 1))
    none = np.zeros(0)
    return dx, none if weight is None else (g * xhat).sum(axes), none if bias is None else g.sum(axes)


def rms_norm_backward(
    g: np.ndarray, x: np.ndarray, rstd: np.ndarray, weight: Any, add: Any, eps: float
) -> tuple[np.ndarray, ...]:
    xhat = x * rstd[..., None]
    gx = g if weight is None else g * weight
    dx = rstd[..., None] * (gx - xhat * (gx * xhat).mean(-1, keepdims=True))
    return dx if add is None else dx + add, np.zeros(0) if weight is None else (g * xhat).sum(tuple(range(x.ndim - 1)))


_, MEAN, RSTD = layer_norm(X, None, None, EPS)
op(
    "_layer_norm_backward",
    layer_norm_backward,
    *[
        S(G, A(X), lit(MEAN), lit(RSTD), w, b, EPS).but(grad=False)
        for w, b in [(W, BIAS), (None, None), (W, None), (None, BIAS)]
    ],
    S(T(0, 4), T(0, 4), T(0, grad=False), T(0, grad=False), W, BIAS, EPS),
    scalar=False,
    **CLOSE,
    rows=[S(T(37, 129), T(37, 129), T(37), T(37), None, None, EPS)],
)
_, RMS = rms_norm(X, None, EPS)
op(
    "_rms_norm_backward",
    rms_norm_backward,
    *[S(G, A(X), lit(RMS), w, add, EPS).but(grad=False) for w in (W, None) for add in (None, T(3, 4))],
    S(T(0, 4), T(0, 4), T(0, grad=False), W, None, EPS),
    scalar=False,
    **CLOSE,
    rows=[S(T(37, 129), T(37, 129), T(37), None, None, EPS), S(T(37, 129), T(37, 129), T(37), None, T(37, 129), EPS)],
)


# --- RMS norm behind a residual connection ---------------------------------------------------------------------------
def add_rms_norm(x: np.ndarray, residual: np.ndarray, weight: Any = None, eps: Any = None) -> tuple[np.ndarray, ...]:
    y, _ = rms_norm(x + residual, weight, 0.0 if eps is None else eps)
    return y, x + residual


op(
    "_add_rms_norm",
    lambda weight, x, residual, eps: (*add_rms_norm(x, residual, weight, eps), rms_norm(x + residual, None, eps)[1]),
    S(T(4), T(3, 4), T(3, 4), EPS),
    S(None, T(3, 4), T(3, 4), EPS),
    S(T(17), T(2, 3, 17), T(2, 3, 17), 1e-3),
    S(T(4), T(0, 4), T(0, 4), EPS),
    scalar=False,
    big=[S(T(401), T(300, 401), T(300, 401), EPS)],
    rows=[S(None, T(37, 129), T(37, 129), EPS)],
    **CLOSE,
)
op(
    "add_rms_norm",
    add_rms_norm,
    S(T(3, 4), T(3, 4), T(4), 1e-6),
    S(T(3, 4), T(3, 4), eps=1e-5),
    S(T(2, 3, 17), T(2, 3, 17), T(17), 1e-3),
    S(T(4), T(4), T(4)),
    S(T(0, 4), T(0, 4), T(4), 1e-6),
    S(T(3, 0), T(3, 0), T(0), 1e-6),
    scalar=False,
    big=[S(T(300, 401), T(300, 401), T(401), 1e-6)],
    rows=[S(T(37, 129), T(37, 129), T(129), 1e-6)],
    errors=[
        E(RuntimeError, "one shape", T(3, 4), T(4)),
        E(RuntimeError, "one shape", T(), T()),
        E(RuntimeError, "weight must be", T(3, 4), T(3, 4), T(5)),
        E(RuntimeError, "weight must be", T(3, 4), T(3, 4), T(1, 4)),
        E(NotImplementedError, "int64", I(3, 4), I(3, 4)),
    ],
    **CLOSE,
)


# --- cross-entropy of rows -------------------------------------------------------------------------------------------
def target_rows(x: np.ndarray, target: np.ndarray, weight: Any, ignore: int, smoothing: float) -> np.ndarray:
    """T with loss = -sum(T * log_softmax(x))."""
    n, classes = x.shape
    t = np.full((n, classes), smoothing / classes)
    for i in range(n):
        if target[i] == ignore:
            t[i] = 0
        else:
            t[i, target[i]] += 1 - smoothing
    return t if weight is None else t * weight


def cross_entropy(x: np.ndarray, target: np.ndarray, weight: Any, ignore: int, smoothing: float) -> tuple[Any, Any]:
    logp = log_softmax(x, 1)
    loss = -(target_rows(x, target, weight, ignore, smoothing) * logp).sum(1)
    return loss, np.log(np.exp(x).sum(1))


def cross_entropy_backward(
    g: np.ndarray, x: np.ndarray, target: np.ndarray, weight: Any, lse: np.ndarray, ignore: int, smoothing: float
) -> np.ndarray:
    t = target_rows(x, target, weight, ignore, smoothing)
    return g[:, None] * (np.exp(x - lse[:, None]) * t.sum(1, keepdims=True) - t)


CLASS_WEIGHT = T(4, lo=0.3, hi=2.0, grad=False)
op(
    "_cross_entropy",
    cross_entropy,
    S(T(3, 4), A([0, 3, 1]), None, -100, 0.0),
    S(T(3, 4), A([0, -100, 1]), CLASS_WEIGHT, -100, 0.2),
    S(T(3, 4), A([0, 2, 1]), None, 2, 0.1),
    S(T(0, 4), I(0, hi=1), None, -100, 0.0),
    out="stat",
    scalar=False,
    big=[S(T(3000, 40), I(3000, hi=40), None, -100, 0.1)],
    errors=[
        E(IndexError, "bounds", T(3, 4), A([0, 4, 1]), None, -100, 0.0),
        E(RuntimeError, SHAPE, T(3, 4), A([0, 1]), None, -100, 0.0),
        E(RuntimeError, SHAPE, T(3, 4), A([0, 1, 2]), T(5), -100, 0.0),
    ],
    **CLOSE,
    rows=[S(T(37, 129), I(37, hi=129), None, -100, 0.1)],
)


def linear_cross_entropy(
    x: np.ndarray, w: np.ndarray, bias: Any, target: np.ndarray, ignore: int, smoothing: float, mean: bool, needs: int
) -> tuple[Any, ...]:
    logits = x @ w.T + (0 if bias is None else bias)
    t = target_rows(logits, target, None, ignore, smoothing)
    total = (target != ignore).sum() if mean else 1
    slope = (np.exp(log_softmax(logits, 1)) * t.sum(1, keepdims=True) - t) / total
    grads = (slope @ w, slope.T @ x, slope.sum(0))
    return -(t * log_softmax(logits, 1)).sum() / total, *[
        g if needs >> i & 1 and (i < 2 or bias is not None) else np.zeros(0) for i, g in enumerate(grads)
    ]


op(
    "_linear_cross_entropy",
    linear_cross_entropy,
    S(T(3, 5), T(4, 5), None, A([0, 3, 1]), -100, 0.0, True, 3),
    S(T(3, 5), T(4, 5), T(4), A([0, -100, 1]), -100, 0.2, True, 7),
    S(T(3, 5), T(4, 5), T(4), A([0, 3, 1]), -100, 0.0, False, 0),
    S(T(0, 5), T(4, 5), T(4), I(0, hi=1), -100, 0.0, False, 7),
    out="stat",
    scalar=False,
    big=[S(T(300, 33), T(1009, 33), T(1009), I(300, hi=1009), -100, 0.1, True, 7)],
    errors=[
        E(RuntimeError, r"\[N, D\]", T(3, 5), T(4, 6), None, A([0, 1, 2]), -100, 0.0, True, 0),
        E(RuntimeError, "linear_bias", T(3, 5), T(4, 5), T(5), A([0, 1, 2]), -100, 0.0, True, 0),
    ],
    tol=4,
    low_tol=2,
    no_rows="the loss is one number of all rows; linear_cross_entropy(reduction='none') has rows",
)
LSE = lit(np.log(np.exp(X).sum(1)))
op(
    "_cross_entropy_backward",
    cross_entropy_backward,
    S(T(3), A(X), A([0, 3, 1]), None, LSE, -100, 0.0).but(grad=False),
    S(T(3), A(X), A([0, -100, 1]), CLASS_WEIGHT, LSE, -100, 0.2).but(grad=False),
    S(T(0), T(0, 4), I(0, hi=1), None, T(0, grad=False), -100, 0.0),
    scalar=False,
    **CLOSE,
    rows=[S(T(37), T(37, 129), I(37, hi=129), None, T(37, grad=False), -100, 0.1)],
)


# --- embedding -------------------------------------------------------------------------------------------------------
def embedding_backward(g: np.ndarray, ids: np.ndarray, rows: int, padding: int) -> np.ndarray:
    out = np.zeros((rows, g.shape[-1]))
    for at in np.ndindex(ids.shape):
        if ids[at] != padding:
            out[ids[at]] += g[at]
    return out


op(
    "_embedding_backward",
    embedding_backward,
    S(T(3, 4), A([0, 2, 2]), 5, -1),
    S(T(2, 2, 3), A([[1, 0], [1, 1]]), 2, 1),
    S(T(3), A(1), 4, -1),
    S(T(0, 3), I(0, hi=1), 4, -1),
    big=[S(T(500, 301), I(500, hi=60), 60, -1)],
    low_tol=2,
    no_rows="sums over the rows",
)


# --- rotary embedding and mixture of experts -------------------------------------------------------------------------
def rope(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, interleaved: bool = False) -> np.ndarray:
    """One pair at a time, as a rotation in the plane."""
    half = x.shape[-1] // 2
    cos, sin = (np.broadcast_to(t, (*x.shape[:-1], half)) for t in (cos, sin))
    out = np.empty_like(x)
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        out[..., a] = x[..., a] * cos[..., i] - x[..., b] * sin[..., i]
        out[..., b] = x[..., a] * sin[..., i] + x[..., b] * cos[..., i]
    return out


op(
    "rope",
    rope,
    S(T(3, 4), T(3, 2), T(3, 2)),
    S(T(3, 4), T(3, 2), T(3, 2), True),
    S(T(2, 2, 3, 6), T(3, 3), T(3, 3)),
    S(T(2, 3, 2, 4), T(3, 1, 2), T(3, 1, 2), interleaved=True),
    S(T(2, 4), T(2), T(2)),
    S(T(0, 4), T(0, 2), T(0, 2)),
    S(T(3, 0), T(3, 0), T(3, 0)),
    S(T(2, 3, 38), T(3, 1), T(3, 1)),
    S(T(2, 3, 38), T(2, 1, 19), T(2, 1, 19), True),
    scalar=False,
    big=[S(T(4, 70, 64), T(70, 32), T(70, 32))],
    errors=[
        E(RuntimeError, "even", T(3, 5), T(3, 2), T(3, 2)),
        E(RuntimeError, "broadcast|shape", T(3, 4), T(2, 2), T(2, 2)),
        E(RuntimeError, "one shape", T(3, 4), T(3, 2), T(2)),
        E(RuntimeError, "floating", I(3, 4), T(3, 2), T(3, 2)),
    ],
    **CLOSE,
    rows=[S(T(37, 3, 64), T(3, 32), T(3, 32)), S(T(37, 64), T(37, 32), T(37, 32), True)],
)
