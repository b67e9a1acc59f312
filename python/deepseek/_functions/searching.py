"""Functions that find elements: ``where`` and ``nonzero``."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.overload import overload
from deepseek._binding.public import documented, method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Tensor | float, other: Tensor | float, *, out: Tensor | None = None) -> Tensor: ...
@public
@documented
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
@public
@method
@documented
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
    """With ``as_tuple=True``: one 1-d index tensor for each dim, usable as an index."""
    if not as_tuple:
        return _C.nonzero(input)
    return _C.nonzero(input.reshape(1) if input.dim() == 0 else input).unbind(1)
