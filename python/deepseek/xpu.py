"""Enough of ``torch.xpu`` for scripts that ask whether there is a GPU of Intel's: there is none."""

from __future__ import annotations

from deepseek._binding.missing import guard

__all__ = ["device_count", "is_available", "is_initialized"]


def is_available() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


def is_initialized() -> bool:
    """False: there is no GPU to initialize."""
    return False


def device_count() -> int:
    """0: deepseek runs on the CPU only."""
    return 0


guard(__name__)
