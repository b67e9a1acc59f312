"""``LRScheduler``, the base of the schedules."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass, field
from typing import Any

from deepseek import _C, Tensor
from deepseek._binding.arguments import check_state_dict
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
        last_epoch: -1, or the last finished epoch when training is resumed (the groups then hold "initial_lr"): the
            schedule stands at epoch ``last_epoch + 1``, as one that was stepped so often.

    ``step()`` is called after ``optimizer.step()``, as often as the schedule counts (per epoch or per batch). A
    schedule derives the next rate from the present one where it can, so that several act on one optimizer.

    **Resumed by** ``last_epoch``, a schedule goes on as an undisturbed one would. One that derives its rates from the
    present ones keeps those of an optimizer whose state was loaded (unless they are those of epoch ``last_epoch``, as
    where ``last_epoch=schedule.last_epoch`` is passed, which is one further: then it steps). Where nothing was loaded
    (the rates still are "initial_lr"), and for all other schedules, the epochs are gone through again from
    "initial_lr", together with the schedules that were resumed on this optimizer before it. PyTorch applies a factor
    twice when the epoch is one at which the rate changes, restarts ``SequentialLR`` from its first part, and leaves
    rates that were not loaded.

    **Resumed by** ``load_state_dict``, the optimizer's state may be loaded before or after. Making a schedule sets the
    rates of epoch 0; where these are still there, loading its state puts back those it had set last. (In PyTorch the
    optimizer's state has to be loaded after the schedule was made, or the run goes on with wrong rates.)
    """

    _follows_present = False  # whether get_lr() derives all it returns from the present rates and the epoch

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        if last_epoch == -1:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", float(group["lr"]))
        else:
            check_resumable(optimizer)
        self.base_lrs: list[float] = self._base_rates()
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[float] = []
        if last_epoch == -1:
            self._restart()
            self._made()
        else:
            self._resume(last_epoch + 1)

    def _base_rates(self) -> list[float]:
        """What ``base_lrs`` is, one per group."""
        return [float(group["initial_lr"]) for group in self.optimizer.param_groups]

    def _restart(self) -> None:
        """Stand at epoch 0 as when it was made: set its rates, from the present ones."""
        self.last_epoch = -1
        self._step_count = 0
        self.step()

    def _begin(self) -> None:
        """Begin in the middle of a run, after another schedule."""
        self.step(0)

    def _with_parts(self) -> list[LRScheduler]:
        """The schedule itself and those it is made of."""
        return [self]

    def _resume(self, epoch: int) -> None:
        """Take the place of a schedule that stands at ``epoch``."""
        mine = self._with_parts()
        run = resumed_runs.setdefault(self.optimizer, ResumedRun())
        run.schedules = [ref for ref in run.schedules if stands_still(ref()) and ref() not in mine]
        self.last_epoch = epoch
        self._step_count = 1
        if not run.schedules:
            run.went_through = not self._follows_present or self._present() == self._base_rates()
        run.schedules.append(weakref.ref(self))
        if run.went_through or not self._follows_present:
            run.went_through = True
            go_through_again([schedule for ref in run.schedules if (schedule := ref()) is not None])
        elif mine == [self] and len(run.schedules) == 1:
            self._catch_up()
        self._last_lr = self._present()

    def _catch_up(self) -> None:
        """Rates that were kept may be those of the epoch before: of ``last_epoch=schedule.last_epoch``. Then step."""
        kept, epoch = self._present(), self.last_epoch
        self.last_epoch = epoch - 1
        go_through_again([self])
        before = self._present()
        self.last_epoch = epoch
        go_through_again([self])
        if before != kept:
            for group, rate in zip(self.optimizer.param_groups, kept, strict=True):
                set_lr(group, rate)

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
        check_state_dict(state_dict)
        untouched = made_rates.get(self) == self._present()
        self._take_state(dict(state_dict))
        if untouched:  # the rates are those of a new schedule, not of an optimizer that was loaded since
            self._set_again()

    def _take_state(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _set_again(self) -> None:
        """Set what the last step did."""
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            set_lr(group, rate)

    def _made(self) -> None:
        """Remember the rates that a new schedule leaves."""
        made_rates[self] = self._present()


# The rates that a schedule set when it was made; not among its attributes, which are its state.
made_rates: weakref.WeakKeyDictionary[LRScheduler, list[float]] = weakref.WeakKeyDictionary()


def check_resumable(optimizer: Optimizer) -> None:
    """KeyError for a group that does not know its first rate."""
    for place, group in enumerate(optimizer.param_groups):
        if "initial_lr" not in group:
            raise KeyError(
                f"param 'initial_lr' is not specified in param_groups[{place}] when resuming scheduler with "
                f'last_epoch >= 0. Load the optimizer\'s state first, or set "initial_lr" in its groups.'
            )


@dataclass
class ResumedRun:
    """The schedules resumed by ``last_epoch`` on one optimizer, in order."""

    schedules: list[weakref.ref[LRScheduler]] = field(default_factory=list)
    went_through: bool = False  # whether their rates were computed again, or those of the groups kept


resumed_runs: weakref.WeakKeyDictionary[Optimizer, ResumedRun] = weakref.WeakKeyDictionary()


def stands_still(schedule: LRScheduler | None) -> bool:
    """Whether the schedule lives and was not stepped since it was resumed."""
    return schedule is not None and schedule._step_count == 1


def go_through_again(schedules: list[LRScheduler]) -> None:
    """Step schedules of one optimizer together from "initial_lr" to the epochs they stand at."""
    optimizer = schedules[0].optimizer
    ends = [schedule.last_epoch for schedule in schedules]
    last = max(ends)
    for group in optimizer.param_groups:
        set_lr(group, group["initial_lr"])
    stepped, optimizer._step_called = optimizer._step_called, True  # these steps come before no optimizer's step
    for epoch in range(last + 1):
        for schedule, end in zip(schedules, ends, strict=True):
            if epoch == last - end:
                schedule._restart()
            elif epoch > last - end:
                schedule.step()
    optimizer._step_called = stepped
    for schedule in schedules:
        schedule._step_count = 1
