"""The package's version."""

from __future__ import annotations

from deepseek import _C

__version__: str = _C.build_info()["version"]
