"""Functions that ask about tensors: what they are, and whether they are equal."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.arguments import check_tensor
from deepseek._binding.public import method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@public
def is_tensor(obj: Any) -> bool:
    """True for a Tensor (or a subclass's object)."""
    return isinstance(obj, Tensor)


@public
@method
def is_nonzero(input: Tensor) -> bool:
    """``bool(input)`` of a one-element tensor."""
    return bool(input)


@public
@method
def equal(input: Tensor, other: Tensor) -> bool:
    """True when both have the same size and elements."""
    check_tensor("equal", "input", input)
    check_tensor("equal", "other", other)
    return input.shape == other.shape and bool(_C.eq(input, other).all())


@public
@method
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
