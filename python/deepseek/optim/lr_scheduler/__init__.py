"""Learning-rate schedules: each changes ``group["lr"]`` of an optimizer when its ``step()`` is called."""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek.optim.lr_scheduler._base import LRScheduler
from deepseek.optim.lr_scheduler._combined import ChainedScheduler, SequentialLR
from deepseek.optim.lr_scheduler._cyclic import CyclicLR
from deepseek.optim.lr_scheduler._one_cycle import OneCycleLR
from deepseek.optim.lr_scheduler._plateau import ReduceLROnPlateau
from deepseek.optim.lr_scheduler._simple import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
    WarmupCosineLR,
)

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupCosineLR",
]

guard(__name__)
