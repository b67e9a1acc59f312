"""Whether OpenMP is used: it is not."""

from __future__ import annotations

from deepseek._binding.missing import guard

__all__ = ["is_available"]


def is_available() -> bool:
    """False: deepseek has a thread pool of its own, see ``deepseek.set_num_threads``."""
    return False


guard(__name__)
