"""Small top-level functions and placeholders of the package."""

from __future__ import annotations

from deepseek import _C

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import Tensor, dtype


class layout:  # noqa: N801  (PyTorch's name)
    """How a tensor's memory is organised; there is one layout, ``deepseek.strided``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"deepseek.{self._name}"


class memory_format(layout):  # noqa: N801  (PyTorch's name)
    """An order of dims in memory, for arguments of that name, which have no effect here."""


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")


def is_grad_enabled() -> bool:
    """True when ops are recorded for backward in this thread."""
    return _C._is_grad_enabled()


def is_inference_mode_enabled() -> bool:
    """True inside ``inference_mode``."""
    return _C._is_inference_mode()


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """True inside an enabled ``autocast``."""
    return _C._autocast_state()[0]


def set_default_dtype(d: dtype) -> None:
    """The dtype of tensors made from Python floats (float32 at the start).

    Raises:
        TypeError: not a floating dtype.
    """
    if not isinstance(d, _C.dtype) or not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    _C.set_default_dtype(d)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of an object with ``__dlpack__`` (NumPy array, PyTorch tensor, …) or of a DLPack capsule.

    Raises:
        BufferError: memory that is not the CPU's, or a dtype that has no counterpart.
        TypeError: an object without ``__dlpack__``.
    """
    if type(ext_tensor).__name__ == "PyCapsule":
        return _C._from_dlpack_capsule(ext_tensor)
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"from_dlpack(): expected an object with __dlpack__, got {type(ext_tensor).__name__}")
    kind, index = (int(v) for v in ext_tensor.__dlpack_device__())
    if kind != 1:
        raise BufferError(f"from_dlpack(): the data is on DLPack device ({kind}, {index}); deepseek shares CPU memory only")
    try:
        capsule = ext_tensor.__dlpack__(max_version=(1, 0))
    except TypeError:  # an exporter of the protocol before 1.0
        capsule = ext_tensor.__dlpack__()
    return _C._from_dlpack_capsule(capsule)
