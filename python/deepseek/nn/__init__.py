"""Neural networks: modules, functions, initialisers and parameter helpers, with torch's names and defaults."""

# ruff: noqa: F403

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.nn import functional as functional
from deepseek.nn import init as init
from deepseek.nn import modules as modules
from deepseek.nn import parameter as parameter
from deepseek.nn import utils as utils
from deepseek.nn.modules import *
from deepseek.nn.parameter import Buffer as Buffer
from deepseek.nn.parameter import Parameter as Parameter

gather(__name__, "functional", "init", "modules", "parameter", "utils")
guard(__name__)
