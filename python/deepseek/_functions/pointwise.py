"""Functions of each element by itself, and their in-place twins."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.arguments import check_tensor
from deepseek._binding.public import method, method_named, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@public
@method
def clamp_min(input: Tensor, min: Tensor | float) -> Tensor:
    """The larger of input and ``min``; gradients at ties go to input."""
    check_tensor("clamp_min", "input", input)
    return _C.clamp(input, min)


@public
@method
def clamp_min_(input: Tensor, min: Tensor | float) -> Tensor:
    """:func:`clamp_min` in place."""
    return input.clamp_(min)


@public
@method
def clamp_max(input: Tensor, max: Tensor | float) -> Tensor:
    """The smaller of input and ``max``; gradients at ties go to input."""
    check_tensor("clamp_max", "input", input)
    return _C.clamp(input, None, max)


@public
@method
def clamp_max_(input: Tensor, max: Tensor | float) -> Tensor:
    """:func:`clamp_max` in place."""
    return input.clamp_(None, max)


@public
@method
def float_power(input: Tensor | float, exponent: Tensor | float) -> Tensor:
    """input to the power of exponent, in float64.

    Raises:
        TypeError: two numbers.
    """
    if not (isinstance(input, Tensor) or isinstance(exponent, Tensor)):
        raise TypeError("float_power(): argument 'input' or 'exponent' must be Tensor, got two numbers")
    wide = [_C._to_dtype(t, _C.float64) if isinstance(t, Tensor) else t for t in (input, exponent)]
    return _C.pow(*wide)  # one of the two is a tensor


@method_named("float_power_")
def _float_power_(self: Tensor, exponent: Any) -> Tensor:
    """:func:`float_power` into this tensor, which has to be float64.

    Raises:
        RuntimeError: another dtype.
    """
    if self.dtype is not _C.float64:
        raise RuntimeError(
            f"the base given to float_power_ has dtype {self.dtype} but the operation's result requires dtype float64"
        )
    return self.copy_(float_power(self, exponent))


@public
@method
def positive(input: Tensor) -> Tensor:
    """input itself.

    Raises:
        RuntimeError: a bool tensor.
    """
    if input.dtype is _C.bool:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


@public
def rsub(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """other - alpha * input."""
    check_tensor("rsub", "input", input)
    result: Tensor = other - (input if alpha == 1 else input * alpha)
    return result
