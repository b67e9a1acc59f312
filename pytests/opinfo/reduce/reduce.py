"""Reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import DT, INTS, INTS_BOOL, SIGNED, A, B, E, S, T, op

NAN, INF = math.nan, math.inf
BIG = [S(T(257, 300)), S(T(257, 300), 0), S(T(257, 300), 1), S(T(7, 40, 301), 1)]
BAD_DIM = E(IndexError, r"dim|range", T(3, 4), 2)


def axes(dim: Any) -> Any:
    return (
        tuple(dim) if isinstance(dim, (list, tuple)) and len(dim) else None if isinstance(dim, (list, tuple)) else dim
    )


def np_reduce(f: Callable[..., Any]) -> Callable[..., Any]:
    """A numpy reduction with torch's argument names."""

    def ref(x: np.ndarray, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        if dtype is not None:
            x = x.astype(dtype)
        return f(x, axis=axes(dim), keepdims=keepdim) if x.ndim else f(x)

    return ref


SHAPES = [
    S(T(3, 4)),
    S(T(3, 4), 0),
    S(T(3, 4), -1, True),
    S(T(2, 3, 4), 1),
    S(T(), 0),
    S(T()),
    S(T(5), dim=0, keepdim=True),
]
MULTI = [S(T(2, 3, 4), [0, 2]), S(T(2, 3, 4), (1, -1), True), S(T(2, 3, 2), dim=[0, 1, 2])]
EMPTY = [S(T(0, 3), 0), S(T(0, 3), 1), S(T(2, 0))]
NANS = [S(A([[1.0, NAN], [3.0, 2.0]]), 1).but(grad=False, low=False), S(A([INF, 1.0, -INF])).but(grad=False)]

op(
    "sum",
    np_reduce(np.sum),
    *SHAPES,
    *MULTI,
    *EMPTY,
    *NANS,
    S(T(3, 4), dtype=DT("float64")),
    out="sum",
    ints=INTS_BOOL,
    int_range=(-4, 5),
    big=BIG,
    rows=[S(T(37, 129), 1)],
    errors=[BAD_DIM, E(RuntimeError, "dim|multiple|appears", T(2, 3), [0, 0])],
)
op(
    "mean",
    np_reduce(np.mean),
    *SHAPES,
    *MULTI,
    S(T(0, 3), 1),
    S(T(0, 3), 0).but(grad=False),
    *NANS,
    big=BIG,
    rows=[S(T(37, 129), 1)],
    errors=[BAD_DIM, E(RuntimeError, "float", A([1, 2, 3]))],
)
op(
    "prod",
    np_reduce(np.prod),
    *SHAPES,
    S(T(0, 3), 0),
    S(T(0, 3), 1),
    *NANS,
    S(A([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0], [1.0, 2.0, 3.0]]), 1).but(low=False),
    S(A([2.0, 0.0, 3.0])).but(low=False),
    out="sum",
    ints=INTS_BOOL,
    tol=2,
    errors=[BAD_DIM],
    big=[S(T(257, 20, lo=0.9, hi=1.1), 1)],
    rows=[S(T(37, 129, lo=0.9, hi=1.1), 1)],
)
for _name, _f in {"amax": np.max, "amin": np.min}.items():
    op(
        _name,
        np_reduce(_f),
        *SHAPES,
        *MULTI,
        *NANS,
        S(T(0, 3), 1),
        S(A([1.0, 2.0, 2.0]), 0).but(grad=False),
        ints=INTS_BOOL,
        big=BIG,
        rows=[S(T(37, 129), 1)],
        errors=[BAD_DIM, E((IndexError, RuntimeError), "zero|empty|reduction|size|numel", T(0, 3), 0)],
    )


