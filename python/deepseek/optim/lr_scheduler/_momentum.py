"""What the cyclic schedules share: options per group, and momentum that moves against the rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepseek.optim.optimizer import Optimizer


def per_group(name: str, optimizer: Optimizer, value: float | Sequence[float]) -> list[float]:
    """The option as one value per group."""
    count = len(optimizer.param_groups)
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise ValueError(f"Expected {count} values for {name}, but got {len(value)}")
        return list(value)
    return [value] * count  # type: ignore[list-item]


def check_momentum(optimizer: Optimizer) -> bool:
    """Whether the optimizer's momentum is beta1; ValueError if it has none."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")
    return "betas" in optimizer.defaults


def set_momentum(group: dict[str, Any], value: float, beta1: bool) -> None:
    """Set a group's momentum, or its beta1."""
    if beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value
