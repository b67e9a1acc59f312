"""``torch.cpu``: for scripts that ask every device the same questions."""

from __future__ import annotations

from deepseek._binding.missing import guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek.cpu import amp as amp

__all__ = ["amp", "current_device", "device_count", "is_available", "is_initialized", "synchronize"]


def is_available() -> bool:
    """True: deepseek always runs on the CPU."""
    return True


def is_initialized() -> bool:
    """True: there is nothing to initialize."""
    return True


def device_count() -> int:
    """1: however many cores there are."""
    return 1


def current_device() -> str:
    """The name of the only device there is."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Nothing to wait for: a call is done when it returns."""


guard(__name__, lazy=("amp",))
