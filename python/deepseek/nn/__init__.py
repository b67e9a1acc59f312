"""Neural networks: modules, functions, initialisers and parameter helpers, with torch's names and defaults."""

from __future__ import annotations

from typing import Any

from deepseek.nn import functional, init, utils
from deepseek.nn import modules as _modules
from deepseek.nn.modules import *  # noqa: F403  (the list is modules.__all__)
from deepseek.nn.parameter import Buffer, Parameter
from deepseek.utils._nearest import missing_attribute

__all__ = [*_modules.__all__, "Buffer", "Parameter", "functional", "init", "utils"]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
