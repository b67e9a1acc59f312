"""Running sums and extremes along a dim, and differences of neighbours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..core import DT, INTS_BOOL, A, E, S, Sample, T, op
from .reduce import BAD_DIM, INF, NAN


def scan(f: Callable[..., Any]) -> Callable[..., Any]:
    def ref(x: np.ndarray, dim: int, *, dtype: Any = None) -> Any:
        x = x.astype(dtype) if dtype is not None else x
        return f(x, axis=dim) if x.ndim else f(x).reshape(())

    return ref


SCAN: list[Sample] = [
    S(T(3, 4), 0),
    S(T(3, 4), -1),
    S(T(2, 3, 4), 1),
    S(T(), 0),
    S(T(0, 3), 0),
    S(T(2, 0), 1),
    S(A([[1.0, NAN, 2.0], [INF, 1.0, -INF]]), 1).but(grad=False),
]
op(
    "cumsum",
    scan(np.cumsum),
    *SCAN,
    S(T(3), 0, dtype=DT("float64")),
    out="sum",
    ints=INTS_BOOL,
    errors=[BAD_DIM],
    big=[S(T(257, 300), 1), S(T(257, 300), 0)],
    rows=[S(T(37, 129), 1)],
)
op(
    "cumprod",
    scan(np.cumprod),
    *SCAN,
    S(A([[1.0, 0.0, 2.0, 0.0, 3.0]]), 1).but(low=False),
    out="sum",
    ints=INTS_BOOL,
    errors=[BAD_DIM],
    big=[S(T(257, 30, lo=0.9, hi=1.1), 1)],
    rows=[S(T(37, 129, lo=0.9, hi=1.1), 1)],
)


def running_extreme(x: np.ndarray, dim: int, beats: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and the latest position of each; NaN wins."""
    if x.ndim == 0:
        return x, np.zeros((), np.int64)
    values, where = np.array(x), np.zeros(x.shape, np.int64)
    rows, found = np.moveaxis(values, dim, -1), np.moveaxis(where, dim, -1)
    for at in np.ndindex(rows.shape[:-1]):
        best = 0
        for i, v in enumerate(rows[at].tolist()):
            old = rows[at][best]
            if i and (v != v or (old == old and beats(v, old))):
                best = i
            rows[(*at, i)], found[(*at, i)] = rows[at][best], best
    return values, where


TIES = A([[1.0, 3.0, 3.0, 2.0, 3.0]])
for _name, _beats in {"cummax": lambda v, old: v >= old, "cummin": lambda v, old: v <= old}.items():
    op(
        _name,
        partial(running_extreme, beats=_beats),
        *SCAN[:-1],
        S(TIES, 1).but(grad=False),
        S(A([[1.0, NAN, 2.0], [INF, 1.0, -INF]]), 1).but(grad=False),
        ints=INTS_BOOL,
        errors=[BAD_DIM],
        big=[S(T(257, 300), 1), S(T(257, 300), 0)],
        rows=[S(T(37, 129), 1)],
    )
op(
    "logcumsumexp",
    lambda x, dim: np.logaddexp.accumulate(x, dim) if x.ndim else x,
    *SCAN[:-1],
    S(A([[1000.0, 999.0, -1000.0]]), 1).but(low=False, grad=False),
    S(A([[-INF, -INF, 1.0], [INF, 1.0, 2.0], [1.0, NAN, 2.0]]), 1).but(grad=False),
    tol=4,
    errors=[BAD_DIM],
    big=[S(T(257, 300), 1), S(T(257, 300), 0)],
    rows=[S(T(37, 129), 1)],
)


def diff(x: np.ndarray, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> np.ndarray:
    x = np.concatenate([t for t in (prepend, x, append) if t is not None], dim)
    return np.diff(x, n, dim) if x.shape[dim] else x


op(
    "diff",
    diff,
    S(T(3, 4)),
    S(T(3, 4), 2),
    S(T(3, 4), 1, 0),
    S(T(4), 0),
    S(T(3, 4), 5),
    S(T(3, 4), prepend=T(3, 1)),
    S(T(3, 4), 2, 0, T(1, 4), T(2, 4)),
    S(T(3, 4), append=T(3, 2)),
    S(T(0, 3)),
    S(T(2, 0)),
    ints=INTS_BOOL,
    scalar=False,
    big=[S(T(257, 300))],
    rows=[S(T(37, 129))],
    errors=[
        E(RuntimeError, "at least one-dimensional", T()),
        E(RuntimeError, "non-negative but got -1", T(3), -1),
        E(IndexError, "range", T(3), 1, 1),
    ],
)
