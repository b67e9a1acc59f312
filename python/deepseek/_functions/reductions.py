"""Functions that reduce dims: spread and norms."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import documented, method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from deepseek import dtype

    F = TypeVar("F", bound=Callable[..., Any])
    R = TypeVar("R")


def _spread(
    op: Callable[..., R],
    input: Tensor,
    dim: Any,
    unbiased: bool | None,
    keepdim: bool,
    correction: float | None,
    axis: Any,
    out: R | None,
) -> R:
    """std, var and their ``_mean`` forms: the older ``unbiased`` flag says n - 1 (True) or n (False)."""
    if axis is not None:
        dim = axis
    if isinstance(dim, bool):  # var(x, False)
        dim, unbiased = None, dim
    if unbiased is not None:
        if correction is not None:
            raise TypeError(f"{op.__name__}(): give `correction` or `unbiased`, not both")
        correction = int(unbiased)
    into = {} if out is None else {"out": out}
    return op(input, dim, correction=correction, keepdim=keepdim, **into)


def _spread_documented(function: F) -> F:
    function.__doc__ = """
    Args:
        input: any shape, floating.
        dim: an int or several; all when None. ``axis`` is NumPy's name for it.
        unbiased: PyTorch's older spelling of ``correction``: True is 1, False is 0.
        keepdim: keep reduced dims with size 1.
        correction: what is taken from the number of elements.
        out: write the result into this.
    """
    return documented(function)


@public
@method
@_spread_documented
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
    return _spread(_C.std, input, dim, unbiased, keepdim, correction, axis, out)


@public
@method
@_spread_documented
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
    return _spread(_C.var, input, dim, unbiased, keepdim, correction, axis, out)


@public
@_spread_documented
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
    return _spread(_C.std_mean, input, dim, unbiased, keepdim, correction, axis, out)


@public
@_spread_documented
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
    return _spread(_C.var_mean, input, dim, unbiased, keepdim, correction, axis, out)


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
