"""Whether there is a GPU of Apple's: deepseek runs on the CPU only."""

from __future__ import annotations

from deepseek._binding.missing import guard

__all__ = ["is_available", "is_built"]


def is_available() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


def is_built() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


guard(__name__)
