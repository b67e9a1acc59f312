"""Functions of diagonals and triangles of matrices."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.autocast import autocast_float32
from deepseek._binding.public import method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek import device, dtype


@public
@method
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix (a copy), or a matrix with a vector on its diagonal.

    Raises:
        RuntimeError: neither 1-d nor 2-d.
    """
    if input.dim() == 2:
        return input.diagonal(diagonal).clone()
    if input.dim() != 1:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.dim()}D")
    return diag_embed(input, diagonal)


@public
@method
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices whose diagonal is the last dim of input, in dims ``dim1`` and ``dim2`` of the result."""
    n = input.size(-1) + abs(offset)
    out = input.new_zeros([*input.shape[:-1], n, n])
    out.diagonal(offset, -2, -1).copy_(input)
    return out.movedim([-2, -1], [dim1, dim2])


@public
@method
def trace(input: Tensor) -> Tensor:
    """Sum of the diagonal of a matrix.

    Raises:
        RuntimeError: not 2-d.
    """
    if input.dim() != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.dim()}")
    return autocast_float32(input).diagonal().sum()


def _triangle_indices(row: int, col: int, keep: Callable[[Tensor], Tensor], dtype: dtype | None) -> Tensor:
    return _C._to_dtype(_C.nonzero(keep(_C.ones([row, col], dtype=_C.bool))).t().contiguous(), dtype or _C.int64)


@public
def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: dtype | None = None, device: device | str | None = None
) -> Tensor:
    """Row and column indices of the lower triangle of a [row, col] matrix: shape [2, n], int64."""
    return _triangle_indices(row, col, lambda m: m.tril(offset), dtype)


@public
def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: dtype | None = None, device: device | str | None = None
) -> Tensor:
    """Row and column indices of the upper triangle of a [row, col] matrix: shape [2, n], int64."""
    return _triangle_indices(row, col, lambda m: m.triu(offset), dtype)
