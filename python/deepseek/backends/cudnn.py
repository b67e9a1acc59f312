"""Switches of cuDNN. They can be set and read back; there is no GPU that they could apply to."""

from __future__ import annotations

from deepseek._binding.missing import guard

__all__ = ["allow_tf32", "benchmark", "benchmark_limit", "deterministic", "enabled", "is_available", "version"]

enabled: bool = True
benchmark: bool = False
benchmark_limit: int | None = 10
deterministic: bool = False
allow_tf32: bool = True


def is_available() -> bool:
    """False: there is no GPU, so cuDNN is not used."""
    return False


def version() -> int | None:
    """None: there is no cuDNN."""
    return None


guard(__name__)
