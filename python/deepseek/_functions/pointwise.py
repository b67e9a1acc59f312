"""Functions of each element by itself."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import method, method_named, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
    return self.copy_(_C.float_power(self, exponent))


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