def value_and_index(pick: Callable[..., Any]) -> Callable[..., Any]:
    """max/min of torch: all elements, along a dim (values and indices), or elementwise with another tensor."""

    def ref(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> Any:
        extreme, arg, both = (np.max, np.argmax, np.maximum) if pick is max else (np.min, np.argmin, np.minimum)
        if dim is None:
            return extreme(x)
        if isinstance(dim, np.ndarray):
            return both(x, dim)
        if x.ndim == 0:
            return x, np.int64(0)
        return extreme(x, axis=dim, keepdims=keepdim), arg(x, axis=dim, keepdims=keepdim)

    return ref


for _name, _pick in {"max": max, "min": min}.items():
    op(
        _name,
        value_and_index(_pick),
        S(T(3, 4)),
        S(T()),
        S(T(), 0),
        S(T(3, 4), 0),
        S(T(3, 4), -1, True),
        S(T(2, 3, 4), dim=1, keepdim=False),
        S(T(0, 3), 1),
        S(T(3, 4), T(4)),
        *NANS,
        S(A([[1.0, 5.0, 5.0], [5.0, 1.0, 5.0]]), 1).but(grad=False),
        ints=INTS_BOOL,
        big=BIG,
        rows=[S(T(37, 129), 1)],
        errors=[BAD_DIM, E((IndexError, RuntimeError), "zero|empty|numel|dim", T(0, 3), 0)],
    )


def np_arg(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, dim=None, keepdim=False: (
        f(x, axis=dim, keepdims=keepdim)
        if x.ndim and dim is not None
        else f(x, axis=None, keepdims=keepdim)
        if x.ndim
        else np.int64(0)
    )


for _name, _f in {"argmax": np.argmax, "argmin": np.argmin}.items():
    op(
        _name,
        np_arg(_f),
        S(T(3, 4)),
        S(T(3, 4), 0),
        S(T(3, 4), -1, True),
        S(T()),
        S(T(2, 3, 4), dim=1),
        S(T(0, 3), 1),
        *NANS,
        S(A([[1.0, 5.0, 5.0], [2.0, 1.0, 2.0]]), 1),
        out="int64",
        grad=False,
        ints=INTS,
        big=BIG,
        rows=[S(T(37, 129), 1)],
        errors=[BAD_DIM, E((IndexError, RuntimeError), "zero|empty|dim|numel", T(0, 3), 0)],
    )

for _name, _f in {"any": np.any, "all": np.all}.items():
    op(
        _name,
        np_reduce(_f),
        S(B(3, 4)),
        S(B(3, 4), 0),
        S(B(3, 4), -1, True),
        S(B()),
        S(B(0, 3), 0),
        S(B(0, 3)),
        S(A([0.0, NAN])),
        S(A([[0.0, 1.0], [2.0, 3.0]]), 1),
        S(T(2, 3), 1),
        S(A([0, 0, 2])),
        out="bool",
        grad=False,
        ints=(*SIGNED, "bool"),
        big=[S(B(257, 300)), S(B(257, 300), 1)],
        rows=[S(B(37, 129), 1)],
        errors=[BAD_DIM],
    )


NANSUM = [*SHAPES, *MULTI, *EMPTY, S(A([[1.0, NAN, 2.0], [NAN, NAN, 4.0]]), 1).but(low=False, grad=False)]
op(
    "nansum",
    np_reduce(np.nansum),
    *NANSUM,
    S(T(3, 4), dtype=DT("float64")),
    out="sum",
    ints=INTS_BOOL,
    big=BIG,
    rows=[S(T(37, 129), 1)],
    errors=[BAD_DIM, E(RuntimeError, "dim|multiple|appears", T(2, 3), [0, 0])],
)
op(
    "nanmean",
    np_reduce(np.nanmean),
    *SHAPES,
    *MULTI,
    S(T(0, 3), 1),
    S(A([[1.0, NAN, 2.0], [5.0, NAN, 4.0]]), 1).but(low=False, grad=False),
    S(A([NAN, NAN])).but(grad=False),
    S(T(3, 4), dtype=DT("float64")),
    big=BIG,
    rows=[S(T(37, 129), 1)],
    errors=[BAD_DIM],
)


def spread(f: Callable[..., Any]) -> Callable[..., Any]:
    """np.var / np.std with torch's `unbiased` and `correction`; too few values give NaN or inf as torch does."""

    def ref(
        x: np.ndarray, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
    ) -> Any:
        ddof = float(unbiased) if correction is None else correction
        axis = axes(dim)
        n = x.size if axis is None else math.prod(x.shape[a] for a in ((axis,) if isinstance(axis, int) else axis))
        if x.size and n > ddof:
            return f(x, axis=axis, ddof=ddof, keepdims=keepdim)
        return np.mean(x, axis=axis, keepdims=keepdim) * NAN

    return ref


VAR = [
    S(T(3, 4)),
    S(T(3, 4), 0),
    S(T(3, 4), dim=-1, keepdim=True),
    S(T(3, 4), dim=1, correction=0),
    S(T(2, 3, 4), dim=[0, 2]),
    S(T(3, 4), dim=0, correction=2),
    S(T()).but(grad=False),
    S(T(0, 3), 0).but(grad=False),
    S(T(0, 3), dim=1),
]
op("var", spread(np.var), *VAR, tol=4, big=BIG, rows=[S(T(37, 129), 1)], errors=[BAD_DIM])
op("std", spread(np.std), *VAR, tol=4, big=BIG, rows=[S(T(37, 129), 1)], errors=[BAD_DIM])


def norm(x: np.ndarray, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    axis = axes(dim)
    p = 2 if p in ("fro", None) else p
    a = np.abs(x)
    if p in (INF, -INF):
        return (np.max if p > 0 else np.min)(a, axis=axis, keepdims=keepdim)
    if p == 0:
        return np.sum(a != 0, axis=axis, keepdims=keepdim).astype(float)
    return np.sum(a**p, axis=axis, keepdims=keepdim) ** (1 / p)


op(
    "norm",
    norm,
    S(T(3, 4)),
    S(T(3, 4), 2, 1),
    S(T(3, 4), 1),
    S(T(3, 4), INF, 0),
    S(T(3, 4), -INF, 0),
    S(T(3, 4), 3.0, 1, True),
    S(T(2, 3, 4), p=2, dim=[0, 2]),
    S(T()),
    S(T(0, 3), 2, 0),
    S(T(4), 0).but(grad=False),
    S(T(3, 4), p=0.5, dim=1).but(gradgrad=False),
    tol=4,
    big=[S(T(257, 300)), S(T(257, 300), 2, 1)],
    rows=[S(T(37, 129), 2, 1)],
    errors=[E(IndexError, "dim|range", T(3, 4), 2, 2)],
)


op(
    "dist",
    lambda x, other, p=2: norm(x - other, p),
    S(T(3, 4), T(3, 4, lo=3, hi=5)),
    S(T(3, 4), T(4, lo=3, hi=5), 1.0),
    S(T(3, 4), T(3, 1, lo=3, hi=5), p=INF),
    S(T(3), T(3, lo=3, hi=5), 3.0),
    S(T(4), T(4), 0.0).but(grad=False),
    S(T(), T(lo=3, hi=5)),
    S(T(0, 3), T(0, 3)),
    tol=4,
    no_rows="one number",
    big=[S(T(257, 300), T(257, 300))],
    errors=[E(RuntimeError, "size", T(3), T(4)), E(RuntimeError, "floating", A([1, 2]), A([3, 4]))],
)


def logsumexp(x: np.ndarray, dim: Any, keepdim: bool = False) -> Any:
    axis = axes(dim)
    if x.size == 0:
        return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdim))
    top = np.max(x, axis=axis, keepdims=True) if x.ndim else x
    top = np.where(np.isfinite(top), top, 0)
    out = np.log(np.sum(np.exp(x - top), axis=axis if x.ndim else None, keepdims=True)) + top
    return out if keepdim or not x.ndim else np.squeeze(out, axis=axis)


op(
    "logsumexp",
    logsumexp,
    S(T(3, 4), 1),
    S(T(3, 4), 0, True),
    S(T(2, 3, 4), [0, 2]),
    S(T(), 0),
    S(T(0, 3), 1),
    S(T(0, 3), 0).but(grad=False),
    S(A([[1000.0, 1000.0], [-1000.0, 0.0]]), 1).but(grad=False),
    S(A([[-INF, -INF], [INF, 1.0], [NAN, 1.0]]), 1).but(grad=False),
    big=[S(T(257, 300), 1), S(T(257, 300), 0)],
    rows=[S(T(37, 129), 1)],
    errors=[BAD_DIM],
)


def median(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> Any:
    """The lower of the two middle values; NaN wins."""

    def one(row: np.ndarray) -> tuple[Any, int]:
        bad = np.flatnonzero(np.isnan(row)) if row.dtype.kind == "f" else np.array([], int)
        if bad.size:
            return NAN, int(bad[0])
        where = int(np.argsort(row, kind="stable")[(row.size - 1) // 2])
        return row[where], where

    if dim is None:
        return one(x.reshape(-1))[0] if x.size else NAN
    if x.ndim == 0:
        return x, np.int64(0)
    moved = np.moveaxis(x, dim, -1)
    found = [one(row) for row in moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])]
    values = np.array([v for v, _ in found], dtype=x.dtype).reshape(moved.shape[:-1])
    places = np.array([i for _, i in found], dtype=np.int64).reshape(moved.shape[:-1])
    return (np.expand_dims(values, dim), np.expand_dims(places, dim)) if keepdim else (values, places)


op(
    "median",
    median,
    S(T(3, 4)),
    S(T(5)),
    S(T(3, 4), 0).but(noncontig=False),
    S(T(3, 5), -1, True),
    S(T()),
    S(T(), 0),
    S(T(0, 3), 1),
    S(A([1.0, NAN, 2.0])).but(grad=False),
    S(A([[1.0, NAN, 2.0], [3.0, 1.0, 2.0]]), 1).but(grad=False),
    S(A([4, 1, 3, 2])),
    big=[S(T(257, 301), 1)],
    errors=[BAD_DIM, E(IndexError, "zero|empty|dim", T(0, 3), 0)],
    rows=[S(T(37, 129), 1)],
)


def both(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, dim=None, keepdim=False, correction=None: (
        spread(f)(x, dim, keepdim=keepdim, correction=correction),
        np.mean(x, axis=axes(dim), keepdims=keepdim),
    )


op("var_mean", both(np.var), *VAR, tol=4, errors=[BAD_DIM], rows=[S(T(37, 129), 1)], big=BIG)
op("std_mean", both(np.std), *VAR, tol=4, errors=[BAD_DIM], rows=[S(T(37, 129), 1)], big=BIG)
op(
    "_vector_norm",
    norm,
    S(T(3, 4)),
    S(T(3, 4), 1.0, [1]),
    S(T(3, 4), INF, [0]),
    S(T(3, 4), 3.0, [1], True),
    S(T()),
    S(T(0, 3), 2.0, [0]),
    S(T(4), 0.0).but(grad=False),
    S(T(3, 4), -INF, [0]),
    tol=4,
    big=[S(T(257, 300))],
    rows=[S(T(37, 129), 2.0, [1]), S(T(37, 129), 3.0, [1])],
)


def sum_to_size(x: np.ndarray, size: Any) -> np.ndarray:
    lead = x.ndim - len(size)
    x = x.sum(axis=tuple(range(lead)))
    return x.sum(axis=tuple(i for i, n in enumerate(size) if n == 1), keepdims=True)


op(
    "sum_to_size",
    sum_to_size,
    S(T(2, 3, 4), [3, 1]),
    S(T(3, 4), [3, 4]),
    S(T(), []),
    S(T(0, 3), [1, 3]),
    out="sum",
    ints=("int64",),
    errors=[E(RuntimeError, "expand|size", T(3, 4), [2])],
    no_rows="sums over the leading dims",
    big=[S(T(257, 300), [300]), S(T(257, 300), [257, 1])],
)
