"""The 1cycle schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from deepseek.optim.lr_scheduler._base import LRScheduler, check_resumable
from deepseek.optim.lr_scheduler._momentum import check_momentum, per_group, set_momentum
from deepseek.optim.optimizer import Optimizer


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _linear(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


_SHAPES: dict[str, Callable[[float, float, float], float]] = {"cos": _cosine, "linear": _linear}


class OneCycleLR(LRScheduler):
    """Up to ``max_lr`` and down to nearly nothing in one cycle of batches. (Smith and Topin, 2017)

    Args:
        max_lr: the peak, one for all groups or a list.
        total_steps: length of the cycle; or ``epochs`` times ``steps_per_epoch``.
        pct_start: share of the cycle that goes up.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move the momentum (or beta1) the other way, between the two limits given.
        div_factor: the first rate is ``max_lr / div_factor``.
        final_div_factor: the last rate is the first divided by this.
        three_phase: go down to the first rate as steeply as up, then on to the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        if not 0 <= pct_start <= 1 or not isinstance(pct_start, float):
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in _SHAPES:
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        self._anneal_strategy = anneal_strategy
        self._phases = self._plan(pct_start, three_phase)
        self.cycle_momentum = cycle_momentum
        if last_epoch != -1:
            check_resumable(optimizer)
        peaks = per_group("max_lr", optimizer, max_lr)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            if last_epoch == -1 or "max_lr" not in group:
                group["initial_lr"] = peak / div_factor
                group["max_lr"] = peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            self.use_beta1 = check_momentum(optimizer)
            lows = per_group("base_momentum", optimizer, base_momentum)
            highs = per_group("max_momentum", optimizer, max_momentum)
            for group, low, high in zip(optimizer.param_groups, lows, highs, strict=True):
                if last_epoch == -1 or "max_momentum" not in group:
                    group["base_momentum"], group["max_momentum"] = low, high
                    set_momentum(group, high, self.use_beta1)
        super().__init__(optimizer, last_epoch)

    def _plan(self, up: float, three_phase: bool) -> list[tuple[float, str, str, str, str]]:
        """Per phase: its last step, then the options between which rate and momentum move."""
        total = self.total_steps
        rise = ("initial_lr", "max_lr", "max_momentum", "base_momentum")
        if three_phase:
            return [
                (up * total - 1, *rise),
                (2 * up * total - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        return [(up * total - 1, *rise), (total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]

    def _set_again(self) -> None:
        super()._set_again()
        self.get_lr()  # sets the momentum

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"Tried to step {self.last_epoch} times. The specified number of total steps is {self.total_steps}"
            )
        place = 0
        while place < len(self._phases) - 1 and self.last_epoch > self._phases[place][0]:
            place += 1
        start = self._phases[place - 1][0] if place else 0.0
        end, *ends = self._phases[place]
        share = (self.last_epoch - start) / (end - start)
        shape = _SHAPES[self._anneal_strategy]
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(shape(group[ends[0]], group[ends[1]], share))
            if self.cycle_momentum:
                set_momentum(group, shape(group[ends[2]], group[ends[3]], share), self.use_beta1)
        return rates


def _total(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    named = {"total_steps": total_steps, "epochs": epochs, "steps_per_epoch": steps_per_epoch}
    for name, value in named.items():
        if value is not None and (not isinstance(value, int) or value <= 0):
            raise ValueError(f"Expected positive integer {name}, but got {value}")
    if total_steps is not None:
        return total_steps
    if epochs is None or steps_per_epoch is None:
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    return epochs * steps_per_epoch
