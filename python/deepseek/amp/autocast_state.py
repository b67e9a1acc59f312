"""What autocast is set to in this thread, and the casts of weights it keeps; all are ``deepseek.<name>`` too."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._tensor.device import DEVICE_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek import dtype

__all__ = [
    "clear_autocast_cache",
    "get_autocast_dtype",
    "is_autocast_cache_enabled",
    "set_autocast_cache_enabled",
    "set_autocast_dtype",
    "set_autocast_enabled",
]

LOWER = (_C.bfloat16, _C.float16)


def check_device(device_type: str, enabled: bool = True) -> None:
    """Refuse what is no device, and one that is not there where it is asked for.

    Raises:
        ValueError: not a string.
        RuntimeError: not the name of a device, or ``enabled`` on another than the CPU.
    """
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if device_type not in DEVICE_TYPES:
        raise RuntimeError(f"{device_type!r} is not the name of a device; deepseek runs on the CPU only, use 'cpu'")
    if enabled and device_type != "cpu":
        raise RuntimeError(
            f"mixed precision on {device_type!r} is not available: deepseek runs on the CPU only, use 'cpu' (or "
            "enabled=False)"
        )


def get_autocast_dtype(device_type: str = "cpu") -> dtype:
    """The dtype that ``autocast`` computes in here.

    Raises:
        RuntimeError: another device than the CPU.
    """
    check_device(device_type)
    chosen: dtype = _C._autocast_state()[1]
    return chosen


def set_autocast_enabled(device_type: str, enabled: bool) -> None:
    """Switch autocast on or off in this thread, without a region that would end it (and without a cache of casts).

    Raises:
        RuntimeError: another device than the CPU is to be switched on.
    """
    check_device(device_type, enabled)
    if device_type == "cpu":
        _C._set_autocast(bool(enabled), _C._autocast_state()[1])


def set_autocast_dtype(device_type: str, dtype: dtype) -> None:
    """The dtype that autocast computes in from here on, in this thread.

    Raises:
        RuntimeError: another device than the CPU.
        ValueError: neither bfloat16 nor float16.
    """
    check_device(device_type)
    if dtype not in LOWER:
        raise ValueError(f"autocast computes in bfloat16 or float16, not in {dtype}")
    _C._set_autocast(_C._autocast_state()[0], dtype)


def is_autocast_cache_enabled() -> bool:
    """Whether autocast keeps its casts of weights until the outermost region ends (True at the start)."""
    return _C._autocast_cache_enabled()


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Keep casts of weights from here on in this thread, or make them anew for each use. Those that are there stay."""
    _C._set_autocast_cache_enabled(bool(enabled))


def clear_autocast_cache() -> None:
    """Drop the casts of weights that this thread keeps."""
    _C._clear_autocast_cache()


guard(__name__)
