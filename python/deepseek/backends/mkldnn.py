"""Whether oneDNN, which PyTorch calls MKL-DNN is used: it is not."""

from __future__ import annotations

from deepseek._binding.missing import guard

__all__ = ["is_available"]


def is_available() -> bool:
    """False: products are deepseek's own kernels."""
    return False


guard(__name__)
