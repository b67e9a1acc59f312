"""Neural networks: modules, functions, initialisers and parameter helpers, with torch's names and defaults."""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek.nn import functional, init, modules, parameter, utils
from deepseek.nn.modules import *  # noqa: F403  (the list is modules.__all__)
from deepseek.nn.parameter import Buffer, Parameter

__all__ = [*modules.__all__, "Buffer", "Parameter", "functional", "init", "modules", "parameter", "utils"]

guard(__name__)
