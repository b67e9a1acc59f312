"""Enough of ``torch.accelerator`` for scripts that ask for a GPU of any make: there is none."""

from __future__ import annotations

from deepseek._binding.missing import guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek import device

__all__ = ["current_accelerator", "device_count", "is_available"]


def is_available() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


def device_count() -> int:
    """0: deepseek runs on the CPU only."""
    return 0


def current_accelerator(check_available: bool = False) -> device | None:
    """None: there is no accelerator."""
    return None


guard(__name__)
