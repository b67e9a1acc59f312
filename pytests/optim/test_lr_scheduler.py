"""Learning-rate schedules against their formulas, resumed, combined, and asked wrongly."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import deepseek
import pytest
from deepseek import nn, optim
from deepseek.optim import lr_scheduler as ls

LR = 0.5


def make_optimizer(**options: Any) -> optim.Optimizer:
    return optim.SGD([nn.Parameter(deepseek.ones(1))], lr=LR, **options)


def rates(make: Callable[[Any], Any], epochs: int = 20) -> list[float]:
    optimizer = make_optimizer()
    schedule = make(optimizer)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        assert schedule.get_last_lr() == [found[-1]]
        optimizer.step()
        schedule.step()
    return found


def restarts(t: int, first: int, times: int) -> float:
    while t >= first:
        t, first = t - first, first * times
    return (1 + math.cos(math.pi * t / first)) / 2


SCHEDULES: dict[str, tuple[Callable[[Any], Any], Callable[[int], float]]] = {
    "lambda": (lambda o: ls.LambdaLR(o, lambda t: 1 / (t + 1)), lambda t: LR / (t + 1)),
    "multiplicative": (lambda o: ls.MultiplicativeLR(o, lambda t: 0.9), lambda t: LR * 0.9**t),
    "step": (lambda o: ls.StepLR(o, 4, 0.5), lambda t: LR * 0.5 ** (t // 4)),
    "multistep": (lambda o: ls.MultiStepLR(o, [3, 3, 9], 0.5), lambda t: LR * 0.5 ** (2 * (t >= 3) + (t >= 9))),
    "constant": (lambda o: ls.ConstantLR(o, 0.25, 6), lambda t: LR * (0.25 if t < 6 else 1)),
    "linear": (lambda o: ls.LinearLR(o, 0.1, 1.0, 8), lambda t: LR * (0.1 + 0.9 * min(t, 8) / 8)),
    "exponential": (lambda o: ls.ExponentialLR(o, 0.8), lambda t: LR * 0.8**t),
    "polynomial": (lambda o: ls.PolynomialLR(o, 10, 2.0), lambda t: LR * (1 - min(t, 10) / 10) ** 2),
    "cosine": (lambda o: ls.CosineAnnealingLR(o, 7, 0.1), lambda t: 0.1 + 0.4 * (1 + math.cos(math.pi * t / 7)) / 2),
    "restarts": (lambda o: ls.CosineAnnealingWarmRestarts(o, 3, 2, 0.1), lambda t: 0.1 + 0.4 * restarts(t, 3, 2)),
    "warmup": (
        lambda o: ls.WarmupCosineLR(o, 4, 16, 0.1),
        lambda t: LR * ((t + 1) / 5 if t < 4 else 0.1 + 0.9 * (1 + math.cos(math.pi * min(1.0, (t - 4) / 12))) / 2),
    ),
    "cyclic": (
        lambda o: ls.CyclicLR(o, LR, 1.0, 4, cycle_momentum=False),
        lambda t: LR + (1 - LR) * (1 - abs(t % 8 / 4 - 1)),
    ),
    "sequential": (
        lambda o: ls.SequentialLR(o, [ls.LinearLR(o, 0.2, 1.0, 4), ls.ExponentialLR(o, 0.5)], [5]),
        lambda t: LR * (0.2 + 0.8 * min(t, 4) / 4) if t < 5 else LR * 0.5 ** (t - 5),
    ),
    "chained": (
        lambda o: ls.ChainedScheduler([ls.ConstantLR(o, 0.5, 3), ls.ExponentialLR(o, 0.9)]),
        lambda t: LR * (0.5 if t < 3 else 1) * 0.9**t,
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_formula(name: str) -> None:
    make, formula = SCHEDULES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rates(make) == pytest.approx([formula(t) for t in range(20)], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_resume_from_state(name: str) -> None:
    make, formula = SCHEDULES[name]
    optimizer = make_optimizer()
    schedule = make(optimizer)
    for _ in range(7):
        optimizer.step()
        schedule.step()
    text = json.dumps([optimizer.state_dict(), schedule.state_dict()])  # plain numbers only
    other = make_optimizer()
    resumed = make(other)
    saved = json.loads(text)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    found = []
    for _ in range(7, 20):
        found.append(other.param_groups[0]["lr"])
        other.step()
        resumed.step()
    assert found == pytest.approx([formula(t) for t in range(7, 20)], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["step", "multistep", "linear", "exponential", "cosine", "polynomial", "warmup"])
def test_jump_to_an_epoch(name: str) -> None:
    make, formula = SCHEDULES[name]
    optimizer = make_optimizer()
    schedule = make(optimizer)
    optimizer.step()
    for epoch in (9, 2, 0):
        schedule.step(epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(formula(epoch))


def test_last_epoch_argument() -> None:
    optimizer = make_optimizer()
    with pytest.raises(KeyError, match="initial_lr"):
        ls.CosineAnnealingLR(optimizer, 7, last_epoch=3)
    optimizer.param_groups[0]["initial_lr"] = LR
    ls.CosineAnnealingLR(optimizer, 7, 0.1, last_epoch=3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(SCHEDULES["cosine"][1](4))


def test_last_epoch_keeps_loaded_rates() -> None:
    """The rates of an optimizer whose state was loaded are those of the epoch; a factor is not applied once more."""
    optimizer = optim.SGD([nn.Parameter(deepseek.ones(1))], lr=0.1)
    schedule = ls.LinearLR(optimizer, total_iters=10)
    plateau = ls.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.1 * 2 / 3])
    for metric in (1.0, 1.0):
        plateau.step(metric)
    other = make_optimizer()
    other.load_state_dict(optimizer.state_dict())
    assert ls.LinearLR(other, total_iters=10, last_epoch=4).get_last_lr() == pytest.approx([0.1 / 3])


@pytest.mark.parametrize("steps", range(1, 8))
def test_last_epoch_one_too_far(steps: int) -> None:
    """``last_epoch=schedule.last_epoch`` is one epoch further than the loaded rates: a change between is not lost."""
    for make in (ls.StepLR, ls.ConstantLR):
        options = {"step_size": 3, "gamma": 0.5} if make is ls.StepLR else {"factor": 0.3, "total_iters": 5}
        optimizer = make_optimizer()
        schedule = make(optimizer, **options)
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        other = make_optimizer()
        other.load_state_dict(optimizer.state_dict())
        resumed = make(other, **options, last_epoch=schedule.last_epoch)
        optimizer.step()
        schedule.step()
        assert resumed.get_last_lr() == pytest.approx(schedule.get_last_lr())


def test_last_epoch_without_loaded_rates() -> None:
    """Two schedules beside each other go through the epochs again together."""
    optimizer = make_optimizer()
    optimizer.param_groups[0]["initial_lr"] = LR
    parts = [ls.ConstantLR(optimizer, 0.5, 3, last_epoch=1), ls.ExponentialLR(optimizer, 0.9, last_epoch=1)]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LR * 0.5 * 0.9**2)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        parts[0].step()


def test_groups_keep_their_own_rates() -> None:
    params = [nn.Parameter(deepseek.ones(1)) for _ in range(2)]
    optimizer = optim.SGD([{"params": params[0]}, {"params": params[1], "lr": 2.0}], lr=1.0)
    schedule = ls.LambdaLR(optimizer, [lambda t: 0.5**t, lambda t: 1 / (t + 1)])
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 1.0]
    with pytest.raises(ValueError, match="Expected 2 lr_lambdas, but got 1"):
        ls.LambdaLR(optimizer, [lambda t: 1.0])


def test_tensor_rate_is_filled() -> None:
    lr = deepseek.tensor(1.0)
    optimizer = optim.SGD([nn.Parameter(deepseek.ones(1))], lr=lr)
    schedule = ls.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr and lr.item() == 0.5


def test_lambda_objects_are_saved() -> None:
    class Decay:
        def __init__(self) -> None:
            self.rate = 0.5

        def __call__(self, t: int) -> float:
            return self.rate**t

    one, two = ls.LambdaLR(make_optimizer(), Decay()), ls.LambdaLR(make_optimizer(), Decay())
    one.lr_lambdas[0].rate = 0.25
    two.load_state_dict(one.state_dict())
    assert two.lr_lambdas[0].rate == 0.25
    assert ls.LambdaLR(make_optimizer(), lambda t: 1.0).state_dict()["lr_lambdas"] == [None]


def test_warns_about_the_wrong_order() -> None:
    optimizer = make_optimizer()
    schedule = ls.StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        schedule.step()


def test_fractional_restarts() -> None:
    optimizer = make_optimizer()
    schedule = ls.CosineAnnealingWarmRestarts(optimizer, 4)
    optimizer.step()
    schedule.step(5.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LR * (1 + math.cos(math.pi * 1.5 / 4)) / 2)


# --- plateau
def test_plateau_reduces_after_patience() -> None:
    optimizer = make_optimizer()
    schedule = ls.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, cooldown=2, min_lr=0.2)
    seen = []
    for metric in [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]:
        schedule.step(metric)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [0.5] * 4 + [0.25] * 5 + [0.2] * 6
    assert schedule.best == 0.9 and schedule.get_last_lr() == [0.2]
    other = ls.ReduceLROnPlateau(make_optimizer())
    other.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert other.best == 0.9 and other.patience == 2


@pytest.mark.parametrize(
    ("mode", "threshold_mode", "better", "not_better"),
    [("min", "rel", 0.89, 0.91), ("min", "abs", 0.89, 0.91), ("max", "rel", 1.11, 1.09), ("max", "abs", 1.11, 1.09)],
)
def test_plateau_threshold(mode: str, threshold_mode: str, better: float, not_better: float) -> None:
    schedule = ls.ReduceLROnPlateau(make_optimizer(), mode, threshold=0.1, threshold_mode=threshold_mode)
    schedule.step(deepseek.tensor(1.0))
    schedule.step(not_better)
    assert schedule.best == 1.0 and schedule.num_bad_epochs == 1
    schedule.step(better)
    assert schedule.best == better and schedule.num_bad_epochs == 0


# --- one cycle
def test_one_cycle() -> None:
    optimizer = make_optimizer(momentum=0.9)
    schedule = ls.OneCycleLR(optimizer, max_lr=1.0, total_steps=11, pct_start=0.5, anneal_strategy="linear")
    group = optimizer.param_groups[0]
    found = []
    for step in range(11):
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        if step < 10:
            schedule.step()
    assert found[0] == pytest.approx((1 / 25, 0.95))
    assert max(lr for lr, _ in found) <= 1.0 and found[10] == pytest.approx((1 / 25 / 1e4, 0.95))
    peak = 5.5 - 1
    assert found[2][0] == pytest.approx(1 / 25 + (1 - 1 / 25) * 2 / peak)
    assert found[2][1] == pytest.approx(0.95 - 0.1 * 2 / peak)
    schedule.step()
    with pytest.raises(ValueError, match="Tried to step 12 times"):
        schedule.step()
    adam = optim.Adam([nn.Parameter(deepseek.ones(1))])
    ls.OneCycleLR(adam, 1.0, epochs=2, steps_per_epoch=5, three_phase=True)
    assert adam.param_groups[0]["betas"] == (0.95, 0.999)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda o: ls.StepLR([1], 1), TypeError, "list is not an Optimizer"),
        (lambda o: ls.ConstantLR(o, 1.5), ValueError, "between 0 and 1"),
        (lambda o: ls.LinearLR(o, 0.0), ValueError, "Starting multiplicative factor"),
        (lambda o: ls.LinearLR(o, end_factor=2.0), ValueError, "Ending multiplicative factor"),
        (lambda o: ls.CosineAnnealingWarmRestarts(o, 0), ValueError, "positive integer T_0"),
        (lambda o: ls.CosineAnnealingWarmRestarts(o, 1, 0), ValueError, "T_mult >= 1"),
        (lambda o: ls.WarmupCosineLR(o, 5, 5), ValueError, "warmup_steps < total_steps"),
        (lambda o: ls.WarmupCosineLR(o, 1, 5, 2.0), ValueError, "min_lr_ratio"),
        (lambda o: ls.OneCycleLR(o, 1.0), ValueError, "total_steps OR"),
        (lambda o: ls.OneCycleLR(o, 1.0, 5, anneal_strategy="cubic"), ValueError, "'cos' or 'linear'"),
        (lambda o: ls.CyclicLR(o, 0.1, 1.0, mode="square"), ValueError, "mode must be one of 'triangular'"),
        (lambda o: ls.CyclicLR(o, [0.1, 0.2], 1.0), ValueError, "Expected 1 values for base_lr, but got 2"),
        (lambda o: ls.ChainedScheduler([ls.ReduceLROnPlateau(o)]), ValueError, "its step\\(\\) needs a metric"),
        (lambda o: ls.SequentialLR(o, [ls.StepLR(o, 1)], [3]), ValueError, "one more than the number of"),
        (lambda o: ls.SequentialLR(o, [], []), ValueError, "at least one scheduler"),
        (lambda o: ls.ChainedScheduler([ls.StepLR(make_optimizer(), 1)], o), ValueError, "same optimizer"),
        (lambda o: ls.ReduceLROnPlateau(o, "best"), ValueError, "mode best is unknown"),
        (lambda o: ls.ReduceLROnPlateau(o, factor=1.0), ValueError, "Factor should be < 1.0"),
        (lambda o: ls.ReduceLROnPlateau(o, min_lr=[1.0, 2.0]), ValueError, "expected 1 min_lrs, got 2"),
        (lambda o: ls.LRScheduler(o), NotImplementedError, "get_lr"),
    ],
)
def test_mistakes(make: Callable[[Any], Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        make(make_optimizer())
