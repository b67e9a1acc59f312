"""Ops whose PyTorch signature needs a wrapper, and top-level functions whose results are Python values."""

from __future__ import annotations

from deepseek import _C
from deepseek._arguments import check_tensor
from deepseek._C import Tensor
from deepseek._overload import overload

__all__ = [
    "allclose",
    "broadcast_shapes",
    "clamp_max",
    "clamp_min",
    "equal",
    "is_complex",
    "is_floating_point",
    "is_nonzero",
    "is_tensor",
    "nonzero",
    "norm",
    "numel",
    "split",
    "split_with_sizes",
    "std",
    "std_mean",
    "tensor_split",
    "var",
    "var_mean",
    "where",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal, TypeVar

    from deepseek import Size, dtype

    F = TypeVar("F", bound=Callable[..., Any])


def _documented(f: F) -> F:
    """Puts the op's own documentation, which alternates with its overloads' signatures, before that of its wrapper."""
    about = getattr(_C, f.__name__).__doc__.split("\n\n")[1::2]
    f.__doc__ = "\n\n".join([*about, (f.__doc__ or "").lstrip("\n")])
    return f


# --- ops with more than one PyTorch signature -------------------------------------------------------------------------


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Tensor | float, other: Tensor | float, *, out: Tensor | None = None) -> Tensor: ...
@_documented
def where(
    condition: Tensor,
    input: Tensor | float | None = None,
    other: Tensor | float | None = None,
    *,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """``where(condition)`` alone gives ``nonzero(condition, as_tuple=True)``."""
    if out is not None:
        written: Tensor = _C.op_call("where", condition, input, other, out=out)
        return written
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return _C.where(condition, input, other)  # type: ignore[arg-type]  # it refuses None


@overload
def nonzero(input: Tensor, *, as_tuple: Literal[False] = False) -> Tensor: ...
@overload
def nonzero(input: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
@_documented
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
    """With ``as_tuple=True``: one 1-d index tensor for each dim, usable as an index."""
    if not as_tuple:
        return _C.nonzero(input)
    return _C.nonzero(input.reshape(1) if input.dim() == 0 else input).unbind(1)


def _spread(
    op: Callable[..., Any],
    input: Tensor,
    dim: Any,
    unbiased: bool | None,
    keepdim: bool,
    correction: float | None,
    out: Any = None,
) -> Any:
    """std, var and their ``_mean`` forms: the older ``unbiased`` flag says n - 1 (True) or n (False)."""
    if isinstance(dim, bool):  # var(x, False)
        dim, unbiased = None, dim
    if unbiased is not None:
        if correction is not None:
            raise TypeError(f"{op.__name__}(): give `correction` or `unbiased`, not both")
        correction = int(unbiased)
    into = {} if out is None else {"out": out}
    return op(input, dim, correction=correction, keepdim=keepdim, **into)


@_documented
def std(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
    axis: int | Sequence[int] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """
    Args:
        input: any shape, floating.
        dim: an int or several; all when None. ``axis`` is NumPy's name for it.
        unbiased: PyTorch's older spelling of ``correction``: True is 1, False is 0.
        keepdim: keep reduced dims with size 1.
        correction: what is taken from the number of elements.
        out: write the result into this.
    """
    result: Tensor = _spread(_C.std, input, dim if axis is None else axis, unbiased, keepdim, correction, out)
    return result


@_documented
def var(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
    axis: int | Sequence[int] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """
    Args:
        input: any shape, floating.
        dim: an int or several; all when None. ``axis`` is NumPy's name for it.
        unbiased: PyTorch's older spelling of ``correction``: True is 1, False is 0.
        keepdim: keep reduced dims with size 1.
        correction: what is taken from the number of elements.
        out: write the result into this.
    """
    result: Tensor = _spread(_C.var, input, dim if axis is None else axis, unbiased, keepdim, correction, out)
    return result


@_documented
def std_mean(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
    axis: int | Sequence[int] | None = None,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """
    Args:
        input: any shape, floating.
        dim: an int or several; all when None. ``axis`` is NumPy's name for it.
        unbiased: PyTorch's older spelling of ``correction``: True is 1, False is 0.
        keepdim: keep reduced dims with size 1.
        correction: what is taken from the number of elements.
        out: write the result into this.
    """
    pair: tuple[Tensor, Tensor] = _spread(
        _C.std_mean, input, dim if axis is None else axis, unbiased, keepdim, correction, out
    )
    return pair


@_documented
def var_mean(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
    axis: int | Sequence[int] | None = None,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """
    Args:
        input: any shape, floating.
        dim: an int or several; all when None. ``axis`` is NumPy's name for it.
        unbiased: PyTorch's older spelling of ``correction``: True is 1, False is 0.
        keepdim: keep reduced dims with size 1.
        correction: what is taken from the number of elements.
        out: write the result into this.
    """
    pair: tuple[Tensor, Tensor] = _spread(
        _C.var_mean, input, dim if axis is None else axis, unbiased, keepdim, correction, out
    )
    return pair


@_documented
def norm(
    input: Tensor,
    p: float | str = "fro",
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: dtype | None = None,
) -> Tensor:
    """``p="fro"`` is the 2-norm.

    Raises:
        NotImplementedError: ``p="nuc"``, which needs a singular value decomposition.
    """
    if isinstance(p, str):
        if p == "nuc":
            raise NotImplementedError("norm(p='nuc') is not available: it needs a singular value decomposition")
        if p not in ("fro", "inf", "-inf"):
            raise RuntimeError(f"norm(): p must be a number, 'fro', 'inf' or '-inf', got {p!r}")
        p = 2 if p == "fro" else float(p)
    return _C.norm(input, p, dim, keepdim, dtype)


_MAX_LIST = 8  # an int[] argument of an op holds at most this many entries


@_documented
def split(
    tensor: Tensor,
    split_size_or_sections: int | Sequence[int] | None = None,
    dim: int = 0,
    *,
    split_size: int | Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """``split_size_or_sections`` is the size of each piece, or a list of sizes that add up to the dim."""
    sections = split_size if split_size_or_sections is None else split_size_or_sections
    if not isinstance(sections, (list, tuple)) or len(sections) <= _MAX_LIST:
        return _C.split(tensor, sections, dim)  # type: ignore[arg-type]  # it refuses None
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


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`split` with a list of sizes."""
    return split(input, list(split_sizes), dim)


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0) -> tuple[Tensor, ...]:
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


def clamp_min(input: Tensor, min: Tensor | float) -> Tensor:
    """The larger of input and ``min``; gradients at ties go to input."""
    check_tensor("clamp_min", "input", input)
    return _C.clamp(input, min)


def clamp_max(input: Tensor, max: Tensor | float) -> Tensor:
    """The smaller of input and ``max``; gradients at ties go to input."""
    check_tensor("clamp_max", "input", input)
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
    check_tensor("equal", "input", input)
    check_tensor("equal", "other", other)
    return input.shape == other.shape and bool(_C.eq(input, other).all())


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """True when ``|input - other| <= atol + rtol * |other|`` everywhere (with broadcasting).

    Raises:
        TypeError: not tensors.
        RuntimeError: different dtypes, or shapes that do not broadcast.
    """
    check_tensor("allclose", "input", input)
    check_tensor("allclose", "other", other)
    if input.dtype is not other.dtype:
        raise RuntimeError(f"{input.dtype} did not match {other.dtype}")
    return bool(_C.isclose(input, other, rtol, atol, equal_nan).all())


def broadcast_shapes(*shapes: int | Sequence[int]) -> Size:
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
                        f"Attempting to broadcast a dimension of length {dims[i]} at {i}! Mismatching argument at "
                        f"index {index} had {tuple(dims)}; but expected shape should be broadcastable to {result}"
                    )
                result[i] = dims[i]
    return _C.Size(result)
