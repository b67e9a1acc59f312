"""Functions that reduce dims: spread, norms, sums without NaN; and differences of neighbours."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import documented, method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from deepseek import dtype


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


@public
@method
@documented
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


@public
@method
@documented
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


@public
@documented
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


@public
@documented
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


@public
@method
@documented
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


@public
@method
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other."""
    return norm(input - other, p)


@public
@method
def nansum(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: dtype | None = None,
) -> Tensor:
    """Sum over dims, NaN counting as zero."""
    return input.masked_fill(input.isnan(), 0).sum(dim, keepdim, dtype=dtype)


@public
@method
def nanmean(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: dtype | None = None,
) -> Tensor:
    """Mean over dims of the elements that are not NaN."""
    return nansum(input, dim, keepdim, dtype=dtype) / input.isnan().logical_not().sum(dim, keepdim)


@public
@method
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
