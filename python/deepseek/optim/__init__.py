"""Optimizers and learning-rate schedules, with torch's names and defaults."""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek.optim import lr_scheduler
from deepseek.optim.adam import Adam, AdamW
from deepseek.optim.optimizer import Optimizer
from deepseek.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]

guard(__name__)
