"""Random schedules, saved and resumed at every step by each way there is, equal the undisturbed run, to the bit."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import deepseek
import pytest
from cases import cases
from deepseek import nn, optim
from deepseek.optim import lr_scheduler
from random_schedules import STEPS, curve, optimizer_of, plan, rates

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("case", cases(400))
def test_resumed_at_every_step(case: int) -> None:
    what = plan(case)
    optimizer = optimizer_of(deepseek, what)
    schedule = what.make(lr_scheduler, optimizer, -1)
    undisturbed, saved = [rates(optimizer)], []
    initial = [float(group["initial_lr"]) for group in optimizer.param_groups]
    for _ in range(STEPS):
        saved.append(copy.deepcopy((optimizer.state_dict(), json.dumps(schedule.state_dict()))))
        optimizer.step()
        schedule.step()
        undisturbed.append(rates(optimizer))
    for step, (state, text) in enumerate(saved):
        rest = undisturbed[step:]

        def check(way: str, optimizer: Any, schedule: Any, rest: list[list[float]] = rest, step: int = step) -> None:
            assert schedule.get_last_lr() == rest[0][::2], f"case {case}, step {step}, {way}: {what.text}"
            found = curve(optimizer, schedule, min(4, STEPS - step))
            assert found == rest[: len(found)], f"case {case}, step {step}, {way}: {what.text}"

        fresh = optimizer_of(deepseek, what)
        resumed = what.make(lr_scheduler, fresh, -1)
        resumed.load_state_dict(json.loads(text))
        fresh.load_state_dict(state)
        check("state_dict", fresh, resumed)
        fresh = optimizer_of(deepseek, what)
        fresh.load_state_dict(state)
        resumed = what.make(lr_scheduler, fresh, -1)
        resumed.load_state_dict(json.loads(text))
        if "[" not in what.text.split("(")[0] or "Cycl" not in what.text:  # a part's momentum comes with its next step
            check("state_dict, optimizer loaded first", fresh, resumed)
        if step > 0:
            loaded = optimizer_of(deepseek, what)
            loaded.load_state_dict(state)
            check("last_epoch, optimizer loaded", loaded, what.make(lr_scheduler, loaded, step - 1))
            bare = optimizer_of(deepseek, what, initial)
            check("last_epoch, only initial_lr", bare, what.make(lr_scheduler, bare, step - 1))


def test_plateau_resumed_at_every_step() -> None:
    """It has no last_epoch; its state holds all but the rates, which are the optimizer's."""
    for case in cases(100):
        rng = random.Random(case)
        options: dict[str, Any] = {
            "mode": rng.choice(["min", "max"]),
            "factor": rng.uniform(0.1, 0.9),
            "patience": rng.randint(0, 3),
            "threshold": rng.uniform(0, 0.2),
            "threshold_mode": rng.choice(["rel", "abs"]),
            "cooldown": rng.randint(0, 3),
            "min_lr": rng.choice([0, 0.05]),
        }
        metrics = [rng.uniform(0.5, 1.0) for _ in range(STEPS)]

        def begin(options: dict[str, Any] = options) -> tuple[Any, Any]:
            optimizer = optim.SGD([nn.Parameter(deepseek.ones(1))], lr=0.5)
            return optimizer, lr_scheduler.ReduceLROnPlateau(optimizer, **options)

        optimizer, schedule = begin()
        saved, found = [], []
        for metric in metrics:
            saved.append((copy.deepcopy(optimizer.state_dict()), json.dumps(schedule.state_dict())))
            schedule.step(metric)
            found.append(optimizer.param_groups[0]["lr"])
        for step, (state, text) in enumerate(saved):
            optimizer, schedule = begin()
            optimizer.load_state_dict(state)
            schedule.load_state_dict(json.loads(text))
            for place in range(step, STEPS):
                schedule.step(metrics[place])
                assert optimizer.param_groups[0]["lr"] == found[place], f"case {case}, resumed at {step}, at {place}"
