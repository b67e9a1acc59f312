"""Elements moved, repeated and copied: everything that computes nothing and is no view."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import DT, INTS_BOOL, A, E, S, T, op
from .views import MOVE

op(
    "flip",
    lambda x, dims: np.flip(x, dims) if x.ndim else x,
    S(T(3, 4), [0]),
    S(T(3, 4), [0, -1]),
    S(T(), []),
    S(T(0, 3), [1]),
    S(T(3, 4), []),
    **MOVE,
    big=[S(T(300, 401), [0, 1])],
    errors=[
        E(IndexError, "dim|range", T(3), [1]),
        E(RuntimeError, "more than once|multiple|repeat|dim", T(3, 4), [0, 0]),
    ],
)
op(
    "flipud",
    np.flipud,
    S(T(3, 4)),
    S(T(3)),
    S(T(0, 3)),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "must be >= 1-d", T())],
)
op(
    "fliplr",
    np.fliplr,
    S(T(3, 4)),
    S(T(2, 3, 4)),
    S(T(3, 0)),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "must be >= 2-d", T(3))],
)
op(
    "rot90",
    lambda x, k=1, dims=(0, 1): np.rot90(x, k, tuple(dims)),
    S(T(3, 4)),
    S(T(3, 4), 2),
    S(T(3, 4), 3),
    S(T(3, 4), 4),
    S(T(3, 4), -1),
    S(T(2, 3, 4), 1, [2, 0]),
    S(T(2, 3, 4), k=-5, dims=[-1, 1]),
    S(T(0, 3)),
    **MOVE,
    scalar=False,
    big=[S(T(300, 401))],
    errors=[
        E(RuntimeError, "rotation dims == 2, but got dims = 1", T(3, 4), 1, [0]),
        E(RuntimeError, "total dims >= 2, but got total dims = 1", T(3)),
        E(RuntimeError, "different, but got dim0 = 1 and dim1 = -1", T(3, 4), 1, [1, -1]),
        E(IndexError, "range", T(3, 4), 1, [0, 2]),
    ],
)


def roll(x: np.ndarray, shifts: Any, dims: Any = None) -> np.ndarray:
    if dims is None or dims == []:
        return np.roll(x, int(np.atleast_1d(np.asarray(shifts, object))[0]) % max(x.size, 1))
    for shift, dim in zip(np.atleast_1d(np.asarray(shifts, object)), np.atleast_1d(dims), strict=True):
        x = np.roll(x, int(shift) % max(x.shape[dim], 1), dim)
    return x


op(
    "roll",
    roll,
    S(T(3, 4), 1),
    S(T(3, 4), -1, 0),
    S(T(3, 4), [1, 6], [0, 1]),
    S(T(3, 4), -(2**61), 0),
    S(T(2, 3, 5), [2**63 - 1, -4, 3], [2, 0, 2]),
    S(T(2, 3, 5), [7], []),
    S(T(0, 3), 1, 0),
    S(T(), 1),
    **MOVE,
    big=[S(T(300, 401), [77, -100], [0, 1]), S(T(300, 401), 12345)],
    errors=[
        E(IndexError, "dim|range", T(3), 1, 1),
        E(RuntimeError, "must align", T(3), [1, 2], 0),
        E(RuntimeError, "must align", T(3), [1, 2]),
        E(RuntimeError, "required", T(3), []),
    ],
)


def repeat(x: np.ndarray, repeats: Any) -> np.ndarray:
    return np.tile(x.reshape((1,) * (len(repeats) - x.ndim) + x.shape), repeats)


op(
    "repeat",
    repeat,
    S(T(2, 3), [2, 1]),
    S(T(3), [2, 2]),
    S(T(), [3]),
    S(T(), []),
    S(T(2, 3), [0, 2]),
    S(T(0, 3), [2, 2]),
    **MOVE,
    big=[S(T(30, 401), [10, 1])],
    errors=[E(RuntimeError, "repeat|dim", T(2, 3), [2])],
)
op("tile", np.tile, S(T(2, 3), [2, 1]), S(T(2, 3), [2]), S(T(3), [2, 2]), S(T(), [3]), S(T(0, 3), [2, 2]), **MOVE)
op(
    "repeat_interleave",
    lambda x, repeats, dim=None: np.repeat(x, repeats, axis=dim),
    S(T(3, 2), 2),
    S(T(3, 2), 2, 0),
    S(T(3, 2), A([1, 0, 2]), dim=0),
    S(T(), 3),
    S(T(0, 3), 2, 0),
    **MOVE,
    errors=[E(RuntimeError, "negative", T(3), A([1, -1, 1]))],
)
for _name in ("contiguous", "clone"):
    op(_name, lambda x: x, S(T(3, 4)), S(T()), S(T(0, 3)), **MOVE)
op("_restride", lambda x, strides: x, S(T(3, 4), [1, 3]), S(T(3, 4), [4, 1]), S(T(), []), S(T(0, 3), [3, 1]), **MOVE)
op(
    "type_as",
    lambda x, other: x.astype(other.dtype),
    S(T(3, 4), T(2)),
    S(T(), T()),
    S(T(0, 3), T(2)),
    S(T(3), A([1.0], dtype="float64")).but(low=False),
    tol=1e-6,
)
op(
    "_autocast_lower",
    lambda x, dtype: x.astype(dtype),
    S(T(3, 4), DT("float64")),
    S(T(), DT("float64")),
    S(T(0, 3), DT("float32")).but(grad=False),
    out=None,
    low=(),
)
op(
    "_to_dtype",
    lambda x, dtype: x.astype(dtype),
    S(T(3, 4), DT("float64")),
    S(T(3), DT("int64")).but(grad=False),
    S(T(), DT("float64")),
    S(T(0, 3), DT("float32")).but(grad=False),
    S(A([0.0, 2.0, 3.5]), DT("bool")).but(grad=False),
    out=None,
    low=(),
    ints=INTS_BOOL,
)
