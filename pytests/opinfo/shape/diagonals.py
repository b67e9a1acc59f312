"""Diagonals and triangles of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import DT, INTS, E, S, T, op
from .views import MOVE


def triangle(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, diagonal=0: f(x, max(min(diagonal, 10**6), -(10**6)))


for _name, _f in {"tril": np.tril, "triu": np.triu}.items():
    op(
        _name,
        triangle(_f),
        S(T(3, 4)),
        S(T(3, 4), 1),
        S(T(3, 4), -1),
        S(T(2, 3, 3)),
        S(T(0, 3)),
        S(T(4, 3), diagonal=9),
        S(T(2, 0)),
        S(T(3, 4), 2**63 - 1),
        S(T(3, 4), -(2**63)),
        S(T(2, 1, 5, 17), -3),
        **MOVE,
        scalar=False,
        big=[S(T(300, 401))],
        errors=[E(RuntimeError, "2|dim", T(3))],
    )
op(
    "diag",
    lambda x, diagonal=0: np.diag(x, diagonal),
    S(T(3, 4)),
    S(T(3, 4), 1),
    S(T(3, 4), diagonal=-2),
    S(T(3)),
    S(T(3), 1),
    S(T(2), -2),
    S(T(0)),
    S(T(0, 3)),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "Supports 1D or 2D tensors. Got 3D", T(2, 3, 4))],
)


def diag_embed(x: np.ndarray, offset: int = 0, dim1: int = -2, dim2: int = -1) -> np.ndarray:
    n = x.shape[-1] + abs(offset)
    out = np.zeros((*x.shape[:-1], n, n), x.dtype)
    for i in range(x.shape[-1]):
        out[..., i + max(0, -offset), i + max(0, offset)] = x[..., i]
    return np.moveaxis(out, (-2, -1), (dim1, dim2))


op(
    "diag_embed",
    diag_embed,
    S(T(3)),
    S(T(2, 3)),
    S(T(2, 3), 1),
    S(T(2, 3), offset=-2),
    S(T(2, 3), 0, 0, 2),
    S(T(2, 3), 1, dim1=-1, dim2=0),
    S(T(0, 3)),
    S(T(2, 0), 1),
    **MOVE,
    scalar=False,
    errors=[
        E(RuntimeError, "identical 1, -2", T(2, 3), 0, 1, -2),
        E(IndexError, "range", T()),
        E(IndexError, "range", T(3), 0, 0, 2),
        E(RuntimeError, "too large", T(3), -(2**63)),
    ],
)
op(
    "trace",
    np.trace,
    S(T(3, 4)),
    S(T(4, 3)),
    S(T(1, 1)),
    S(T(0, 3)),
    out="sum",
    ints=INTS,
    scalar=False,
    no_rows="one number",
    big=[S(T(300, 401))],
    errors=[E(RuntimeError, "expected a matrix, but got tensor with dim 1", T(3))],
)
for _name, _indices in {"tril_indices": np.tril_indices, "triu_indices": np.triu_indices}.items():
    op(
        _name,
        lambda row, col, offset=0, dtype=np.int64, _indices=_indices: np.stack(_indices(row, offset, col)).astype(
            dtype
        ),
        S(3, 3),
        S(3, 5, 1),
        S(5, 3, -2),
        S(2, 3, offset=7),
        S(3, 2, offset=-7),
        S(0, 3),
        S(3, 0, -1),
        S(2, 2, dtype=DT("int32")),
        grad=False,
        floats=("float32",),
        low=(),
        stream=True,
        out="int64",
        no_rows="made of sizes alone",
        errors=[
            E(RuntimeError, "row must be non-negative, got -1", -1, 2),
            E(RuntimeError, "col must be non-negative, got -2", 1, -2),
            E(RuntimeError, "more elements than an int64 can count", 2**62, 2**62),
        ],
    )
