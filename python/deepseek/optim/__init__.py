"""Optimizers and learning-rate schedules, with torch's names and defaults."""

from __future__ import annotations

from typing import Any

from deepseek.optim import lr_scheduler
from deepseek.optim.adam import Adam, AdamW
from deepseek.optim.optimizer import Optimizer
from deepseek.optim.sgd import SGD
from deepseek.utils._nearest import missing_attribute

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
