"""Methods of Tensor for Python's and NumPy's protocols: text, iteration, arrays, DLPack."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import CONSTANTS, method
from deepseek._C import Tensor
from deepseek._tensor.printing import tensor_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


@method
def __repr__(self: Tensor) -> str:
    return tensor_text(self)


@method
def __format__(self: Tensor, format_spec: str) -> str:
    if self.dim() == 0:
        return format(self.item(), format_spec)
    return object.__format__(self, format_spec)


@method
def __dir__(self: Tensor) -> list[str]:
    return sorted({*dir(type(self)), *self.__dict__})


@method
def __iter__(self: Tensor) -> Iterator[Tensor]:
    if self.dim() == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))


@method
def __reversed__(self: Tensor) -> Tensor:
    return self if self.dim() == 0 else self.flip(0)


@method
def __contains__(self: Tensor, element: Any) -> bool:
    if isinstance(element, complex):
        return element.imag == 0 and element.real in self
    if isinstance(element, Tensor) or _C._is_number(element):
        return bool(_C.eq(self, element).any())
    raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}.")


@method
def tolist(self: Tensor) -> Any:
    """Nested lists of Python numbers; a number for a 0-d tensor."""
    return _C._tolist(self)


# --- other libraries --------------------------------------------------------------------------------------------------


CONSTANTS["__array_priority__"] = 1000


@method
def numpy(self: Tensor, *, force: bool = False) -> Any:
    """A NumPy array on the same memory (no copy). Autograd does not notice writes made through the array.

    Args:
        force: detach first when the tensor requires a gradient.

    Raises:
        RuntimeError: the tensor requires a gradient.
        TypeError: NumPy has no such dtype (bfloat16 without ml_dtypes).
    """
    return _C._numpy(self, force)


@method
def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Any:
    array = self.numpy()
    if dtype is not None and array.dtype != dtype:
        if copy is False:
            raise ValueError(f"a NumPy array of dtype {dtype} of this {self.dtype} tensor needs a copy")
        return array.astype(dtype)
    return array.copy() if copy else array


@method
def __array_wrap__(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    """Results of NumPy functions on tensors become tensors."""
    return _C.from_numpy(array) if array.ndim else _C.tensor(array)


@method
def __dlpack__(
    self: Tensor, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
) -> Any:
    if stream is not None and stream != -1:
        raise BufferError(f"__dlpack__: a CPU tensor has no streams, got stream={stream}")
    if dl_device is not None and tuple(dl_device) != (1, 0):
        raise BufferError(f"__dlpack__: cannot export to device {tuple(dl_device)}; deepseek shares CPU memory only")
    t = self.clone() if copy else self
    return _C._to_dlpack(t, max_version is not None and max_version[0] >= 1, bool(copy))


@method
def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    return (1, 0)  # kDLCPU
