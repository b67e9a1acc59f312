"""Helpers on parameters and gradients."""

# ruff: noqa: F403  (@public makes __all__ of each file)

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.nn.utils._clip import *
from deepseek.nn.utils._vector import *

gather(__name__)
guard(__name__)
