"""The memory behind a tensor, as far as Python needs to see it: address, size and identity."""

from __future__ import annotations

from deepseek._binding.public import METHODS, method
from deepseek._tensor.device import CPU, device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek import Tensor

__all__ = ["UntypedStorage"]


def address_of(tensor: Tensor) -> int:
    """``tensor.data_ptr()`` for those who only look: that one says that the memory is in other hands from now on."""
    return tensor._storage_ptr() + tensor.storage_offset() * tensor.element_size()


class UntypedStorage:
    """A block of bytes that one or more tensors show. Equal when it is the same block."""

    def __init__(self, tensor: Tensor) -> None:
        self._keep = tensor  # keeps the memory alive

    def data_ptr(self) -> int:
        """Address of the first byte."""
        self._keep.data_ptr()  # from here on the memory is in other hands
        return self._keep._storage_ptr()

    def nbytes(self) -> int:
        """Size of the memory in bytes."""
        return self._keep._storage_nbytes()

    size = nbytes
    __len__ = nbytes

    @property
    def device(self) -> device:
        """Always the CPU."""
        return CPU

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and self._keep._storage_ptr() == other._keep._storage_ptr()

    def __hash__(self) -> int:
        return hash(self._keep._storage_ptr())

    def __repr__(self) -> str:
        return f"<deepseek.UntypedStorage of {self.nbytes()} bytes at {self._keep._storage_ptr():#x}>"


@method
def untyped_storage(self: Tensor) -> UntypedStorage:
    """The memory behind this tensor and its views."""
    return UntypedStorage(self)


METHODS["storage"] = untyped_storage


@method
def is_same_size(self: Tensor, other: Tensor) -> bool:
    """True when both have the same shape."""
    return self.shape == other.shape


@method
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """True when both show the same memory with the same shape and strides."""
    return (
        address_of(self) == address_of(tensor)
        and self._storage_ptr() == tensor._storage_ptr()
        and self.shape == tensor.shape
        and self.stride() == tensor.stride()
    )
