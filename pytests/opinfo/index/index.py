"""Gather, scatter and masks. References are plain loops: one element at a time, as the definitions read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core import INTS, INTS_BOOL, A, B, E, I, S, T, op

MOVE: dict[str, Any] = {"ints": INTS_BOOL, "tol": 1e-6}


def places(index: np.ndarray, dim: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(where in the index, the same place with the index's value put in at `dim`)."""
    for at in np.ndindex(index.shape):
        to = list(at)
        if at:
            to[dim] = int(index[at])
        yield at, tuple(to)


def gather(x: np.ndarray, dim: int, index: np.ndarray) -> np.ndarray:
    out = np.empty(index.shape, x.dtype)
    for at, source in places(index, dim):
        out[at] = x[source]
    return out


def scatter(
    x: np.ndarray, dim: int, index: np.ndarray, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> np.ndarray:
    src = value if src is None else src
    out = np.array(x)
    for at, to in places(index, dim):
        new = src[at] if isinstance(src, np.ndarray) else src
        out[to] = new if reduce is None else out[to] + new if reduce == "add" else out[to] * new
    return out


def scatter_multiply(x: np.ndarray, dim: int, index: np.ndarray, src: Any) -> np.ndarray:
    return scatter(x, dim, index, src, reduce="multiply")


def scatter_add(x: np.ndarray, dim: int, index: np.ndarray, src: np.ndarray) -> np.ndarray:
    out = np.array(x)
    for at, to in places(index, dim):
        out[to] += src[at]
    return out


RANGE = r"range|bounds"
op(
    "gather",
    gather,
    S(T(3, 4), 1, I(3, 2, hi=4)),
    S(T(3, 4), 0, I(5, 4, hi=3)),
    S(T(3, 4), -1, I(2, 6, hi=4)),
    S(T(), 0, I(hi=1)),
    S(T(3, 4), 1, I(0, 4, hi=4)),
    S(T(0, 3), 0, I(0, 3, hi=1)),
    S(T(4), 0, A([1, 1, 1])),
    **MOVE,
    big=[S(T(300, 401), 1, I(300, 401, hi=401))],
    errors=[
        E((RuntimeError, IndexError), RANGE, T(3), 0, A([3])),
        E(RuntimeError, "dim|same number", T(3, 4), 0, A([0])),
        E(RuntimeError, "int64|index", T(3), 0, A([0.0], dtype="float32")),
        E(RuntimeError, "size", T(3, 2), 0, I(1, 4, hi=1)),
    ],
    rows=[S(T(37, 65), 1, I(37, 40, hi=65))],
)
op(
    "scatter",
    scatter,
    S(T(3, 4), 0, A([[0, 1, 2, 0]]), T(1, 4)),
    S(T(3, 5), 1, A([[4, 0], [1, 2]]), T(2, 2)),
    S(T(3, 5), 1, A([[4, 0], [1, 2]]), T(2, 3, grad=False)),
    S(T(4), 0, A([2, 0]), 1.5).but(ints=False),
    S(T(4), 0, A([2, 0]), value=1.5).but(ints=False),
    S(T(4), 0, A([2, 2]), T(2), reduce="add"),
    S(T(4), 0, A([2, 0]), T(2), reduce="multiply").but(grad=False),
    S(T(4), 0, A([2, 0]), value=1.5, reduce="add").but(ints=False, grad=False),
    S(T(), 0, A(0), T()),
    S(T(3, 4), 0, I(0, 4, hi=1), T(1, 4)),
    S(T(0, 3), 1, I(0, 2, hi=2), T(0, 2)),
    **MOVE,
    errors=[
        E((RuntimeError, IndexError), RANGE, T(3), 0, A([3]), T(1)),
        E(RuntimeError, "size|shape", T(3), 0, A([0, 1]), T(1)),
    ],
    rows=[S(T(37, 65), 1, I(37, 40, hi=65, unique=False), T(37, 40), reduce="add")],
    big=[
        S(T(300, 401), 1, I(300, 401, hi=401), T(300, 401), reduce="add"),
        S(T(300, 401), 0, I(1, 401, hi=300), T(1, 401)),
    ],
)
op(
    "_scatter_multiply",
    scatter_multiply,
    S(T(4), 0, A([2, 2]), T(2)),
    S(T(0, 3), 1, I(0, 2, hi=2), T(0, 2)),
    grad=False,
    tol=1,
    scalar=False,
    rows=[S(T(37, 65), 1, I(37, 40, hi=65), T(37, 40))],
)
op(
    "scatter_add",
    scatter_add,
    S(T(3, 4), 0, A([[0, 1, 2, 0], [0, 1, 0, 0]]), T(2, 4)),
    S(T(3, 5), 1, A([[4, 4, 4], [1, 1, 2]]), T(2, 3)),
    S(T(), 0, A(0), T()),
    S(T(3, 4), 0, I(0, 4, hi=1), T(1, 4)),
    S(T(0, 3), 1, I(0, 2, hi=2), T(0, 2)),
    ints=INTS,
    big=[S(T(50, 401), 0, I(300, 401, hi=50), T(300, 401))],
    errors=[
        E((RuntimeError, IndexError), RANGE, T(3), 0, A([3]), T(1)),
        E(RuntimeError, "size|shape", T(3), 0, A([0, 1]), T(1)),
    ],
    rows=[S(T(37, 65), 1, I(37, 80, hi=65), T(37, 80))],
)


def index_select(x: np.ndarray, dim: int, index: np.ndarray) -> np.ndarray:
    return np.take(x, index, axis=dim) if x.ndim else x


op(
    "index_select",
    index_select,
    S(T(3, 4), 0, A([2, 0, 2])),
    S(T(3, 4), -1, A([1])),
    S(T(3, 4), 1, I(0, hi=1)),
    S(T(0, 3), 1, A([0, 2])),
    S(T(), 0, A([0])),
    S(T(5), 0, A([4, 4, 0])),
    **MOVE,
    big=[S(T(300, 401), 0, I(500, hi=300))],
    errors=[
        E((IndexError, RuntimeError), RANGE, T(3), 0, A([3])),
        E((IndexError, RuntimeError), "1-D|vector|dim", T(3), 0, A([[0]])),
    ],
    rows=[S(T(37, 65), 1, I(40, hi=65))],
)


def lines(x: np.ndarray, dim: int, i: int) -> tuple[Any, ...]:
    where: list[Any] = [slice(None)] * x.ndim
    if x.ndim:
        where[dim] = i
    return tuple(where)


def index_add(x: np.ndarray, dim: int, index: np.ndarray, source: np.ndarray, *, alpha: float = 1) -> np.ndarray:
    out = np.array(x)
    for k, i in enumerate(index):
        out[lines(x, dim, int(i))] += (alpha * source[lines(source, dim, k)]).astype(x.dtype)
    return out


def index_copy(x: np.ndarray, dim: int, index: np.ndarray, source: np.ndarray) -> np.ndarray:
    out = np.array(x)
    for k, i in enumerate(index):
        out[lines(x, dim, int(i))] = source[lines(source, dim, k)]
    return out


op(
    "index_add",
    index_add,
    S(T(3, 4), 0, A([2, 0, 2]), T(3, 4)),
    S(T(3, 4), -1, A([1, 1]), T(3, 2)),
    S(T(3, 4), 0, A([1]), T(1, 4), alpha=2),
    S(A([5, 6]), 0, A([1, 1]), A([1, 3]), alpha=2**53 + 1).but(ints=False),
    S(T(4), 0, I(0, hi=1), T(0)),
    S(T(0, 3), 1, A([0]), T(0, 1)),
    ints=INTS,
    scalar=False,
    big=[S(T(50, 401), 0, I(400, hi=50), T(400, 401))],
    errors=[
        E((IndexError, RuntimeError), RANGE, T(3), 0, A([3]), T(1)),
        E((IndexError, RuntimeError), "size|shape|match|number", T(3), 0, A([0, 1]), T(3)),
        E(RuntimeError, "floating point", A([1]), 0, A([0]), A([1]), alpha=0.5),
    ],
    rows=[
        S(T(37, 65), 1, I(80, hi=65), T(37, 80)),
        S(T(37, 65), 1, I(80, hi=65), T(37, 80), alpha=0.3).but(ints=False),
    ],
)
op(
    "index_copy",
    index_copy,
    S(T(3, 4), 0, A([2, 0]), T(2, 4)),
    S(T(3, 4), -1, A([1, 3]), T(3, 2)),
    S(T(4), 0, I(0, hi=1), T(0)),
    S(T(0, 3), 1, A([0]), T(0, 1)),
    **MOVE,
    scalar=False,
    errors=[E((IndexError, RuntimeError), RANGE, T(3), 0, A([3]), T(1))],
    rows=[S(T(37, 65), 1, I(40, hi=65, unique=True), T(37, 40))],
    big=[S(T(300, 401), 0, I(200, hi=300, unique=True), T(200, 401))],
)


def index_fill(x: np.ndarray, dim: int, index: np.ndarray, value: Any) -> np.ndarray:
    out = np.array(x)
    for i in index:
        out[lines(x, dim, int(i))] = value
    return out


op(
    "index_fill",
    index_fill,
    S(T(3, 4), 0, A([2, 0]), 1.5).but(ints=False),
    S(T(3, 4), 1, A([1]), -2.0).but(ints=False),
    S(T(0, 3), 1, A([0]), 1),
    scalar=False,
    errors=[E((IndexError, RuntimeError), RANGE, T(3), 0, A([3]), 1.0)],
    rows=[S(T(37, 65), 1, I(40, hi=65), 2.0)],
)


def index_put(x: np.ndarray, indices: Any, values: np.ndarray, accumulate: bool = False) -> np.ndarray:
    out = np.array(x)
    where = tuple(indices)
    if accumulate:
        np.add.at(out, where, values)
    else:
        out[where] = values
    return out


op(
    "index_put",
    index_put,
    S(T(3, 4), [A([0, 2]), A([1, 3])], T(2)),
    S(T(3, 4), [A([0, 2])], T(2, 4)),
    S(T(3, 4), [A([0, 0, 1])], T(3, 4), True),
    S(T(3, 4), [A([0, 0])], T(), accumulate=True),
    S(T(3, 4), [B(3, 4)], T()),
    S(T(3, 4), [I(0, hi=1)], T(0, 4)),
    S(T(3), [A([-1])], T(1)),
    S(T(0, 3), [I(0, hi=1)], T(0, 3)),
    ints=INTS,
    scalar=False,
    big=[S(T(50, 401), [I(400, hi=50)], T(400, 401), True)],
    errors=[
        E(IndexError, RANGE, T(3), [A([3])], T(1)),
        E((RuntimeError, IndexError), "shape|size|broadcast", T(3, 4), [A([0, 1])], T(3, 4)),
        E(IndexError, "too many|indices|dim", T(3), [A([0]), A([0])], T(1)),
    ],
    no_rows="indices are of the whole tensor",
)
op(
    "masked_select",
    lambda x, mask: np.broadcast_arrays(x, mask)[0][np.broadcast_arrays(x, mask)[1]],
    S(T(3, 4), B(3, 4)),
    S(T(3, 4), B(4)),
    S(T(4), B(3, 4)),
    S(T(), A(True)),
    S(T(0, 3), B(3)),
    S(T(3), A([False, False, False])),
    **MOVE,
    big=[S(T(300, 401), B(300, 401))],
    errors=[E(RuntimeError, "bool", T(3), A([1, 0, 1])), E(RuntimeError, "size|shape|broadcast", T(3), B(4))],
    no_rows="its size depends on the values",
)


def nonzero(x: np.ndarray, *, as_tuple: bool = False) -> Any:
    found = np.atleast_1d(x).nonzero() if x.ndim == 0 else x.nonzero()
    if x.ndim == 0:
        return (found[0],) if as_tuple else np.zeros((len(found[0]), 0), np.int64)
    return found if as_tuple else np.stack(found, 1)


for _name in ("nonzero", "argwhere"):
    op(
        _name,
        nonzero,
        S(B(3, 4)),
        S(A([0.0, 1.0, 0.0, -2.0])),
        S(A(1.0)),
        S(A(0.0)),
        S(B(0, 3)),
        S(A([[0, 1], [2, 0]])),
        S(T(3)),
        out="int64",
        grad=False,
        ints=INTS_BOOL,
        big=[S(B(300, 401))],
        no_rows="its size depends on the values",
    )
op(
    "take_along_dim",
    lambda x, i, dim=None: np.take_along_axis(x, i, dim) if dim is not None else x.reshape(-1)[i.reshape(-1)],
    S(T(3, 4), I(3, 2, hi=4), 1),
    S(T(3, 4), I(1, 4, hi=3), 0),
    S(T(3, 4), A([5, 0, 11])),
    S(T(0, 3), I(0, 2, hi=3), dim=1),
    **MOVE,
    scalar=False,
    errors=[E((RuntimeError, IndexError), RANGE, T(3), A([3]), 0)],
    rows=[S(T(37, 65), I(37, 40, hi=65), 1)],
    big=[S(T(300, 401), I(300, 401, hi=401), 1)],
)
op(
    "one_hot",
    lambda x, num_classes=-1: np.eye(num_classes if num_classes > 0 else int(x.max()) + 1, dtype=np.int64)[x],
    S(A([0, 2, 1]), 3),
    S(A([[0], [1]])),
    S(A(1), 4),
    S(I(0, 2, hi=2), 3),
    out="int64",
    grad=False,
    floats=("float32",),
    low=(),
    errors=[
        E(RuntimeError, "class|smaller|range|negative", A([3]), 3),
        E(RuntimeError, "class|smaller|range|non-negative|positive", A([-1]), 3),
    ],
    rows=[S(I(37, 5, hi=9), 9)],
)


op(
    "_index",
    lambda x, indices: x[tuple(indices)],
    S(T(3, 4), [A([0, 2]), A([1, 3])]),
    S(T(3, 4), [A([[0, -1], [2, 2]])]),
    S(T(2, 3, 4), [A([1, 0]), A([[0], [2]])]),
    S(T(3, 4), [I(0, hi=1)]),
    S(T(0, 3), [I(0, hi=1)]),
    S(T(4), [A(2)]),
    **MOVE,
    scalar=True,
    big=[S(T(50, 401), [I(400, hi=50)])],
    errors=[E(IndexError, RANGE, T(3), [A([3])]), E(IndexError, "too many|indices|dim", T(3), [A([0]), A([0])])],
    no_rows="indices are of the whole tensor",
)
op(
    "_index_put",
    lambda x, values, indices, *, accumulate=False: index_put(x, indices, values, accumulate),
    S(T(3, 4), T(2), [A([0, 2]), A([1, 3])]),
    S(T(3, 4), T(2, 4), [A([0, 2])]),
    S(T(3, 4), T(3, 4), [A([0, 0, 1])], accumulate=True),
    S(T(3, 4), T(), [A([0, 0])], accumulate=True),
    S(T(0, 3), T(0, 3), [I(0, hi=1)]),
    ints=INTS,
    big=[S(T(50, 401), T(400, 401), [I(400, hi=50)], accumulate=True)],
    errors=[
        E(IndexError, RANGE, T(3), T(1), [A([3])]),
        E((RuntimeError, IndexError), "shape|size|broadcast", T(3, 4), T(3, 4), [A([0, 1])]),
    ],
    no_rows="indices are of the whole tensor",
)
op(
    "take",
    lambda x, i: x.reshape(-1)[i],
    S(T(3, 4), A([5, 0, 11])),
    S(T(3, 4), A([[-1, 2], [2, 2]])),
    S(T(), A(0)),
    S(T(3), I(0, 2, hi=1)),
    **MOVE,
    errors=[E((IndexError, RuntimeError), RANGE, T(3), A([3])), E(RuntimeError, "int64|long|index", T(3), T(1))],
    no_rows="indices are of the whole tensor",
    big=[S(T(300, 401), I(90000, hi=120300))],
)


def masked_scatter(x: np.ndarray, mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    x, mask = (np.array(t) for t in np.broadcast_arrays(x, mask))
    x[mask] = source.reshape(-1)[: int(mask.sum())]
    return x


op(
    "masked_scatter",
    masked_scatter,
    S(T(3, 4), B(3, 4), T(12)),
    S(T(3, 4), B(4), T(3, 4)),
    S(T(3), A([True, False, True]), T(3)),
    S(T(), A(True), T()),
    S(T(0, 3), B(0, 3), T(2)),
    S(T(3), A([False, False, False]), T(0)),
    S(T(3), A([True, False, True]), T(2, 5)),
    **MOVE,
    errors=[
        E(RuntimeError, "bool", T(3), A([1, 0, 1]), T(3)),
        E(RuntimeError, "number of|elements", T(3), A([True, True, True]), T(2)),
    ],
    no_rows="where a row reads its source depends on the rows before it",
    big=[S(T(300, 401), B(300, 401), T(120300))],
)
op(
    "count_nonzero",
    lambda x, dim=None: np.asarray(np.count_nonzero(x, axis=None if dim is None else tuple(np.atleast_1d(dim)))),
    S(T(3, 4)),
    S(A([[0.0, 1.0], [0.0, 0.0]])),
    S(A([[0.0, 1.0], [2.0, 0.0]]), 0),
    S(T(2, 3, 4), [0, -1]),
    S(T()),
    S(T(0, 3)),
    S(T(0, 3), 0),
    out="int64",
    grad=False,
    ints=INTS_BOOL,
    errors=[E(IndexError, "dim|range", T(3), 1)],
    rows=[S(B(37, 129), 1)],
    big=[S(B(300, 401)), S(B(300, 401), 1)],
)
