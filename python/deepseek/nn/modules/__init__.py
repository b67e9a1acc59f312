"""The layers of ``deepseek.nn``, one file per family."""

# ruff: noqa: F403  (@public makes __all__ of each file)

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.nn.modules._activation import *
from deepseek.nn.modules._attention import *
from deepseek.nn.modules._container import *
from deepseek.nn.modules._layers import *
from deepseek.nn.modules._loss import *
from deepseek.nn.modules._transformer import *
from deepseek.nn.modules.module import Module as Module

gather(__name__)
guard(__name__)
