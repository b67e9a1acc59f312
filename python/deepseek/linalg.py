"""Linear algebra, as ``torch.linalg``: norms. Decompositions are not available yet."""

from __future__ import annotations

import math

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import dtype

__all__ = ["matrix_norm", "norm", "vector_norm"]


def _in_dtype(A: Tensor, dtype: dtype | None) -> Tensor:
    return A if dtype is None else A.to(dtype)


def vector_norm(
    x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None
) -> Tensor:
    """(sum |x|^ord)^(1/ord) over ``dim`` (all elements when None, as one vector).

    Args:
        x: any shape, floating.
        ord: 0 counts the elements that are not zero; inf and -inf take the largest and smallest magnitude.
        dim: an int or a tuple.
        keepdim: keep reduced dims with size 1.
        dtype: convert ``x`` first.

    Raises:
        RuntimeError: an integer dtype.
    """
    return _C._vector_norm(_in_dtype(x, dtype), ord, dim, keepdim)


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: dtype | None = None
) -> Tensor:
    """A norm of matrices.

    Args:
        A: at least 2-d, floating.
        ord: ``"fro"`` (root of the sum of squares), 1 and -1 (largest and smallest column sum of magnitudes), inf and
            -inf (row sums). 2, -2 and ``"nuc"`` need singular values.
        dim: the dims of rows and of columns.
        keepdim: keep reduced dims with size 1.
        dtype: convert ``A`` first.

    Raises:
        NotImplementedError: an order that needs singular values.
        RuntimeError: another order, fewer than 2 dims, an integer dtype.
    """
    if A.dim() < 2:
        raise RuntimeError("linalg.matrix_norm: The input tensor A must have at least 2 dimensions.")
    pair = (dim,) if isinstance(dim, int) else tuple(dim)
    if len(pair) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {len(pair)} dims")
    if ord == "fro":
        return vector_norm(A, 2, pair, keepdim, dtype=dtype)
    if ord in ("nuc", 2, -2):
        raise NotImplementedError(f"linalg.matrix_norm: ord={ord!r} is not available: it needs singular values")
    if ord not in (1, -1, math.inf, -math.inf):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    rows, columns = (d % A.dim() for d in pair)
    summed, compared = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = vector_norm(A, 1, summed, True, dtype=dtype)
    if ord > 0 and sums.size(compared) == 0:  # no rows, or no columns: nothing is large
        result = sums.sum([compared], True)
    else:
        result = (_C.amax if ord > 0 else _C.amin)(sums, [compared], True)
    return result if keepdim else result.squeeze([rows, columns])


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None) -> Tensor:
    """A vector norm (``dim`` an int, or A 1-d) or a matrix norm (``dim`` a pair, or A 2-d); 2-norm of all by default.

    Raises:
        RuntimeError: ``ord`` without ``dim`` for more than 2 dims; and as :func:`vector_norm`, :func:`matrix_norm`.
    """
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    dims = None if dim is None else ((dim,) if isinstance(dim, int) else tuple(dim))
    if dims is None and A.dim() > 2:
        raise RuntimeError(
            f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.dim()}D."
        )
    of_matrix = isinstance(ord, str) or (len(dims) == 2 if dims is not None else A.dim() == 2)
    if of_matrix:
        return matrix_norm(A, ord, (-2, -1) if dims is None else dims, keepdim, dtype=dtype)
    return vector_norm(A, ord, dims, keepdim, dtype=dtype)


guard(__name__)
