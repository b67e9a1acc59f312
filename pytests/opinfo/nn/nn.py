"""Ops behind torch.nn.functional: embedding, dropout, losses, rotary embedding, attention, mixture of experts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import A, E, I, S, T, op
from ..pointwise.pointwise import silu
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
