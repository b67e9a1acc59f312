"""The cyclic schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from deepseek.optim.lr_scheduler._base import LRScheduler, check_optimizer, check_resumable, set_lr
from deepseek.optim.lr_scheduler._momentum import check_momentum, per_group, set_momentum
from deepseek.optim.lr_scheduler._simple import own_state, restore_own_state
from deepseek.optim.optimizer import Optimizer

# How a cycle is scaled, by mode: what counts ("cycle", from 1, or "iterations"), and the factor.
_MODES: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "triangular": ("cycle", lambda gamma, cycle: 1.0),
    "triangular2": ("cycle", lambda gamma, cycle: 1 / 2.0 ** (cycle - 1)),
    "exp_range": ("iterations", lambda gamma, step: gamma**step),
}


class CyclicLR(LRScheduler):
    """Linearly up from ``base_lr`` to ``max_lr`` and down again, over and over. (Smith, 2017)

    Args:
        base_lr: the lower limit, one for all groups or a list.
        max_lr: the upper limit of the first cycle, likewise.
        step_size_up: steps up.
        step_size_down: steps down, as many as up where None.
        mode: "triangular", "triangular2" (each cycle half as high), or "exp_range" (``gamma ** step`` times as high).
        gamma: of "exp_range".
        scale_fn: a function that gives the factor of the height itself, in place of ``mode``.
        scale_mode: whether ``scale_fn`` gets the number of the "cycle" (from 1), or of "iterations".
        cycle_momentum: move the momentum (or beta1) the other way, between the two limits given.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if scale_fn is None:
            if mode not in _MODES:
                raise ValueError(f"mode must be one of {', '.join(map(repr, _MODES))}, or scale_fn given; got {mode!r}")
            scale_mode = _MODES[mode][0]
        check_optimizer(optimizer)
        self._lows = per_group("base_lr", optimizer, base_lr)
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up) + float(down)
        self.step_ratio = float(step_size_up) / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn = scale_fn
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        if last_epoch == -1:
            for group, low in zip(optimizer.param_groups, self._lows, strict=True):
                set_lr(group, low)
        else:
            check_resumable(optimizer)
        if cycle_momentum:
            self.use_beta1 = check_momentum(optimizer)
            self.base_momentums = per_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = per_group("max_momentum", optimizer, max_momentum)
            limits = zip(optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in limits:
                if last_epoch == -1:
                    group["base_momentum"], group["max_momentum"] = low, high
        super().__init__(optimizer, last_epoch)

    def _base_rates(self) -> list[float]:
        return self._lows

    def scale_fn(self, x: float) -> float:
        """The factor of the height, for a cycle or a step."""
        return _MODES[self.mode][1](self.gamma, x) if self._scale_fn is None else self._scale_fn(x)

    def _set_again(self) -> None:
        super()._set_again()
        self.get_lr()  # sets the momentum

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            limits = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in limits:
                set_momentum(group, high - (high - low) * height, self.use_beta1)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and a plain ``scale_fn``, which must be given again."""
        return {**super().state_dict(), "_scale_fn": own_state(self._scale_fn)}

    def _take_state(self, state: dict[str, Any]) -> None:
        super()._take_state({key: value for key, value in state.items() if key != "_scale_fn"})
        restore_own_state(self._scale_fn, state["_scale_fn"])
