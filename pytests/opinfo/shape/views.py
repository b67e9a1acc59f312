"""Views: results on the memory of their input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided as np_as_strided
from numpy.lib.stride_tricks import sliding_window_view

from ..core import DT, INTS_BOOL, E, S, T, op

MOVE: dict[str, Any] = {"ints": INTS_BOOL, "tol": 1e-6, "no_rows": "values are copied, not computed"}
AS_THEY_ARE = {"grad": False, "low": False, "ints": False, "noncontig": False}
for _name in ("reshape", "view"):
    op(
        _name,
        lambda x, to: x.view(to) if isinstance(to, np.dtype) else x.reshape(to),
        S(T(3, 4), [4, 3]),
        S(T(2, 3, 4), [6, -1]),
        S(T(), [1, 1]),
        S(T(1), []),
        S(T(0, 3), [3, 0]),
        S(T(2, 6), [2, 2, 3]),
        *([S(T(2, 6, dtype="float64"), DT("int32")).but(**AS_THEY_ARE)] if _name == "view" else []),
        noncontig=_name == "reshape",
        **MOVE,
        errors=[E(RuntimeError, "shape|size", T(3, 4), [5, 2]), E(RuntimeError, "-1|infer", T(3, 4), [-1, -1])],
    )
op(
    "_view_dtype",
    lambda x, dtype: x.view(dtype),
    S(T(2, 6, dtype="float64"), DT("int32")),
    S(T(0, 4, dtype="float64"), DT("uint8")),
    S(T(dtype="float64"), DT("int64")),
    noncontig=False,
    **MOVE | {"grad": False},
)
op(
    "transpose",
    lambda x, a, b: np.swapaxes(x, a, b) if x.ndim else x,
    S(T(3, 4), 0, 1),
    S(T(2, 3, 4), -1, 0),
    S(T(), 0, 0),
    S(T(0, 3), 0, 1),
    **MOVE,
    errors=[E(IndexError, "dim|range", T(3, 4), 0, 2)],
)
for _name in ("swapaxes", "swapdims"):
    op(
        _name,
        np.swapaxes,
        S(T(3, 4), 0, 1),
        S(T(2, 3, 4), -1, 0),
        S(T(0, 3), 0, 1),
        **MOVE,
        scalar=False,
        errors=[E(IndexError, "dim|range", T(3, 4), 0, 2)],
    )
op("t", lambda x: x.T, S(T(3, 4)), S(T(3)), S(T()), S(T(0, 3)), **MOVE, errors=[E(RuntimeError, "2", T(2, 3, 4))])
op(
    "permute",
    np.transpose,
    S(T(2, 3, 4), [2, 0, 1]),
    S(T(2, 3), [-1, 0]),
    S(T(), []),
    S(T(0, 3), [1, 0]),
    **MOVE,
    errors=[
        E(RuntimeError, "dim|permute|length|number", T(2, 3), [0]),
        E(RuntimeError, "duplicate|repeat|twice|more than once", T(2, 3), [0, 0]),
    ],
)
op(
    "movedim",
    np.moveaxis,
    S(T(2, 3, 4), 0, 2),
    S(T(2, 3, 4), [0, 1], [-1, -2]),
    S(T(0, 3), 1, 0),
    **MOVE,
    scalar=False,
    errors=[E((RuntimeError, IndexError), "dim|same|source", T(2, 3), [0, 1], [0])],
)
op(
    "expand",
    lambda x, size: np.broadcast_to(x, [x.shape[i - len(size) + x.ndim] if s == -1 else s for i, s in enumerate(size)]),
    S(T(3, 1), [3, 4]),
    S(T(4), [2, 3, 4]),
    S(T(), [2, 2]),
    S(T(3, 1), [-1, 2]),
    S(T(0, 1), [0, 3]),
    **MOVE,
    errors=[E(RuntimeError, "size|expand", T(3, 2), [3, 4])],
)
op(
    "broadcast_to",
    lambda x, size: np.broadcast_to(x, size),
    S(T(3, 1), [3, 4]),
    S(T(), [2, 2]),
    S(T(0, 1), [0, 3]),
    **MOVE,
    errors=[E(RuntimeError, "size|expand|broadcast", T(3, 2), [3, 4])],
)


def squeeze(x: np.ndarray, dim: Any = None) -> np.ndarray:
    if dim is None:
        return np.squeeze(x)
    dims = dim if isinstance(dim, (list, tuple)) else (dim,)
    return np.squeeze(x, tuple(d for d in dims if x.ndim and x.shape[d] == 1))


op(
    "squeeze",
    squeeze,
    S(T(1, 3, 1)),
    S(T(1, 3, 1), 0),
    S(T(1, 3, 1), -1),
    S(T(3, 4), 0),
    S(T(1, 3, 1), [0, 2]),
    S(T()),
    S(T(0, 1)),
    **MOVE,
    errors=[E(IndexError, "dim|range", T(3), 1)],
)
op(
    "unsqueeze",
    np.expand_dims,
    S(T(3, 4), 0),
    S(T(3, 4), -1),
    S(T(3, 4), 1),
    S(T(), 0),
    S(T(0), 1),
    **MOVE,
    errors=[E(IndexError, "dim|range", T(3), 2)],
)


def flatten(x: np.ndarray, start_dim: int = 0, end_dim: int = -1) -> np.ndarray:
    if x.ndim == 0:
        return x.reshape(1)
    a, b = start_dim % x.ndim, end_dim % x.ndim
    return x.reshape(*x.shape[:a], math.prod(x.shape[a : b + 1]), *x.shape[b + 1 :])


op(
    "flatten",
    flatten,
    S(T(2, 3, 4)),
    S(T(2, 3, 4), 1),
    S(T(2, 3, 4), 0, 1),
    S(T()),
    S(T(0, 3)),
    S(T(2, 3, 4), 1, 1),
    **MOVE,
    errors=[E(RuntimeError, "start|end", T(2, 3, 4), 2, 1)],
)
op(
    "unflatten",
    lambda x, dim, sizes: x.reshape(
        *x.shape[: dim % x.ndim],
        *sizes if -1 not in sizes else [s if s != -1 else x.shape[dim] // -math.prod(sizes) for s in sizes],
        *x.shape[dim % x.ndim + 1 :],
    ),
    S(T(2, 6), 1, [2, 3]),
    S(T(6, 2), 0, [-1, 2]),
    S(T(0, 6), -1, [3, 2]),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "size|unflatten|multiply|product", T(2, 6), 1, [4, 2])],
)
op(
    "select",
    lambda x, dim, i: np.take(x, i, axis=dim),
    S(T(3, 4), 0, 1),
    S(T(3, 4), -1, -2),
    S(T(2, 3, 4), 1, 0),
    S(T(3, 0), 0, 2),
    S(T(3), 0, 1),
    **MOVE,
    scalar=False,
    errors=[E(IndexError, "range|index", T(3, 4), 0, 3), E(IndexError, "range|dim", T(3, 4), 2, 0)],
)
op(
    "narrow",
    lambda x, dim, start, length: np.take(x, np.arange(start % x.shape[dim], start % x.shape[dim] + length), axis=dim),
    S(T(5, 3), 0, 1, 3),
    S(T(5, 3), -1, 0, 2),
    S(T(5, 3), 0, -2, 2),
    S(T(5, 3), 0, 2, 0),
    S(T(4, 0), 0, 1, 2),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "start|length|exceed", T(5, 3), 0, 3, 4)],
)


def slice_ref(x: np.ndarray, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> np.ndarray:
    where = [slice(None)] * x.ndim
    where[dim] = slice(start, end, step)
    return x[tuple(where)]


op(
    "_slice",
    slice_ref,
    S(T(5, 3), 0, 1, 4),
    S(T(5, 3), 0, 0, 5, 2),
    S(T(5, 3), 1, -2, 100),
    S(T(5, 3), 0, 4, 2),
    S(T(0, 3), 0, 0, 1),
    **MOVE,
    scalar=False,
    errors=[E((RuntimeError, ValueError), "step", T(5), 0, 0, 4, 0), E(IndexError, "dim|range", T(5), 1, 0, 2)],
)


def as_strided(x: np.ndarray, size: Any, stride: Any, storage_offset: int = 0) -> np.ndarray:
    flat = np.ascontiguousarray(x).reshape(-1)
    return np_as_strided(flat[storage_offset:], size, [s * x.itemsize for s in stride]).copy()


op(
    "as_strided",
    as_strided,
    *[
        s.but(noncontig=False)
        for s in (
            S(T(3, 4), [2, 2], [4, 1]),
            S(T(12), [3, 3], [4, 1], 1),
            S(T(6), [4, 3], [1, 1]),
            S(T(), [2], [0]),
            S(T(4), [0, 2], [1, 1]),
            S(T(0), [0, 2], [1, 1]),
        )
    ],
    **MOVE,
    errors=[E(RuntimeError, "storage|bounds|size", T(4), [3, 3], [3, 1])],
)
op(
    "diagonal",
    lambda x, offset=0, dim1=0, dim2=1: np.diagonal(x, offset, dim1, dim2),
    S(T(3, 4)),
    S(T(3, 4), 1),
    S(T(3, 4), -1),
    S(T(2, 3, 4), 0, 1, 2),
    S(T(2, 3, 4), offset=1, dim1=-1, dim2=0),
    S(T(0, 3)),
    S(T(2, 2), 5),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "dim|identical|same", T(3, 3), 0, 1, 1)],
)


def unfold(x: np.ndarray, dimension: int, size: int, step: int) -> np.ndarray:
    if x.ndim == 0:
        return x.reshape(1)[:size]
    windows = sliding_window_view(x, size, axis=dimension)
    return slice_ref(windows, dimension if dimension >= 0 else dimension + x.ndim, None, None, step)


op(
    "unfold",
    unfold,
    S(T(7), 0, 3, 2),
    S(T(2, 6), 1, 2, 2),
    S(T(6, 2), 0, 4, 1),
    S(T(5, 3), -2, 2, 3),
    S(T(0, 3), 1, 2, 1),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "size", T(3), 0, 4, 1), E(RuntimeError, "step", T(3), 0, 2, 0)],
)
op("detach", lambda x: x, S(T(3, 4)), S(T()), S(T(0, 3)), grad=False, **MOVE)


def like(x: np.ndarray, other: np.ndarray) -> np.ndarray:
    return x.reshape(other.shape)


op(
    "expand_as",
    lambda x, other: np.broadcast_to(x, other.shape),
    S(T(3, 1), T(3, 4)),
    S(T(), T(2)),
    S(T(0, 1), T(0, 3)),
    **MOVE,
)
op("view_as", like, S(T(3, 4), T(4, 3)), S(T(), T(1, 1)), S(T(0, 3), T(3, 0)), noncontig=False, **MOVE)
op("reshape_as", like, S(T(3, 4), T(4, 3)), S(T(), T(1, 1)), S(T(0, 3), T(3, 0)), **MOVE)
for _name in ("_matrix_transpose", "adjoint"):
    op(
        _name,
        lambda x: np.swapaxes(x, -1, -2),
        S(T(3, 4)),
        S(T(2, 3, 4)),
        S(T(0, 3)),
        scalar=False,
        errors=[E(RuntimeError, "only supported on matrices.*1-D", T(3))],
        **MOVE,
    )
op("ravel", np.ravel, S(T(3, 4)), S(T(2, 3, 4)), S(T()), S(T(0, 3)), **MOVE)
op(
    "_as_strided_rel",
    as_strided,
    S(T(3, 4), [2, 2], [4, 1]),
    S(T(12), [3, 3], [4, 1], 1),
    S(T(6), [4, 3], [1, 1]),
    S(T(), [2], [0]),
    S(T(4), [0, 2], [1, 1]),
    noncontig=False,
    zero_size=False,
    **MOVE,
)


def as_strided_scatter(x: np.ndarray, src: np.ndarray, size: Any, stride: Any, offset: int) -> np.ndarray:
    flat = np.array(x).reshape(-1)
    for at in np.ndindex(*size):
        flat[offset + sum(i * s for i, s in zip(at, stride, strict=True))] = src[at]
    return flat.reshape(x.shape)


op(
    "_as_strided_scatter",
    as_strided_scatter,
    S(T(3, 4), T(2, 2), [2, 2], [4, 1], 1),
    S(T(12), T(3), [3], [2], 0),
    S(T(), T(), [], [], 0),
    S(T(3, 4), T(0, 2), [0, 2], [4, 1], 0),
    noncontig=False,
    **MOVE,
)
