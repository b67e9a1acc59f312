"""``LRScheduler``, the base of the schedules."""

from __future__ import annotations

import warnings
from typing import Any

from deepseek import _C, Tensor
from deepseek.jit import disable
from deepseek.optim.optimizer import Optimizer


def set_lr(group: dict[str, Any], value: float) -> None:
    """Set a group's learning rate; one kept in a tensor is filled, so that it stays the same tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value


def check_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer itself; TypeError for anything else."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    return optimizer


class LRScheduler:
    """Base class of schedules. A subclass defines ``get_lr`` and calls ``super().__init__`` last.

    Args:
        optimizer: whose groups get new learning rates.
        last_epoch: the last finished epoch when training is resumed (the groups then hold "initial_lr"), else -1.

    ``step()`` is called after ``optimizer.step()``, as often as the schedule counts (per epoch or per batch). A
    schedule derives the next rate from the present one where it can, so that several act on one optimizer.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        for place, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                lr = group["lr"]
                group.setdefault("initial_lr", float(lr))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{place}] when resuming scheduler with "
                    f"last_epoch >= 0."
                )
        self.base_lrs: list[float] = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[float] = []
        self._first_step()

    def _first_step(self) -> None:
        """Set the rates of the first epoch."""
        self._step_count = 0
        self.step()

    def get_lr(self) -> list[float]:
        """The rates of epoch ``last_epoch``, one per group, from the present ones."""
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates that the last ``step()`` set."""
        _C._jit_refuse("the rates of a schedule are read")  # its steps set others on every replay
        return self._last_lr

    def _present(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    @disable
    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch (or to ``epoch``) and set its rates."""
        if self._step_count == 1 and not self.optimizer._step_called:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`: the first value of the schedule is "
                "skipped. Call `optimizer.step()` first.",
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_get_closed_form_lr", None)
            rates = self.get_lr() if closed is None else closed()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_lr(group, rate)
        self._last_lr = self._present()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.__dict__.update(state_dict)
