"""What the package shows besides ops, dtypes and sub-packages; the package imports all of ``__all__``."""

from __future__ import annotations

from math import e, inf, nan, pi

from deepseek import _C
from deepseek._C import (
    LoadError,
    Size,
    Tensor,
    as_tensor,
    can_cast,
    dtype,
    empty_cache,
    from_numpy,
    get_default_dtype,
    get_num_threads,
    memory_stats,
    promote_types,
    reset_peak_memory_stats,
    result_type,
    set_num_threads,
    tensor,
)
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

__all__ = [
    "Generator",
    "LoadError",
    "Size",
    "Tensor",
    "as_tensor",
    "asarray",
    "can_cast",
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
