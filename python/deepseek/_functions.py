"""Top-level functions written in Python over the ops of the table, and ops whose PyTorch signature needs a wrapper.

Everything here is shown as ``deepseek.<name>``; those in ``METHODS`` are methods of Tensor too.
"""

from __future__ import annotations

import math

from deepseek import _C
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from deepseek import dtype

    F = TypeVar("F", bound=Callable[..., Any])


def _documented(f: F) -> F:
    """Puts the op's own documentation before that of its wrapper."""
    f.__doc__ = f"{getattr(_C, f.__name__).__doc__}\n\n{f.__doc__ or ''}".rstrip()
    return f


# --- ops with more than one PyTorch signature -------------------------------------------------------------------------


@_documented
def where(condition: Tensor, input: Any = None, other: Any = None, **kwargs: Any) -> Any:
    """``where(condition)`` alone gives ``nonzero(condition, as_tuple=True)``."""
    if input is None and other is None and not kwargs:
        return nonzero(condition, as_tuple=True)
    return _C.where(condition, input, other, **kwargs)


@_documented
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """With ``as_tuple=True``: one 1-d index tensor for each dim, usable as an index."""
    if not as_tuple:
        return _C.nonzero(input)
    return _C.nonzero(input.reshape(1) if input.dim() == 0 else input).unbind(1)


def _spread(op: Callable[..., Any], input: Tensor, dim: Any, unbiased: Any, keepdim: bool, rest: dict[str, Any]) -> Any:
    """std, var and their ``_mean`` forms: the older ``unbiased`` flag says n - 1 (True) or n (False)."""
    if isinstance(dim, bool):  # var(x, False)
        dim, unbiased = None, dim
    if unbiased is not None:
        if "correction" in rest:
            raise TypeError(f"{op.__name__}(): give `correction` or `unbiased`, not both")
        rest["correction"] = int(unbiased)
    return op(input, dim, keepdim=keepdim, **rest)


@_documented
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    """``unbiased`` is PyTorch's older spelling of ``correction`` (True: 1, False: 0)."""
    result: Tensor = _spread(_C.std, input, kwargs.pop("axis", dim), unbiased, keepdim, kwargs)
    return result


@_documented
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    """``unbiased`` is PyTorch's older spelling of ``correction`` (True: 1, False: 0)."""
    result: Tensor = _spread(_C.var, input, kwargs.pop("axis", dim), unbiased, keepdim, kwargs)
    return result


@_documented
def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """``unbiased`` is PyTorch's older spelling of ``correction`` (True: 1, False: 0)."""
    return _spread(_C.std_mean, input, kwargs.pop("axis", dim), unbiased, keepdim, kwargs)


@_documented
def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """``unbiased`` is PyTorch's older spelling of ``correction`` (True: 1, False: 0)."""
    return _spread(_C.var_mean, input, kwargs.pop("axis", dim), unbiased, keepdim, kwargs)


@_documented
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: dtype | None = None) -> Tensor:
    """``p="fro"`` is the 2-norm. The nuclear norm needs an SVD and is not available (NotImplementedError)."""
    if isinstance(p, str):
        if p == "nuc":
            raise NotImplementedError("norm(p='nuc') is not available: it needs a singular value decomposition")
        if p not in ("fro", "inf", "-inf"):
            raise RuntimeError(f"norm(): p must be a number, 'fro', 'inf' or '-inf', got {p!r}")
        p = 2 if p == "fro" else float(p)
    return _C.norm(input, p, dim, keepdim, dtype)


_MAX_LIST = 8  # an int[] argument of an op holds at most this many entries


