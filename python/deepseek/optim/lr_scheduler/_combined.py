"""Schedules made of schedules."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from deepseek.jit import disable
from deepseek.optim.lr_scheduler._base import LRScheduler, check_optimizer, check_resumable, set_lr
from deepseek.optim.lr_scheduler._plateau import ReduceLROnPlateau
from deepseek.optim.optimizer import Optimizer


class _Combined(LRScheduler):
    """What both share: the parts must be schedules of one optimizer, and are saved with the whole."""

    _schedulers: list[Any]

    def _take(self, schedulers: Sequence[Any], optimizer: Optimizer) -> None:
        name = type(self).__name__
        if not schedulers:
            raise ValueError(f"{name} expects at least one scheduler to be chained, but got no scheduler.")
        for place, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(f"{name} at index {place} should have `optimizer` as its attribute.")
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"{name} expects all schedulers to belong to the same optimizer, but got scheduler "
                    f"{type(scheduler).__name__} at index {place} with another one."
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{name} does not support ReduceLROnPlateau (at index {place}): its step() needs a metric. Step it "
                    "by itself, beside the others."
                )
        self.optimizer = check_optimizer(optimizer)
        self._schedulers = list(schedulers)

    def _with_parts(self) -> list[LRScheduler]:
        return [self, *(part for scheduler in self._schedulers for part in scheduler._with_parts())]

    def _begin(self) -> None:
        for group in self.optimizer.param_groups:
            set_lr(group, group["initial_lr"])
        self._restart()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; the parts' own states are under "_schedulers"."""
        state = {key: value for key, value in self.__dict__.items() if key not in ("optimizer", "_schedulers")}
        state["_schedulers"] = [scheduler.state_dict() for scheduler in self._schedulers]
        return state

    def _take_state(self, state: dict[str, Any]) -> None:
        super()._take_state({key: value for key, value in state.items() if key != "_schedulers"})
        for scheduler, saved in zip(self._schedulers, state["_schedulers"], strict=True):
            scheduler.load_state_dict(saved)


class SequentialLR(_Combined):
    """One schedule after the other: ``schedulers[i]`` starts at epoch ``milestones[i - 1]``.

    With ``last_epoch`` the parts are put where they belong, whatever ``last_epoch`` they were made with. A part that is
    a combination itself starts at its epoch 0 as any other (in PyTorch one epoch late, or not at all).
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        self._take(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than the number of "
                f"milestone points, but got number of schedulers {len(schedulers)} and the number of milestones to be "
                f"equal to {len(milestones)}"
            )
        self._milestones = list(milestones)
        if last_epoch == -1:
            self._restart()
            self._made()
        else:
            check_resumable(optimizer)
            self._resume(last_epoch + 1)

    def _restart(self) -> None:
        # Every part sets its first rate (and momentum): undo that, and let the part of epoch 0 alone begin.
        for scheduler in self._schedulers:
            scheduler._restart()
        for group in self.optimizer.param_groups:
            set_lr(group, group["initial_lr"])
        self.last_epoch = 0
        self._step_count = 1
        self._schedulers[bisect_right(self._milestones, 0)]._restart()
        self._last_lr = self._present()

    @disable
    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch; ``epoch`` is not supported."""
        if epoch is not None:
            raise ValueError("SequentialLR.step() takes no epoch")
        self._step_count += 1
        self.last_epoch += 1
        place = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[place]
        if place > 0 and self._milestones[place - 1] == self.last_epoch:
            scheduler._begin()
        else:
            scheduler.step()
        self._last_lr = self._present()


class ChainedScheduler(_Combined):
    """All schedules at once: each changes the rate that the one before it left.

    To resume it by ``last_epoch``, give that to its parts.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler expects at least one scheduler to be chained, but got no scheduler.")
        self._take(schedulers, schedulers[0].optimizer if optimizer is None else optimizer)
        self._last_lr = self._present()
        self._made()

    def _restart(self) -> None:
        for scheduler in self._schedulers:
            scheduler._restart()
        self._last_lr = self._present()

    @disable
    def step(self, epoch: int | None = None) -> None:
        """Step every schedule; ``epoch`` is not supported."""
        if epoch is not None:
            raise ValueError("ChainedScheduler.step() takes no epoch")
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._present()
