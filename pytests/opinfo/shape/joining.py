"""Joining and splitting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import E, S, T, op
from .views import MOVE

op(
    "cat",
    lambda tensors, dim=0: np.concatenate(tensors, axis=dim),
    S([T(3, 4), T(2, 4)]),
    S([T(3, 4), T(3, 1), T(3, 2)], -1),
    S([T(2, 3)], dim=1),
    S([T(0, 4), T(2, 4)]),
    S([T(0, 3), T(0, 3)], 1),
    S([T(3), T(3)], 0),
    **MOVE,
    scalar=False,
    big=[S([T(200, 301), T(150, 301)], 0), S([T(300, 201), T(300, 99)], 1)],
    errors=[
        E(RuntimeError, "size", [T(3, 4), T(3, 5)]),
        E(RuntimeError, "zero|0-d", [T(), T()]),
        E((RuntimeError, ValueError), "empty|non-empty|at least", []),
        E(IndexError, "dim|range", [T(3), T(3)], 1),
    ],
)
op(
    "stack",
    lambda tensors, dim=0: np.stack(tensors, axis=dim),
    S([T(3, 4), T(3, 4)]),
    S([T(3, 4), T(3, 4), T(3, 4)], -1),
    S([T(), T()]),
    S([T(0), T(0)], 1),
    **MOVE,
    errors=[
        E(RuntimeError, "equal|size|same", [T(3), T(4)]),
        E((RuntimeError, ValueError), "empty|non-empty|at least", []),
    ],
)
COLUMNS = [S([T(3), T(3)]), S([T(3, 4), T(3, 2)]), S([T(2, 3, 4), T(2, 3, 4)]), S([T(), T()])]
NOTHING = E(RuntimeError, "non-empty TensorList", [])
for _name in ("hstack", "column_stack"):
    op(
        _name,
        getattr(np, _name),
        *COLUMNS,
        S([T(0, 3), T(0, 2)]),
        S([T(3), T(3, 2)]) if _name == "column_stack" else S([T(3), T(2)]),
        **MOVE,
        errors=[NOTHING, E(RuntimeError, "Sizes of tensors must match", [T(3, 4), T(2, 4)])],
    )
for _name in ("vstack", "dstack"):
    op(
        _name,
        getattr(np, _name),
        S([T(3), T(3)]),
        S([T(3, 4), T(2, 4)] if _name == "vstack" else [T(3, 4), T(3, 4)]),
        S([T(2, 3, 4), T(1, 3, 4)] if _name == "vstack" else [T(2, 3, 4), T(2, 3, 1)]),
        S([T(), T()]),
        S([T(4), T(2, 4)] if _name == "vstack" else [T(4), T(1, 4)]),
        S([T(0, 3), T(0, 3)]),
        **MOVE,
        errors=[NOTHING, E(RuntimeError, "Sizes of tensors must match", [T(3, 4), T(3, 5)])],
    )


def split(x: np.ndarray, split_size_or_sections: Any, dim: int = 0) -> list[np.ndarray]:
    n = x.shape[dim]
    if isinstance(split_size_or_sections, int):
        edges = list(range(split_size_or_sections, n, split_size_or_sections)) if n else []
    else:
        edges = list(np.cumsum(split_size_or_sections))[:-1]
    return np.split(x, edges, axis=dim)


op(
    "split",
    split,
    S(T(5, 2), 2),
    S(T(2, 6), 3, -1),
    S(T(5, 2), [1, 4]),
    S(T(5, 3), [2, 0, 3], dim=0),
    S(T(0, 3), 2),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "sum|split|sizes", T(5), [1, 2]), E(RuntimeError, "split|positive|negative", T(5), -1)],
)


def chunk(x: np.ndarray, chunks: int, dim: int = 0) -> list[np.ndarray]:
    n = x.shape[dim]
    return split(x, -(-n // chunks), dim) if n else [x] * chunks


op(
    "chunk",
    chunk,
    S(T(5, 2), 2),
    S(T(2, 6), 3, -1),
    S(T(5), 4),
    S(T(2), 5),
    S(T(0, 3), 1),
    **MOVE,
    scalar=False,
    errors=[E(RuntimeError, "chunk", T(5), 0)],
)
op(
    "unbind",
    lambda x, dim=0: [np.take(x, i, axis=dim) for i in range(x.shape[dim])],
    S(T(3, 4)),
    S(T(3, 4), 1),
    S(T(2, 0)),
    S(T(3)),
    **MOVE,
    scalar=False,
    errors=[E(IndexError, "dim|range", T(3), 1)],
)
