"""Order: sort, argsort, topk, kthvalue, unique, searchsorted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import INTS, A, B, E, I, S, T, op

NAN = math.nan
BAD_DIM = E(IndexError, "dim|range", T(3, 4), 2)


def sort_ref(
    x: np.ndarray, dim: int = -1, descending: bool = False, stable: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """NaN sorts as the largest value, equal values keep their order."""
    if x.ndim == 0:
        return x, np.zeros((), np.int64)
    if descending:  # a stable descending order is the stable ascending order of the reversed row, reversed
        back = np.flip(x, dim)
        order = np.flip(x.shape[dim] - 1 - np.argsort(back, axis=dim, kind="stable"), dim)
    else:
        order = np.argsort(x, axis=dim, kind="stable")
    return np.take_along_axis(x, order, dim), order


TIES = A([[2.0, 1.0, 2.0, 1.0, 2.0], [0.0, 0.0, -1.0, 0.0, 3.0]])
SAMPLES = [
    S(T(3, 4)),
    S(T(3, 4), 0),
    S(T(3, 4), -1, True),
    S(T()),
    S(T(0, 3)),
    S(T(2, 0), 1),
    S(T(2, 3, 5), dim=1, descending=True),
]
BIG = [S(T(300, 401)), S(T(300, 401), 0), S(T(70001))]
op(
    "sort",
    sort_ref,
    *SAMPLES,
    S(TIES, stable=True).but(grad=False),
    S(TIES, dim=1, descending=True, stable=True).but(grad=False),
    S(A([2.0, NAN, 1.0])).but(grad=False),
    S(A([2.0, NAN, 1.0]), descending=True).but(grad=False),
    ints=(),
    big=BIG,
    errors=[BAD_DIM],
    rows=[S(T(37, 129), 1)],
)
op(
    "argsort",
    lambda *a, **k: sort_ref(*a, **k)[1],
    *SAMPLES,
    S(TIES, stable=True),
    S(A([2.0, NAN, 1.0])),
    out="int64",
    grad=False,
    big=BIG,
    errors=[BAD_DIM],
    rows=[S(T(37, 129), 1)],
)


def topk(x: np.ndarray, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    values, order = sort_ref(x, dim, descending=largest)
    if x.ndim == 0:
        return values, order
    keep = np.arange(k)
    return np.take(values, keep, axis=dim), np.take(order, keep, axis=dim)


op(
    "topk",
    topk,
    S(T(3, 5), 2),
    S(T(3, 5), 2, 0),
    S(T(3, 5), 3, -1, False),
    S(T(3, 5), 0),
    S(T(), 1),
    S(T(0, 3), 2),
    S(T(4), k=4, largest=True),
    S(A([2.0, NAN, 1.0]), 2).but(grad=False),
    big=[S(T(300, 401), 8), S(T(3, 2000), 900), S(T(70001), 9)],
    rows=[S(T(37, 64), 6)],
    errors=[E(RuntimeError, "k|range", T(3), 4), E(IndexError, "dim|range", T(3), 1, 1)],
)
op(
    "kthvalue",
    lambda x, k, dim=-1, keepdim=False: tuple(
        np.take(p, [k - 1] if keepdim else k - 1, axis=dim) if x.ndim else p for p in sort_ref(x, dim)
    ),
    S(T(3, 5), 2),
    S(T(3, 5), 1, 0),
    S(T(3, 5), 5, -1, True),
    S(T(), 1),
    S(T(0, 3), 2),
    errors=[E((RuntimeError, IndexError), "k|range", T(3), 4), E((RuntimeError, IndexError), "k|range", T(3), 0)],
    rows=[S(T(37, 129), 40, 1)],
    big=[S(T(300, 401), 40)],
)


def unique(x: np.ndarray, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    out = [values] + [inverse.reshape(x.shape)] * return_inverse + [counts] * return_counts
    return out if len(out) > 1 else values


op(
    "unique",
    unique,
    S(A([3, 1, 2, 1, 3])),
    S(A([[1.0, 2.0], [2.0, 0.5]]), return_inverse=True),
    S(A([3, 1, 3]), True, True, True),
    S(A(2.0)),
    S(T(0)),
    S(T(6)),
    ints=INTS,
    grad=False,
    no_rows="one set of all elements",
    big=[S(T(70001))],
)
SORTED_ROWS = A(np.sort(np.random.default_rng(3).normal(size=(37, 20))), grad=False)
op(
    "searchsorted",
    lambda s, v, right=False: np.searchsorted(s, v, side="right" if right else "left"),
    S(A([1.0, 3.0, 5.0]), A([[0.0, 3.0], [6.0, 4.0]])),
    S(A([1, 3, 3, 5]), A([3, 4]), right=True),
    S(A([1.0, 2.0]), T(0)),
    S(A([1.0, 2.0]), A(1.5)),
    S(A([1.0, 2.0, 3.0]), T(4)),
    out="int64",
    grad=False,
    rows=[S(SORTED_ROWS, T(37, 30))],
    big=[S(A(np.linspace(-2, 2, 500)), T(300, 401))],
)


op(
    "bincount",
    lambda x, weights=None, minlength=0: np.bincount(x, weights, minlength),
    S(A([0, 1, 1, 3])),
    S(A(np.array([3, 250, 3], np.uint8))),
    S(A([0, 1, 1]), A(np.array([5, 1, 2], np.int32))),
    S(A([0, 2]), minlength=5),
    S(A([0, 1, 1]), A([0.5, 1.0, 2.0], grad=False)),
    S(A(np.array([], np.int64))),
    grad=False,
    scalar=False,
    floats=("float64",),
    low=(),
    errors=[
        E(RuntimeError, "negative", A([-1])),
        E(RuntimeError, "1-d", A([[1]])),
        E(RuntimeError, "1-d", T(3)),
        E(RuntimeError, "minlength", A([1]), minlength=-1),
        E(RuntimeError, "same length", A([1]), T(2)),
        E(RuntimeError, "too large", A([2**63 - 1])),
        E(NotImplementedError, "bool", B(3)),
        E(TypeError, "Tensor", [1, 2]),
    ],
    no_rows="counts over all elements",
    big=[S(I(70001, hi=50), T(70001, grad=False)), S(I(70001, hi=50)), S(I(70001, hi=5000))],
)
op(
    "msort",
    lambda x: sort_ref(x, 0)[0] if x.ndim else x,
    S(T(4)),
    S(T(3, 4)),
    S(T()),
    S(T(0, 3)),
    S(A([2.0, NAN, 1.0])).but(grad=False),
    ints=INTS,
    big=[S(T(300, 401))],
    no_rows="sorts along the first dim",
)


def places(s: np.ndarray, v: np.ndarray, right: bool = False, out_int32: bool = False) -> np.ndarray:
    """Row by row; a 1-d sequence serves all rows."""
    side = "right" if right else "left"
    if s.ndim == 1:
        found = np.searchsorted(s, v, side=side)
    else:
        rows = [np.searchsorted(s[i], v[i], side=side) for i in np.ndindex(s.shape[:-1])]
        found = np.reshape(rows, v.shape)
    return np.asarray(found).astype(np.int32 if out_int32 else np.int64)


SORTED = A([[1.0, 3.0, 5.0], [0.0, 2.0, 2.0]])
op(
    "_searchsorted",
    places,
    S(A([1.0, 3.0, 5.0]), A([[0.0, 3.0], [6.0, 4.0]])),
    S(SORTED, A([[0.5, 3.0], [2.0, 4.0]])),
    S(SORTED, A([[0.5, 3.0], [2.0, 4.0]]), True, True).but(ints=False),
    S(A([1.0, 2.0]), T(0)),
    S(A([1.0, 2.0]), A(1.5)),
    out="int64",
    grad=False,
    errors=[E(RuntimeError, "dtype", A([1.0, 2.0]), A([1])), E(RuntimeError, "match", SORTED, A([1.0]))],
    rows=[S(SORTED_ROWS, T(37, 30))],
)
op(
    "bucketize",
    lambda v, s, *, out_int32=False, right=False: places(s, v, right, out_int32),
    S(A([[0.0, 3.0], [6.0, 4.0]]), A([1.0, 3.0, 5.0])),
    S(A([3.0, 4.0]), A([1.0, 3.0, 3.0, 5.0]), right=True),
    S(T(0), A([1.0, 2.0])),
    S(A(1.5), A([1.0, 2.0])),
    out="int64",
    grad=False,
    errors=[E(RuntimeError, "1 dim", T(3), SORTED)],
)