@_documented
def split(tensor: Tensor, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None) -> Any:
    """``split_size_or_sections`` is the size of each piece, or a list of sizes that add up to the dim."""
    sections = split_size if split_size_or_sections is None else split_size_or_sections
    if not isinstance(sections, (list, tuple)) or len(sections) <= _MAX_LIST:
        return _C.split(tensor, sections, dim)
    if any(n < 0 for n in sections):
        raise RuntimeError(f"split expects non-negative sizes, got {list(sections)}")
    if sum(sections) != tensor.size(dim):
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {tensor.size(dim)} (input tensor's size at "
            f"dimension {dim}), but got split_sizes={list(sections)}"
        )
    ends = [0]
    for n in sections:
        ends.append(ends[-1] + n)
    return tuple(tensor.narrow(dim, start, n) for start, n in zip(ends, sections, strict=False))


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> Any:
    """:func:`split` with a list of sizes."""
    return split(input, list(split_sizes), dim)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of nearly equal size (an int), or cut at the given positions (a list, tuple or 1-d tensor).

    Raises:
        RuntimeError: a 0-d input, or fewer than one section.
    """
    if input.dim() == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    n = input.size(dim)
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        parts = indices_or_sections
        if parts <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {parts}")
        sizes = [n // parts + (i < n % parts) for i in range(parts)]
        starts = [sum(sizes[:i]) for i in range(parts)]
        return tuple(input.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=True))
    bounds = [slice(i).indices(n)[1] for i in indices_or_sections]
    starts, stops = [0, *bounds], [*bounds, n]
    return tuple(input.narrow(dim, a, max(0, b - a)) for a, b in zip(starts, stops, strict=True))


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """The larger of input and ``min``; gradients at ties go to input."""
    return _C.clamp(input, min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """The smaller of input and ``max``; gradients at ties go to input."""
    return _C.clamp(input, None, max)


# --- values of Python, not tensors ------------------------------------------------------------------------------------


def is_tensor(obj: Any) -> bool:
    """True for a Tensor (or a subclass's object)."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """True when the dtype is floating."""
    return input.dtype.is_floating_point


def is_complex(input: Tensor) -> bool:
    """False: there are no complex dtypes."""
    return False


def is_nonzero(input: Tensor) -> bool:
    """``bool(input)`` of a one-element tensor."""
    return bool(input)


def numel(input: Tensor) -> int:
    """Number of elements."""
    return input.numel()


def equal(input: Tensor, other: Tensor) -> bool:
    """True when both have the same size and elements."""
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        wrong = other if isinstance(input, Tensor) else input
        raise TypeError(f"equal(): arguments must be Tensors, not {type(wrong).__name__}")
    return input.shape == other.shape and bool(_C.eq(input, other).all())


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """True when ``|input - other| <= atol + rtol * |other|`` everywhere (with broadcasting).

    Raises:
        TypeError: not tensors.
        RuntimeError: different dtypes, or shapes that do not broadcast.
    """
    for t in (input, other):
        if not isinstance(t, Tensor):
            raise TypeError(f"allclose(): arguments must be Tensors, not {type(t).__name__}")
    if input.dtype is not other.dtype:
        raise RuntimeError(f"{input.dtype} did not match {other.dtype}")
    return bool(_C.isclose(input, other, rtol, atol, equal_nan).all())


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape that tensors of these shapes broadcast to.

    Raises:
        RuntimeError: they do not broadcast.
    """
    result: list[int] = []
    for index, shape in enumerate(shapes):
        dims = [shape] if isinstance(shape, int) else list(shape)
        result = [1] * (len(dims) - len(result)) + result
        for i in range(-1, -len(dims) - 1, -1):
            if dims[i] != result[i] and dims[i] != 1:
                if result[i] != 1:
                    raise RuntimeError(
                        f"Attempting to broadcast a dimension of length {dims[i]} at {i}! Mismatching argument at index "
                        f"{index} had {tuple(dims)}; but expected shape should be broadcastable to {result}"
                    )
                result[i] = dims[i]
    return _C.Size(result)


# --- shapes -----------------------------------------------------------------------------------------------------------


def _tensors(args: Any) -> tuple[Tensor, ...]:
    """``f(a, b)`` and ``f([a, b])`` alike."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else args


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape (views)."""
    found = _tensors(tensors)
    shape = broadcast_shapes(*(t.shape for t in found))
    return tuple(t.expand(shape) for t in found)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
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
        grids = [g.transpose(0, 1) for g in grids]
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


def atleast_1d(*tensors: Any) -> Any:
    """0-d tensors as 1-d; others as they are."""
    return _at_least(1, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Leading dims of size 1 added up to 2."""
    return _at_least(2, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Dims of size 1 added up to 3: [n] becomes [1, n, 1] and [m, n] becomes [m, n, 1]."""
    return _at_least(3, tensors)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined as rows: along dim 0, 1-d tensors being single rows."""
    return _C.cat(list(atleast_2d(list(tensors))), 0)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dim 1 (dim 0 for 1-d tensors)."""
    found = list(atleast_1d(list(tensors)))
    return _C.cat(found, 0 if found and found[0].dim() == 1 else 1)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dim 2."""
    return _C.cat(list(atleast_3d(list(tensors))), 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined as columns: 1-d tensors are single columns."""
    return hstack([t.reshape(t.numel(), 1) if t.dim() <= 1 else t for t in tensors])


def ravel(input: Tensor) -> Tensor:
    """1-d, a view where the memory order allows one."""
    return input.reshape(-1)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dims swapped (a view), as ``transpose``."""
    return input.transpose(axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dims swapped (a view), as ``transpose``."""
    return input.transpose(dim0, dim1)


def flipud(input: Tensor) -> Tensor:
    """Rows in reverse order."""
    return input.flip(0)


def fliplr(input: Tensor) -> Tensor:
    """Columns in reverse order."""
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
    out = _C.zeros([*input.shape[:-1], n, n], dtype=input.dtype)
    out.diagonal(offset, -2, -1).copy_(input)
    return out.movedim([-2, -1], [dim1, dim2])


def trace(input: Tensor) -> Tensor:
    """Sum of the diagonal of a matrix.

    Raises:
        RuntimeError: not 2-d.
    """
    if input.dim() != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.dim()}")
    return input.diagonal().sum()


def argwhere(input: Tensor) -> Tensor:
    """Indices of the elements that are not zero: shape [n, dims], as ``nonzero``."""
    return _C.nonzero(input)


def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input."""
    result: Tensor = other - (input if alpha == 1 else input * alpha)
    return result


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, **options: Any) -> Tensor:
    """``steps`` values from base**start to base**end, evenly spaced in the exponent; shape [steps]."""
    wanted = options.pop("dtype", None)
    exponents = _C.linspace(start, end, steps, dtype=_C.float64, **{k: v for k, v in options.items() if k != "requires_grad"})
    result = _C._to_dtype(_C.pow(base, exponents), wanted or _C.get_default_dtype())
    return result.requires_grad_(options.get("requires_grad", False))


def scalar_tensor(s: Any, *, dtype: dtype | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
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
    if len(of_a) != len(of_b) or any(a.size(i) != b.size(j) for i, j in zip(of_a, of_b, strict=False)):
        raise RuntimeError(
            f"tensordot: contracted dimensions need to match, but dims {of_a} of {list(a.shape)} and {of_b} of "
            f"{list(b.shape)} do not"
        )
    kept_a, kept_b = _complement_dims(of_a, a.dim()), _complement_dims(of_b, b.dim())
    inner = math.prod(a.size(i) for i in of_a)
    left = a.permute([*kept_a, *of_a]).reshape(math.prod(a.size(i) for i in kept_a), inner)
    right = b.permute([*of_b, *kept_b]).reshape(inner, math.prod(b.size(j) for j in kept_b))
    return (left @ right).reshape([*(a.size(i) for i in kept_a), *(b.size(j) for j in kept_b)])
