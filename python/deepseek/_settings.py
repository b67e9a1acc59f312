"""PyTorch's settings that have one position here: scripts may set them, and are told where that changes nothing."""

from __future__ import annotations

from deepseek import _C
from deepseek._device import CPU, device
from deepseek._once import warn_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_default_device",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "is_deterministic_algorithms_warn_only_enabled",
    "set_default_device",
    "set_float32_matmul_precision",
    "set_flush_denormal",
    "set_num_interop_threads",
    "use_deterministic_algorithms",
]

_PRECISIONS = ("highest", "high", "medium")
_precision = "highest"
_deterministic = False
_warn_only = False


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


def get_float32_matmul_precision() -> str:
    """What :func:`set_float32_matmul_precision` was given last; ``"highest"`` at the start."""
    return _precision


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for results that do not depend on the run or the number of threads, which they never do here.

    Raises:
        TypeError: ``mode`` is not a bool.
    """
    if not isinstance(mode, bool):
        raise TypeError(f"use_deterministic_algorithms(): mode must be bool, not {_C._type_name(mode)}")
    global _deterministic, _warn_only
    _deterministic, _warn_only = mode, mode and warn_only


def are_deterministic_algorithms_enabled() -> bool:
    """What :func:`use_deterministic_algorithms` was given last; False at the start, as in PyTorch."""
    return _deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """The ``warn_only`` that :func:`use_deterministic_algorithms` was given last."""
    return _warn_only


def get_num_interop_threads() -> int:
    """1: ops run one after the other, each on ``get_num_threads()`` threads."""
    return 1


def set_num_interop_threads(num: int) -> None:
    """Number of ops that may run beside each other. It is 1; another number warns once.

    Raises:
        RuntimeError: not a positive number.
    """
    if num <= 0:
        raise RuntimeError(f"set_num_interop_threads() expects a positive integer, got {num}")
    if num != 1:
        warn_once("set_num_interop_threads()", "ops run one after the other, see set_num_threads()")


def set_flush_denormal(mode: bool) -> bool:
    """Treat numbers near zero as zero; they are always kept.

    Returns:
        Whether that is what was asked for: False for True.
    """
    return not mode


def get_default_device() -> device:
    """The CPU, where every new tensor is."""
    return CPU


def set_default_device(device: Any) -> None:
    """Where new tensors are made: only the CPU (or None, which means it) is possible.

    Raises:
        RuntimeError: another device.
    """
    if device is not None:
        type(CPU)(device)
