"""Functions of the process: threads, memory, modes, and PyTorch's settings that have one position here.

Scripts may set those last ones, and are told where that changes nothing.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.once import warn_once
from deepseek._binding.public import public
from deepseek._tensor.device import CPU, device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# --- threads and memory -----------------------------------------------------------------------------------------------


@public
def get_num_threads() -> int:
    """How many threads an op may use."""
    return _C.get_num_threads()


@public
def set_num_threads(num: int) -> None:
    """How many threads an op may use; results do not depend on it.

    Raises:
        RuntimeError: not a positive number.
    """
    _C.set_num_threads(num)


@public
def get_num_interop_threads() -> int:
    """1: ops run one after the other, each on ``get_num_threads()`` threads."""
    return 1


@public
def set_num_interop_threads(num: int) -> None:
    """Number of ops that may run beside each other. It is 1; another number warns once.

    Raises:
        RuntimeError: not a positive number.
    """
    if num <= 0:
        raise RuntimeError(f"set_num_interop_threads() expects a positive integer, got {num}")
    if num != 1:
        warn_once("set_num_interop_threads()", "ops run one after the other, see set_num_threads()")


@public
def memory_stats() -> dict[str, int]:
    """Counters of the allocator: bytes in use, at most, and cached; calls to it and to the system."""
    return _C.memory_stats()


@public
def reset_peak_memory_stats() -> None:
    """Begin the count of ``peak_bytes`` in :func:`memory_stats` anew."""
    _C.reset_peak_memory_stats()


@public
def empty_cache() -> None:
    """Give cached memory back to the system."""
    _C.empty_cache()


# --- modes ------------------------------------------------------------------------------------------------------------


@public
def is_grad_enabled() -> bool:
    """True when ops are recorded for backward in this thread."""
    return _C._is_grad_enabled()


@public
def is_inference_mode_enabled() -> bool:
    """True inside ``inference_mode``."""
    return _C._is_inference_mode()


@public
def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """True inside an enabled ``autocast``; False for another device than the CPU."""
    return device_type == "cpu" and _C._autocast_state()[0]


# --- settings that have one position ----------------------------------------------------------------------------------


_PRECISIONS = ("highest", "high", "medium")


_precision = "highest"


_deterministic = False


_warn_only = False


@public
def set_float32_matmul_precision(precision: str) -> None:
    """How exact products of float32 matrices have to be. They are always exact; ``"high"``, ``"medium"`` warn once.

    Args:
        precision: ``"highest"``, ``"high"`` or ``"medium"``.

    Raises:
        RuntimeError: anything else.
    """
    if precision not in _PRECISIONS:
        raise RuntimeError(f"set_float32_matmul_precision(): {precision!r} is none of {', '.join(_PRECISIONS)}")
    if precision != "highest":
        warn_once(f"set_float32_matmul_precision({precision!r})", "float32 products are computed in float32")
    global _precision
    _precision = precision


@public
def get_float32_matmul_precision() -> str:
    """What :func:`set_float32_matmul_precision` was given last; ``"highest"`` at the start."""
    return _precision


@public
def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for results that do not depend on the run or the number of threads, which they never do here.

    Raises:
        TypeError: ``mode`` is not a bool.
    """
    if not isinstance(mode, bool):
        raise TypeError(f"use_deterministic_algorithms(): mode must be bool, not {_C._type_name(mode)}")
    global _deterministic, _warn_only
    _deterministic, _warn_only = mode, mode and warn_only


@public
def are_deterministic_algorithms_enabled() -> bool:
    """What :func:`use_deterministic_algorithms` was given last; False at the start, as in PyTorch."""
    return _deterministic


@public
def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """The ``warn_only`` that :func:`use_deterministic_algorithms` was given last."""
    return _warn_only


@public
def set_flush_denormal(mode: bool) -> bool:
    """Treat numbers near zero as zero; they are always kept.

    Returns:
        Whether that is what was asked for: False for True.
    """
    return not mode


@public
def get_default_device() -> device:
    """The CPU, where every new tensor is."""
    return CPU


@public
def set_default_device(device: Any) -> None:
    """Where new tensors are made: only the CPU (or None, which means it) is possible.

    Raises:
        RuntimeError: another device.
    """
    if device is not None:
        type(CPU)(device)
