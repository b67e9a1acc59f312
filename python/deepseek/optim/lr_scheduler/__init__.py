"""Learning-rate schedules: each changes ``group["lr"]`` of an optimizer when its ``step()`` is called."""

from __future__ import annotations

from typing import Any

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
from deepseek.utils._nearest import missing_attribute

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


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
