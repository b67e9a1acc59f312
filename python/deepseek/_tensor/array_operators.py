"""Operators between a tensor and a NumPy array, in both orders: elementwise, with a tensor as the result.

dtypes are NumPy's (an array is never the weaker operand), as PyTorch's are where it computes such a call at all. In
place a tensor keeps its own. Gradients flow to the tensor.
"""

from __future__ import annotations

import operator
import sys

from deepseek import _C
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def call(method: str, left: Any, right: Any) -> Any:
    """``left.method(right)`` where one is a tensor; NotImplemented unless the other is an array of numbers.

    Args:
        method: an operator's, such as ``"__add__"``, ``"__lt__"`` or ``"__iadd__"``.
        left: tensor or array.
        right: array or tensor.
    """
    tensor_first = isinstance(left, Tensor)
    tensor, array = (left, right) if tensor_first else (right, left)
    if not _is_array_of_numbers(array):
        return NotImplemented
    function = getattr(operator, method)
    if method.startswith("__i") and hasattr(operator, "__" + method[3:]):
        return function(tensor, _as_tensor(array, _promoted(tensor, array)))
    target = _common_dtype(function, tensor, array, tensor_first)
    other = _as_tensor(array, target)
    if target is not None:
        tensor = _C._to_dtype(tensor, other.dtype)
    return function(tensor, other) if tensor_first else function(other, tensor)


def _is_array_of_numbers(value: Any) -> bool:
    numpy, masked = sys.modules.get("numpy"), sys.modules.get("numpy.ma")
    if numpy is None or not isinstance(value, numpy.ndarray):
        return False
    # A masked array computes on its own: it knows which elements count.
    return value.dtype.kind in "biufV" and not (masked and isinstance(value, masked.MaskedArray))


def _numpy_dtype(tensor: Tensor) -> Any:
    """None where NumPy has no such dtype: bfloat16, float8."""
    import numpy

    name = str(tensor.dtype).partition(".")[2]
    return numpy.dtype(name) if hasattr(numpy, name) else None


def _promoted(tensor: Tensor, array: Any) -> Any:
    """What NumPy promotes the two dtypes to; None when it does not know one of them, and tensors promote as usual."""
    import numpy

    own = _numpy_dtype(tensor)
    return None if own is None or array.dtype.kind == "V" else numpy.result_type(own, array.dtype)


def _common_dtype(function: Any, tensor: Tensor, array: Any, tensor_first: bool) -> Any:
    """The NumPy dtype both operands are cast to, as :func:`_promoted` but for operators that compute in a wider one.

    Raises:
        TypeError: NumPy has no such operation, as bitwise ones of floats.
    """
    import numpy

    promoted = _promoted(tensor, array)
    if promoted is None:
        return None
    pair = [numpy.ones(1, _numpy_dtype(tensor)), numpy.ones(1, array.dtype)]
    found = function(*(pair if tensor_first else pair[::-1])).dtype
    return promoted if found.kind == "b" else found


def _as_tensor(array: Any, dtype: Any) -> Tensor:
    """A copy, so that what is saved for a gradient cannot be written through the array."""
    import numpy

    return _C.tensor(numpy.array(array, dtype or array.dtype.newbyteorder("="), order="C"))
