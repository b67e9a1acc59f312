"""What the package shows besides ops, dtypes and sub-packages; the package imports all of ``__all__``."""

from __future__ import annotations

from math import e, inf, nan, pi

from deepseek import _C
from deepseek._C import LoadError, Size, Tensor, dtype
from deepseek._device import device
from deepseek._exchange import asarray, from_dlpack, from_torch
from deepseek._info import finfo, iinfo
from deepseek._tensor_str import set_printoptions
from deepseek.autograd.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled
from deepseek.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Generator",
    "LoadError",
    "Size",
    "Tensor",
    "as_tensor",
    "asarray",
    "can_cast",
    "channels_last",
    "channels_last_3d",
    "contiguous_format",
    "default_generator",
    "device",
    "dtype",
    "e",
    "empty_cache",
    "enable_grad",
    "finfo",
    "from_dlpack",
    "from_numpy",
    "from_torch",
    "get_default_dtype",
    "get_num_threads",
    "get_rng_state",
    "iinfo",
    "inf",
    "inference_mode",
    "initial_seed",
    "is_autocast_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "layout",
    "manual_seed",
    "memory_format",
    "memory_stats",
    "nan",
    "no_grad",
    "pi",
    "preserve_format",
    "promote_types",
    "reset_peak_memory_stats",
    "result_type",
    "seed",
    "set_default_dtype",
    "set_grad_enabled",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "strided",
    "tensor",
]


class layout:
    """How a tensor's memory is organised; there is one layout, ``deepseek.strided``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"deepseek.{self._name}"


class memory_format(layout):
    """An order of dims in memory, for arguments of that name: new tensors are always in row-major order here.

    Args:
        name: as in ``deepseek.<name>``.
        dims: of the tensors that channels-last formats are for.
    """

    def __init__(self, name: str, dims: int = 0) -> None:
        super().__init__(name)
        self.dims = dims
        self.is_channels_last = dims > 0


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last", 4)
channels_last_3d = memory_format("channels_last_3d", 5)


# --- from Python data -------------------------------------------------------------------------------------------------


def tensor(
    data: Any,
    *,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A fresh tensor with the values of ``data``.

    Args:
        data: numbers, nested sequences of them, arrays, tensors, also other libraries' (anything with ``__dlpack__``).
        dtype: of the result; omitted, it follows from the data: the default dtype for Python's floats, int64 for ints.
        device: the CPU.
        requires_grad: whether gradients are recorded.
        pin_memory: no effect without a GPU; a warning says so once.

    Raises:
        RuntimeError: a device other than the CPU.
        TypeError: something that is not a number.
        ValueError: sequences of different lengths.
    """
    if pin_memory:
        from deepseek._once import warn_once

        warn_once("tensor(pin_memory=True)", "memory is pinned for copies to a GPU, and there is none")
    return _C.tensor(data, dtype=dtype, device=device, requires_grad=requires_grad)


def as_tensor(data: Any, dtype: dtype | None = None, device: device | str | None = None) -> Tensor:
    """``data`` itself if it is a tensor of that dtype, a tensor on its memory if it is an array, else a fresh one.

    Args:
        data: as in :func:`tensor`.
        dtype: of the result; the data's when omitted.
        device: the CPU.
    """
    return _C.as_tensor(data, dtype, device)


def from_numpy(ndarray: Any) -> Tensor:
    """A tensor on the memory of a NumPy array: writes through one are seen by the other.

    Raises:
        TypeError: not an array, or a dtype that has no counterpart.
        ValueError: memory that a tensor cannot show.
    """
    return _C.from_numpy(ndarray)


# --- dtypes -----------------------------------------------------------------------------------------------------------


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The dtype that two dtypes combine to."""
    return _C.promote_types(type1, type2)


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether values of one dtype may be written into a tensor of another."""
    return _C.can_cast(from_, to)


def result_type(tensor1: Tensor | float, tensor2: Tensor | float) -> dtype:
    """The dtype that an op on two operands, tensors or numbers, gives."""
    return _C.result_type(tensor1, tensor2)


def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats, see :func:`set_default_dtype`."""
    return _C.get_default_dtype()


# --- threads and memory -----------------------------------------------------------------------------------------------


def get_num_threads() -> int:
    """How many threads an op may use."""
    return _C.get_num_threads()


def set_num_threads(num: int) -> None:
    """How many threads an op may use; results do not depend on it.

    Raises:
        RuntimeError: not a positive number.
    """
    _C.set_num_threads(num)


def memory_stats() -> dict[str, int]:
    """Counters of the allocator: bytes in use, at most, and cached; calls to it and to the system."""
    return _C.memory_stats()


def reset_peak_memory_stats() -> None:
    """Begin the count of ``peak_bytes`` in :func:`memory_stats` anew."""
    _C.reset_peak_memory_stats()


def empty_cache() -> None:
    """Give cached memory back to the system."""
    _C.empty_cache()


# --- modes ------------------------------------------------------------------------------------------------------------


def is_grad_enabled() -> bool:
    """True when ops are recorded for backward in this thread."""
    return _C._is_grad_enabled()


def is_inference_mode_enabled() -> bool:
    """True inside ``inference_mode``."""
    return _C._is_inference_mode()


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """True inside an enabled ``autocast``; False for another device than the CPU."""
    return device_type == "cpu" and _C._autocast_state()[0]


def set_default_dtype(d: dtype) -> None:
    """The dtype of tensors made from Python floats (float32 at the start).

    Raises:
        TypeError: not a floating dtype.
    """
    if not isinstance(d, _C.dtype) or not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    _C.set_default_dtype(d)
