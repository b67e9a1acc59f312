"""Random schedules beside PyTorch's: the undisturbed curve, and PyTorch's where it resumes rightly."""

from __future__ import annotations

import math
import random
import warnings
from typing import Any

import deepseek
import numpy as np
import pytest
import torch
from generators.cases import cases
from generators.random_schedules import KINDS, STEPS, curve, optimizer_of, plan


def run(library: Any, case: int) -> list[list[float]]:
    what = plan(case)
    optimizer = optimizer_of(library, what)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return curve(optimizer, what.make(library.optim.lr_scheduler, optimizer, -1), STEPS)


def test_curves_are_torchs() -> None:
    compared = 0
    for case in cases(300):
        what = plan(case)
        if what.in_torch:
            compared += 1
            np.testing.assert_allclose(
                run(deepseek, case), run(torch, case), rtol=1e-9, atol=1e-12, err_msg=f"case {case}: {what.text}"
            )
    assert compared > 0


def test_every_schedule_of_torch_is_there() -> None:
    ours = set(deepseek.optim.lr_scheduler.__all__)
    assert set(torch.optim.lr_scheduler.__all__) <= ours
    assert ours - set(KINDS) == {"ChainedScheduler", "LRScheduler", "ReduceLROnPlateau", "SequentialLR"}


def test_plateau_is_torchs() -> None:
    for case in cases(100):
        rng = random.Random(case)
        options: dict[str, Any] = {
            "mode": rng.choice(["min", "max"]),
            "factor": rng.uniform(0.1, 0.9),
            "patience": rng.randint(0, 3),
            "threshold": rng.uniform(0, 0.2),
            "threshold_mode": rng.choice(["rel", "abs"]),
            "cooldown": rng.randint(0, 3),
        }
        metrics = [rng.choice([math.nan, rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.0)]) for _ in range(STEPS)]
        found = []
        for library in (deepseek, torch):
            optimizer = library.optim.SGD([library.nn.Parameter(library.ones(1))], lr=0.5)
            schedule = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
            rates = []
            for metric in metrics:
                schedule.step(metric)
                rates.append((optimizer.param_groups[0]["lr"], schedule.num_bad_epochs, schedule.best))
            found.append(rates)
        assert found[0] == found[1], f"case {case}"


@pytest.mark.parametrize("kind", ["ExponentialLR", "LinearLR", "CosineAnnealingLR", "PolynomialLR"])
def test_resumed_by_last_epoch_as_torch(kind: str) -> None:
    """PyTorch keeps the rates that were loaded with the optimizer, and so do we."""
    options: dict[str, Any] = {
        "ExponentialLR": {"gamma": 0.9},
        "LinearLR": {"total_iters": 10},
        "CosineAnnealingLR": {"T_max": 7},
        "PolynomialLR": {"total_iters": 12, "power": 2.0},
    }[kind]
    for step in range(1, 10):
        found = []
        for library in (deepseek, torch):
            make = getattr(library.optim.lr_scheduler, kind)
            optimizer = library.optim.SGD([library.nn.Parameter(library.ones(1))], lr=0.1)
            curve(optimizer, make(optimizer, **options), step)
            other = library.optim.SGD([library.nn.Parameter(library.ones(1))], lr=0.1)
            other.load_state_dict(optimizer.state_dict())
            found.append(curve(other, make(other, **options, last_epoch=step - 1), 5))
        np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
