"""Attention over a cache of int8."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import A, B, E, I, S, T, op
from .attention import attention_and_lse


def in_16_bits(q: np.ndarray) -> np.ndarray:
    """As the kernel takes queries, in float32."""
    q = q.astype(np.float32)
    most = np.abs(q).max(-1, keepdims=True, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(most > 0, np.rint(q * (np.float32(32639) / most)), 0)
    return codes.astype(float) * (most / np.float32(32639)).astype(float)


def attention_int8(
    q: np.ndarray, k: np.ndarray, k_scale: np.ndarray, v: np.ndarray, v_scale: np.ndarray, mask: Any, sinks: Any,
    causal: bool, scale: float, window: int, cap: float, start: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    k, v = (
        x.astype(float) * scale.astype(np.float32).astype(float)[..., None] for x, scale in ((k, k_scale), (v, v_scale))
    )
    return attention_and_lse(in_16_bits(q), k, v, mask, causal, scale, True, window, cap, sinks, start)


def codes(*sizes: int) -> Any:
    return I(*sizes, lo=-127, hi=128, dtype="int8")


def scales(*sizes: int) -> Any:
    return T(*sizes, lo=0.005, hi=0.02, grad=False)


CACHE = (codes(1, 2, 5, 4), scales(1, 2, 5), codes(1, 2, 5, 6), scales(1, 2, 5))
Q = T(1, 4, 3, 4, grad=False)
FULL = (False, 0.5, 0, 0.0, 0)  # is_causal, scale, window, softcap, query_start
op(
    "_attention_int8",
    attention_int8,
    S(Q, *CACHE, None, None, *FULL),
    S(Q, *CACHE, A([[True, False, True, True, False]] * 3), T(4, grad=False), *FULL),
    S(Q, *CACHE, T(3, 5, grad=False), None, False, 0.5, 0, 1.5, 0),
    S(Q, *CACHE, None, None, True, 0.5, 2, 0.0, 1),
    S(T(0, 2, 3, 4), codes(0, 2, 5, 4), scales(0, 2, 5), codes(0, 2, 5, 4), scales(0, 2, 5), None, None, *FULL),
    S(T(1, 2, 3, 4), codes(1, 2, 0, 4), scales(1, 2, 0), codes(1, 2, 0, 4), scales(1, 2, 0), None, None, *FULL),
    grad=False,
    gradgrad=False,
    tol=4,
    low_tol=4,
    scalar=False,
    zero_size=False,
    errors=[
        E(RuntimeError, "must be int8", Q, T(1, 2, 5, 4), CACHE[1], T(1, 2, 5, 6), CACHE[3], None, None, *FULL),
        E(RuntimeError, "shapes do not match", Q, codes(1, 2, 5, 3), *CACHE[1:], None, None, *FULL),
        E(RuntimeError, "key_scale must be floating .* one number a row", Q, CACHE[0], T(1, 2, 4), *CACHE[2:], None,
          None, *FULL),
        E(RuntimeError, "value_scale must be floating", Q, *CACHE[:3], I(1, 2, 5), None, None, *FULL),
        E(NotImplementedError, "int64 queries", I(1, 4, 3, 4), *CACHE, None, None, *FULL),
        E(RuntimeError, "does not broadcast", Q, *CACHE, B(4, 5), None, *FULL),
        E(RuntimeError, "one for each query head", Q, *CACHE, None, T(3), *FULL),
        E(RuntimeError, "negative", Q, *CACHE, None, None, False, 0.5, -1, 0.0, 0),
        E(RuntimeError, "32768 numbers", T(1, 1, 1, 32769), codes(1, 1, 1, 32769), T(1, 1, 1), codes(1, 1, 1, 1),
          T(1, 1, 1), None, None, *FULL),
    ],
    rows=[S(T(9, 4, 20, 32), codes(9, 2, 140, 32), scales(9, 2, 140), codes(9, 2, 140, 24), scales(9, 2, 140), None,
            T(4), True, 1 / math.sqrt(32), 0, 0.0, 120)],
)  # fmt: skip
