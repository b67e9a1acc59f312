"""Helpers around training: ``deepseek.utils.data`` (data sets and loaders). Sub-packages load on first use."""

from __future__ import annotations

import importlib
from typing import Any

from deepseek.utils._nearest import missing_attribute

_SUBMODULES = ("data",)

__all__ = list(_SUBMODULES)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
