"""The package's version."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.missing import guard

__all__ = ["__version__", "cuda", "hip"]

__version__: str = _C.build_info()["version"]
# Of the GPU libraries that PyTorch may be built with.
cuda: str | None = None
hip: str | None = None

guard(__name__)
