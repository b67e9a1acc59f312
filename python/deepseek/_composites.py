"""Top-level functions composed from ops: shapes and stacking, diagonals, contractions, counting."""

from __future__ import annotations

import math

from deepseek import _C
from deepseek._arguments import check_tensor
from deepseek._autocast import autocast_float32
from deepseek._C import Tensor
from deepseek._functions import broadcast_shapes, norm
from deepseek._overload import overload

__all__ = [
    "adjoint",
    "argwhere",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "bincount",
    "broadcast_tensors",
    "cartesian_prod",
    "clamp_max_",
    "clamp_min_",
    "column_stack",
    "diag",
    "diag_embed",
    "diff",
    "dist",
    "dstack",
    "fliplr",
    "flipud",
    "float_power",
    "hstack",
    "inner",
    "isin",
    "logspace",
    "meshgrid",
    "nanmean",
    "nansum",
    "positive",
    "ravel",
    "rot90",
    "row_stack",
    "rsub",
    "scalar_tensor",
    "swapaxes",
    "swapdims",
    "tensordot",
    "trace",
    "tril_indices",
    "triu_indices",
    "vstack",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from deepseek import device, dtype

# --- shapes -----------------------------------------------------------------------------------------------------------


def _tensors(args: Any) -> tuple[Tensor, ...]:
    """``f(a, b)`` and ``f([a, b])`` alike."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else args


def broadcast_tensors(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape (views)."""
    found = _tensors(tensors)
    shape = broadcast_shapes(*(t.shape for t in found))
    return tuple(t.expand(shape) for t in found)


def meshgrid(*tensors: Tensor | Sequence[Tensor], indexing: str = "ij") -> tuple[Tensor, ...]:
    """Grids of coordinates: for inputs of sizes n1, n2, … tensors of shape [n1, n2, …] (views).

    Args:
        tensors: 0-d or 1-d.
        indexing: ``"ij"`` (matrix order) or ``"xy"`` (the first two dims swapped).

    Raises:
        RuntimeError: more than one dim, or another indexing.
    """
    found = [t.reshape(-1) if t.dim() == 0 else t for t in _tensors(tensors)]
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for t in found:
        if t.dim() != 1:
            raise RuntimeError(f"meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(t.shape)}")
    swap = indexing == "xy" and len(found) >= 2
    if swap:
        found[:2] = found[1::-1]
    shape = [t.numel() for t in found]
    grids = [t.reshape([-1 if i == j else 1 for j in range(len(found))]).expand(shape) for i, t in enumerate(found)]
    if swap:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of 1-d tensors: shape [n1 * n2 * …, number of tensors]."""
    if len(tensors) == 1:
        return tensors[0]
    return _C.stack([g.reshape(-1) for g in meshgrid(*tensors)], -1)


def _at_least(dims: int, tensors: Any) -> Any:
    found = _tensors(tensors)
    result = []
    for t in found:
        if dims >= 3 and t.dim() == 2:
            t = t.unsqueeze(-1)
        while t.dim() < dims:
            t = t.unsqueeze(-1 if t.dim() == 2 else 0)
        result.append(t)
    return result[0] if len(tensors) == 1 and isinstance(tensors[0], Tensor) else tuple(result)


@overload
def atleast_1d(tensors: Tensor, /) -> Tensor: ...  # type: ignore[overload-overlap]
@overload
def atleast_1d(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]: ...
def atleast_1d(*tensors: Any) -> Tensor | tuple[Tensor, ...]:
    """0-d tensors as 1-d; others as they are."""
    return _at_least(1, tensors)


@overload
def atleast_2d(tensors: Tensor, /) -> Tensor: ...  # type: ignore[overload-overlap]
@overload
def atleast_2d(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]: ...
def atleast_2d(*tensors: Any) -> Tensor | tuple[Tensor, ...]:
    """Leading dims of size 1 added up to 2."""
    return _at_least(2, tensors)


@overload
def atleast_3d(tensors: Tensor, /) -> Tensor: ...  # type: ignore[overload-overlap]
@overload
def atleast_3d(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]: ...
def atleast_3d(*tensors: Any) -> Tensor | tuple[Tensor, ...]:
    """Dims of size 1 added up to 3: [n] becomes [1, n, 1] and [m, n] becomes [m, n, 1]."""
    return _at_least(3, tensors)


def _check_some(name: str, tensors: Sequence[Tensor]) -> None:
    if not tensors:
        raise RuntimeError(f"{name} expects a non-empty TensorList")


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined as rows: along dim 0, 1-d tensors being single rows."""
    _check_some("vstack", tensors)
    return _C.cat(list(atleast_2d(list(tensors))), 0)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dim 1 (dim 0 for 1-d tensors)."""
    _check_some("hstack", tensors)
    found = list(atleast_1d(list(tensors)))
    return _C.cat(found, 0 if found and found[0].dim() == 1 else 1)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dim 2."""
    _check_some("dstack", tensors)
    return _C.cat(list(atleast_3d(list(tensors))), 2)


row_stack = vstack


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined as columns: 1-d tensors are single columns."""
    return hstack([t.reshape(t.numel(), 1) if t.dim() <= 1 else t for t in tensors])


def ravel(input: Tensor) -> Tensor:
    """1-d in row-major order; a view of a contiguous tensor, otherwise a copy."""
    return input.contiguous().view(-1)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dims swapped (a view), as ``transpose``."""
    return input.transpose(axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dims swapped (a view), as ``transpose``."""
    return input.transpose(dim0, dim1)


def flipud(input: Tensor) -> Tensor:
    """Rows in reverse order.

    Raises:
        RuntimeError: a 0-d tensor.
    """
    if input.dim() < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return input.flip(0)


def fliplr(input: Tensor) -> Tensor:
    """Columns in reverse order.

    Raises:
        RuntimeError: fewer than 2 dims.
    """
    if input.dim() < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return input.flip(1)


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


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices whose diagonal is the last dim of input, in dims ``dim1`` and ``dim2`` of the result."""
    n = input.size(-1) + abs(offset)
    out = input.new_zeros([*input.shape[:-1], n, n])
    out.diagonal(offset, -2, -1).copy_(input)
    return out.movedim([-2, -1], [dim1, dim2])


def trace(input: Tensor) -> Tensor:
    """Sum of the diagonal of a matrix.

    Raises:
        RuntimeError: not 2-d.
    """
    if input.dim() != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.dim()}")
    return autocast_float32(input).diagonal().sum()


def argwhere(input: Tensor) -> Tensor:
    """Indices of the elements that are not zero: shape [n, dims], as ``nonzero``."""
    return _C.nonzero(input)


def rsub(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """other - alpha * input."""
    check_tensor("rsub", "input", input)
    result: Tensor = other - (input if alpha == 1 else input * alpha)
    return result


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """``steps`` values from base**start to base**end, evenly spaced in the exponent; shape [steps].

    Args:
        start, end, base: numbers.
        layout, pin_memory: accepted, as there is one layout and no device to pin memory for.
    """
    if dtype is not None and not dtype.is_floating_point:  # integers count between the integer parts
        start, end = int(start), int(end)
    exponents = _C.linspace(start, end, steps, dtype=_C.float64, device=device)
    result = _C._to_dtype(_C.pow(scalar_tensor(base, dtype=_C.float64), exponents), dtype or _C.get_default_dtype())
    return result.requires_grad_(requires_grad)


def scalar_tensor(
    s: float,
    *,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A 0-d tensor; the default dtype unless one is given."""
    return _C.full([], s, dtype=dtype or _C.get_default_dtype(), device=device, requires_grad=requires_grad)


def _complement_dims(dims: Sequence[int], ndim: int) -> list[int]:
    """Dims that are not in ``dims``, in order."""
    taken = {d % ndim for d in dims}
    return [d for d in range(ndim) if d not in taken]


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Products of a and b summed over pairs of dims: the last ``dims`` of a with the first of b, or two lists of dims.

    Raises:
        RuntimeError: paired dims of different sizes, or more dims than a tensor has.
    """
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.dim(), b.dim()):
            raise RuntimeError(f"tensordot expects dims >= 0 and at most the number of dimensions, but got dims={dims}")
        dims = (range(a.dim() - dims, a.dim()), range(dims))
    of_a, of_b = ([side] if isinstance(side, int) else list(side) for side in dims)
    for i, j in zip(of_a, of_b, strict=False):  # a size of 1 counts for all of the other's
        if a.size(i) == 1 and b.size(j) != 1:
            b = b.sum(j, keepdim=True, dtype=b.dtype)
        elif b.size(j) == 1 and a.size(i) != 1:
            a = a.sum(i, keepdim=True, dtype=a.dtype)
    if len(of_a) != len(of_b) or any(a.size(i) != b.size(j) for i, j in zip(of_a, of_b, strict=False)):
        raise RuntimeError(
            f"tensordot: contracted dimensions need to match, but dims {of_a} of {list(a.shape)} and {of_b} of "
            f"{list(b.shape)} do not"
        )
    kept_a, kept_b = _complement_dims(of_a, a.dim()), _complement_dims(of_b, b.dim())
    inner = math.prod(a.size(i) for i in of_a)
    left = a.permute([*kept_a, *of_a]).reshape(math.prod(a.size(i) for i in kept_a), inner)
    right = b.permute([*of_b, *kept_b]).reshape(inner, math.prod(b.size(j) for j in kept_b))
    # One number is a dot product as in PyTorch: autocast leaves that in its dtype.
    single = left.size(0) == right.size(1) == 1 and a.dtype == b.dtype
    product = left.reshape(-1).dot(right.reshape(-1)) if single else left @ right
    return product.reshape([*(a.size(i) for i in kept_a), *(b.size(j) for j in kept_b)])


# --- compositions -----------------------------------------------------------------------------------------------------


def clamp_min_(input: Tensor, min: Tensor | float) -> Tensor:
    """:func:`clamp_min` in place."""
    return input.clamp_(min)


def clamp_max_(input: Tensor, max: Tensor | float) -> Tensor:
    """:func:`clamp_max` in place."""
    return input.clamp_(None, max)


def adjoint(input: Tensor) -> Tensor:
    """The last two dims swapped (a view), as ``mT``: real numbers have nothing to conjugate."""
    return input.mT


def positive(input: Tensor) -> Tensor:
    """input itself.

    Raises:
        RuntimeError: a bool tensor.
    """
    if input.dtype is _C.bool:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def float_power(input: Tensor | float, exponent: Tensor | float) -> Tensor:
    """input to the power of exponent, in float64.

    Raises:
        TypeError: two numbers.
    """
    if not (isinstance(input, Tensor) or isinstance(exponent, Tensor)):
        raise TypeError("float_power(): argument 'input' or 'exponent' must be Tensor, got two numbers")
    wide = [_C._to_dtype(t, _C.float64) if isinstance(t, Tensor) else t for t in (input, exponent)]
    return _C.pow(*wide)  # type: ignore[arg-type]  # one of the two is a tensor


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Products summed over the last dim of both: shape ``input.shape[:-1] + other.shape[:-1]``."""
    if input.dim() == 0 or other.dim() == 0:
        return input * other
    if input.dim() == 1 and other.dim() == 1:
        return _C.dot(input, other)
    return tensordot(input, other, ([-1], [-1]))


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other."""
    return norm(input - other, p)


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along ``dim``, taken ``n`` times; ``prepend`` and ``append`` are joined on first.

    Raises:
        RuntimeError: a 0-d input or a negative ``n``.
    """
    if input.dim() == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    if n == 0:
        return input.clone()
    if prepend is not None or append is not None:
        input = _C.cat([t for t in (prepend, input, append) if t is not None], dim)
    for _ in range(min(n, input.size(dim))):
        count = input.size(dim) - 1
        after, before = input.narrow(dim, 1, count), input.narrow(dim, 0, count)
        input = after.logical_xor(before) if input.dtype is _C.bool else after - before
    return input


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotated by ``k`` quarter turns in the plane of two dims, from the first towards the second (a copy).

    Raises:
        RuntimeError: not two different dims, or an input without them.
    """
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.dim() < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.dim()}")
    a, b = (range(input.dim())[d] for d in dims)
    if a == b:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    if k % 4 == 2:
        return input.flip([a, b])
    if k % 4 == 0:
        return input.clone()
    return input.flip(b).transpose(a, b) if k % 4 == 1 else input.transpose(a, b).flip(b)


def nansum(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: dtype | None = None,
) -> Tensor:
    """Sum over dims, NaN counting as zero."""
    return input.masked_fill(input.isnan(), 0).sum(dim, keepdim, dtype=dtype)


def nanmean(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: dtype | None = None,
) -> Tensor:
    """Mean over dims of the elements that are not NaN."""
    return nansum(input, dim, keepdim, dtype=dtype) / input.isnan().logical_not().sum(dim, keepdim)


def isin(elements: Tensor, test_elements: Tensor | float, *, invert: bool = False) -> Tensor:
    """True where an element occurs among ``test_elements`` (a tensor or a number); shape of elements, bool."""
    tests = test_elements if isinstance(test_elements, Tensor) else _C.tensor([test_elements])
    found = (elements.unsqueeze(-1) == tests.reshape(-1)).any(-1)
    return found.logical_not() if invert else found


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each value occurs, or the sum of its weights: shape [max(input) + 1], at least ``minlength``.

    Args:
        input: non-negative integers, shape [n].
        weights: shape [n]; the result has its dtype (float64 for integers).
        minlength: at least this many bins.

    Raises:
        RuntimeError: negative values, not 1-d, not integers, or weights of another size.
    """
    if input.dim() != 1 or input.dtype.is_floating_point or (input.numel() and int(input.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is not None and weights.shape != input.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    bins = max(int(input.max()) + 1 if input.numel() else 0, minlength)
    if weights is None:
        weights = _C.ones(input.shape, dtype=_C.int64)
    elif not weights.dtype.is_floating_point:
        weights = _C._to_dtype(weights, _C.float64)
    return _C.zeros([bins], dtype=weights.dtype).index_add(0, _C._to_dtype(input, _C.int64), weights.detach())


def _triangle_indices(row: int, col: int, keep: Callable[[Tensor], Tensor], dtype: dtype | None) -> Tensor:
    return _C._to_dtype(_C.nonzero(keep(_C.ones([row, col], dtype=_C.bool))).t().contiguous(), dtype or _C.int64)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: dtype | None = None, device: device | str | None = None
) -> Tensor:
    """Row and column indices of the lower triangle of a [row, col] matrix: shape [2, n], int64."""
    return _triangle_indices(row, col, lambda m: m.tril(offset), dtype)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: dtype | None = None, device: device | str | None = None
) -> Tensor:
    """Row and column indices of the upper triangle of a [row, col] matrix: shape [2, n], int64."""
    return _triangle_indices(row, col, lambda m: m.triu(offset), dtype)
