"""Attention within packed sequences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import A, E, I, S, T, op
from .attention import attention_and_lse, attention_backward


def sequences(cu_q: Any, cu_k: Any) -> list[tuple[slice, slice]]:
    starts = [np.asarray(cu).astype(int) for cu in (cu_q, cu_k)]
    return [tuple(slice(cu[i], cu[i + 1]) for cu in starts) for i in range(len(starts[0]) - 1)]  # type: ignore[misc]


def heads_first(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, 0, 1)[None]


def varlen(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, cu_q: Any, cu_k: Any, sinks: Any, causal: bool, scale: float,
    window: int, cap: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    out, lse = np.zeros((*q.shape[:2], v.shape[2])), np.zeros((q.shape[1], q.shape[0]))
    for rows, keys in sequences(cu_q, cu_k):
        part = [heads_first(x) for x in (q[rows], k[keys], v[keys])]
        y, logs = attention_and_lse(*part, None, causal, scale, True, window, cap, sinks, 0)
        out[rows], lse[:, rows] = np.swapaxes(y[0], 0, 1), logs[0]
    return out, lse


def varlen_attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, cu_q: Any, cu_k: Any, *, sinks: Any = None, is_causal: bool = False,
    scale: Any = None, window: int = 0, softcap: float = 0.0, enable_gqa: bool = False,
) -> np.ndarray:  # fmt: skip
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return varlen(q, k, v, cu_q, cu_k, sinks, is_causal, scale, window, softcap)[0]


def varlen_backward(
    g: np.ndarray, by_lse: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, cu_q: Any, cu_k: Any, sinks: Any,
    _out: Any, _lse: Any, causal: bool, scale: float, window: int, cap: float,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    found = [np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), np.zeros(0 if sinks is None else len(sinks))]
    for rows, keys in sequences(cu_q, cu_k):
        part = [heads_first(x) for x in (q[rows], k[keys], v[keys])]
        logs = None if by_lse is None else by_lse[None, :, rows]
        rule = (None, sinks, None, None, None, None, causal, scale, window, cap, 0.0, 0)
        grads = attention_backward(heads_first(g[rows]), logs, *part, *rule)
        for to, at, grad in zip(found, (rows, keys, keys), grads, strict=False):
            to[at] = np.swapaxes(grad[0], 0, 1)
        found[3] += grads[3]
    return tuple(found)


QKV = (T(6, 4, 4), T(9, 2, 4), T(9, 2, 6))
CU = (A([0, 3, 3, 6]), A([0, 4, 5, 9]))  # the second sequence has no query
FULL = (False, 0.5, 0, 0.0)  # is_causal, scale, window, softcap
SHAPES = "shapes do not match"
op(
    "varlen_attention",
    varlen_attention,
    S(*QKV, *CU, enable_gqa=True),
    S(*QKV, *CU, enable_gqa=True, is_causal=True, window=2, sinks=T(4)),
    S(*QKV, *CU, enable_gqa=True, softcap=1.5, scale=0.3),
    S(T(0, 2, 4), T(0, 2, 4), T(0, 2, 4), A([0, 0]), A([0, 0])),
    tol=4,
    low_tol=2,
    scalar=False,
    noncontig=False,  # starts that are expanded do not rise
    big=[S(T(150, 4, 32), T(700, 2, 32), T(700, 2, 24), A([0, 9, 80, 150]), A([0, 600, 650, 700]), enable_gqa=True)],
    errors=[
        E(RuntimeError, SHAPES, T(6, 2, 4), T(9, 2, 3), T(9, 2, 4), *CU),
        E(RuntimeError, "enable_gqa=True", *QKV, *CU),
        E(RuntimeError, "3 dims", T(1, 6, 2, 4), T(1, 9, 2, 4), T(1, 9, 2, 4), *CU),
        E(RuntimeError, "window must be positive", *QKV, *CU, enable_gqa=True, window=0),
        E(RuntimeError, "softcap must be positive", *QKV, *CU, enable_gqa=True, softcap=-1.0),
        E(RuntimeError, "1-d tensors of integers", *QKV, T(4), CU[1], enable_gqa=True),
        E(ValueError, r"cu_seq_q must rise from 0 to the number of packed tokens, 6, got \[0, 3, 2, 6\]", *QKV,
          A([0, 3, 2, 6]), CU[1], enable_gqa=True),
        E(ValueError, r"cu_seq_k must rise .* 9, got \[0, 4, 5, 8\]", *QKV, CU[0], A([0, 4, 5, 8]), enable_gqa=True),
        E(ValueError, "each query sequence needs its key sequence", *QKV, CU[0], A([0, 9]), enable_gqa=True),
    ],
    no_rows="the batch is packed; test_nn_functional.py compares each sequence with itself alone",
)  # fmt: skip
op(
    "_varlen_attention",
    varlen,
    S(*QKV, *CU, None, *FULL),
    S(*QKV, *CU, T(4), True, 0.5, 2, 0.0),
    S(*QKV, *CU, None, False, 0.3, 0, 1.5),
    S(T(0, 2, 4), T(0, 2, 4), T(0, 2, 4), A([0, 0]), A([0, 0]), None, *FULL),
    S(T(3, 2, 4), T(0, 2, 4), T(0, 2, 4), A([0, 1, 3]), A([0, 0, 0]), None, *FULL).but(grad=False),
    tol=4,
    low_tol=2,
    scalar=False,
    noncontig=False,  # starts that are expanded do not rise
    errors=[
        E(RuntimeError, "divide", T(6, 3, 4), *QKV[1:], *CU, None, *FULL),
        E(RuntimeError, "one for each query head", *QKV, *CU, T(3), *FULL),
        E(RuntimeError, "negative", *QKV, *CU, None, False, 0.5, -1, 0.0),
        E(NotImplementedError, "int64", I(6, 4, 4), I(9, 2, 4), I(9, 2, 6), *CU, None, *FULL),
    ],
    no_rows="the batch is packed; test_nn_functional.py compares each sequence with itself alone",
)


def backward_sample(sinks: Any, lse: Any, rule: tuple[Any, ...]) -> Any:
    """What forward gives goes in as literals."""
    rng = np.random.default_rng(3)
    q, k, v = (np.round(rng.uniform(-2, 2, spec.shape), 2) for spec in QKV)
    out = varlen(q, k, v, *(np.array(cu.value) for cu in CU), sinks, *rule)
    given = [A(q), A(k), A(v), *CU, None if sinks is None else A(sinks)]
    return S(T(6, 4, 6), lse, *given, *[A(x, grad=False) for x in out], *rule).but(grad=False, low=False)


op(
    "_varlen_attention_backward",
    varlen_backward,
    backward_sample(None, None, FULL),
    backward_sample(np.array([0.5, -1.0, 0.0, 1.5]), T(4, 6), (True, 0.5, 2, 1.5)),
    S(*[T(0, 2, 4), None], *[T(0, 2, 4)] * 3, A([0, 0]), A([0, 0]), None, T(0, 2, 4), T(2, 0), *FULL),
    tol=8,
    low_tol=2,
    scalar=False,
    noncontig=False,  # starts that are expanded do not rise
    no_rows="the batch is packed; test_nn_functional.py compares each sequence with itself alone",
)  # fmt: skip
