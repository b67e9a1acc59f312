"""Functions that count: distinct elements, runs of equal ones, how often each occurs."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.overload import overload
from deepseek._binding.public import method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


def _result(values: Tensor, inverse: Tensor | None, counts: Tensor | None) -> Tensor | tuple[Tensor, ...]:
    found = (values, *(t for t in (inverse, counts) if t is not None))
    return found if len(found) > 1 else values


def _runs(different: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """For [n - 1] flags "differs from the one before": start of each run, run of each element, length of each run."""
    first = _C.cat([_C.ones([min(n, 1)], dtype=_C.bool), different])
    starts = _C.nonzero(first).reshape(-1)
    ends = _C.cat([starts[1:], _C.full([min(n, 1)], n, dtype=_C.int64)])
    return starts, first.cumsum(0) - 1, ends - starts


def _rows_differ(rows: Tensor) -> Tensor:
    """[n - 1] flags for rows of shape [n, ...]."""
    n = rows.size(0)
    if n <= 1:
        return _C.zeros([0], dtype=_C.bool)
    return (rows[1:] != rows[:-1]).reshape(n - 1, -1).any(1)


def _row_order(rows: Tensor) -> Tensor:
    """Indices that sort rows of shape [n, ...] lexicographically."""
    keys = rows.reshape(rows.size(0), -1).tolist() if rows.numel() else [[]] * rows.size(0)
    return _C.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=_C.int64)


@overload
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: Literal[False] = False,
    return_counts: Literal[False] = False,
    dim: int | None = None,
) -> Tensor: ...
@overload
def unique(
    input: Tensor,
    sorted: bool = True,
    *,
    return_inverse: Literal[True],
    return_counts: bool = False,
    dim: int | None = None,
) -> tuple[Tensor, ...]: ...
@overload
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    *,
    return_counts: Literal[True],
    dim: int | None = None,
) -> tuple[Tensor, ...]: ...
@overload
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Tensor | tuple[Tensor, ...]: ...
@public
@method
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """The distinct elements in ascending order, or the distinct slices along ``dim``. Not differentiable.

    Args:
        input: any shape.
        sorted: accepted; the result is always sorted.
        return_inverse: also where each element of input is in the result, int64, input's shape (or [size of dim]).
        return_counts: also how often each occurs, int64.
        dim: compare slices along this dim instead of single elements.

    Returns:
        ``values``, or a tuple of ``values`` and what else was asked for.
    """
    x = input.detach()
    if dim is None:
        flat = x.reshape(-1)
        ordered, order = _C.sort(flat)
        different = ordered[1:] != ordered[:-1] if flat.numel() else _C.zeros([0], dtype=_C.bool)
    else:
        rows = x.movedim(dim, 0) if x.dim() > 1 else x
        order = _row_order(rows)
        ordered = rows.index_select(0, order)
        different = _rows_differ(ordered)
    starts, run, counts = _runs(different, order.numel())
    values = ordered.index_select(0, starts)
    inverse = None
    if return_inverse:
        inverse = _C.empty([order.numel()], dtype=_C.int64).scatter(0, order, run)
        inverse = inverse.reshape(x.shape) if dim is None else inverse
    if dim is not None and x.dim() > 1:
        values = values.movedim(0, dim)
    return _result(values, inverse, counts if return_counts else None)


@overload
def unique_consecutive(
    input: Tensor,
    return_inverse: Literal[False] = False,
    return_counts: Literal[False] = False,
    dim: int | None = None,
) -> Tensor: ...
@overload
def unique_consecutive(
    input: Tensor, *, return_inverse: Literal[True], return_counts: bool = False, dim: int | None = None
) -> tuple[Tensor, ...]: ...
@overload
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, *, return_counts: Literal[True], dim: int | None = None
) -> tuple[Tensor, ...]: ...
@overload
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Tensor | tuple[Tensor, ...]: ...
@public
@method
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Tensor | tuple[Tensor, ...]:
    """Runs of equal neighbours reduced to one: elements of the flattened input, or slices along ``dim``."""
    x = input.detach()
    rows = x.reshape(-1) if dim is None else (x.movedim(dim, 0) if x.dim() > 1 else x)
    starts, run, counts = _runs(_rows_differ(rows), rows.size(0))
    values = rows.index_select(0, starts)
    if dim is not None and x.dim() > 1:
        values = values.movedim(0, dim)
    inverse = run.reshape(x.shape) if dim is None else run
    return _result(values, inverse if return_inverse else None, counts if return_counts else None)
