"""Functions of neural networks: the stateless side of ``deepseek.nn``, with torch's names and signatures."""

# ruff: noqa: F403  (@public makes __all__ of each file)

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.nn.functional._activation import *
from deepseek.nn.functional._attention import *
from deepseek.nn.functional._basic import *
from deepseek.nn.functional._loss import *

gather(__name__)
guard(__name__)
