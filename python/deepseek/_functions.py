"""Ops whose PyTorch signature needs a wrapper, and top-level functions whose results are Python values."""

from __future__ import annotations

from deepseek import _C
from deepseek._C import Tensor

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
    from typing import Any, TypeVar

    from deepseek import dtype

    F = TypeVar("F", bound=Callable[..., Any])


def _documented(f: F) -> F:
    """Puts the op's own documentation before that of its wrapper."""
    f.__doc__ = f"{getattr(_C, f.__name__).__doc__}\n\n{f.__doc__ or ''}".rstrip()
    return f


# --- ops with more than one PyTorch signature -------------------------------------------------------------------------


@_documented
def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """``where(condition)`` alone gives ``nonzero(condition, as_tuple=True)``."""
    if out is not None:
        return _C.op_call("where", condition, input, other, out=out)
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return _C.where(condition, input, other)


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


def _check_tensor(name: str, input: Any) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """The larger of input and ``min``; gradients at ties go to input."""
    _check_tensor("clamp_min", input)
    return _C.clamp(input, min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """The smaller of input and ``max``; gradients at ties go to input."""
    _check_tensor("clamp_max", input)
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
                        f"Attempting to broadcast a dimension of length {dims[i]} at {i}! Mismatching argument at "
                        f"index {index} had {tuple(dims)}; but expected shape should be broadcastable to {result}"
                    )
                result[i] = dims[i]
    return _C.Size(result)
