"""Learning-rate schedules of every kind with random parameters, alone and nested; of our library or of PyTorch."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STEPS = 16

# Makes a schedule of the library's module on an optimizer; the number is last_epoch.
Make = Callable[[Any, Any, int], Any]


@dataclass
class Plan:
    """What to run: a schedule, and an optimizer with these groups."""

    text: str
    make: Make
    lrs: list[float]
    optimizer: str  # "SGD" (with momentum) or "Adam"
    in_torch: bool = True  # PyTorch has it, and steps it as its documentation says


class Power:
    """A function of the epoch that is an object with state."""

    def __init__(self, base: float) -> None:
        self.base = base

    def __call__(self, epoch: int) -> float:
        return self.base ** (epoch % 3)


def _simple(rng: random.Random, groups: int) -> tuple[str, dict[str, Any]]:
    """A schedule's name and arguments."""

    def share(low: float = 0.1) -> float:
        return rng.uniform(low, 1.0)

    def function() -> Any:
        base = share(0.6)
        if rng.random() < 0.3:
            return Power(base)
        return rng.choice([lambda t: base ** (t % 5), lambda t: 1 / (1 + base * t)])

    def functions() -> Any:
        return function() if rng.random() < 0.5 else [function() for _ in range(groups)]

    name = rng.choice([name for name in KINDS if name not in ("OneCycleLR", "CyclicLR")])
    arguments: dict[str, dict[str, Callable[[], Any]]] = {
        "LambdaLR": {"lr_lambda": functions},
        "MultiplicativeLR": {"lr_lambda": functions},
        "StepLR": {"step_size": lambda: rng.randint(1, 5), "gamma": share},
        "MultiStepLR": {
            "milestones": lambda: [rng.randint(0, STEPS) for _ in range(rng.randint(0, 4))],
            "gamma": share,
        },
        "ConstantLR": {"factor": share, "total_iters": lambda: rng.randint(1, STEPS)},
        "LinearLR": {"start_factor": share, "end_factor": share, "total_iters": lambda: rng.randint(1, STEPS)},
        "ExponentialLR": {"gamma": share},
        "PolynomialLR": {"total_iters": lambda: rng.randint(1, STEPS + 4), "power": lambda: rng.uniform(0.5, 3)},
        "CosineAnnealingLR": {"T_max": lambda: rng.randint(1, 12), "eta_min": lambda: rng.choice([0, 1e-3, 0.05])},
        "CosineAnnealingWarmRestarts": {
            "T_0": lambda: rng.randint(1, 6),
            "T_mult": lambda: rng.randint(1, 3),
            "eta_min": lambda: rng.choice([0, 1e-3, 0.05]),
        },
        "WarmupCosineLR": {
            "warmup_steps": lambda: rng.randint(0, 6),
            "total_steps": lambda: rng.randint(7, 20),
            "min_lr_ratio": lambda: share(0.0),
        },
    }
    return name, {key: value() for key, value in arguments[name].items()}


def _cyclic(rng: random.Random, groups: int) -> tuple[str, dict[str, Any]]:
    """A schedule that sets "initial_lr" and the momentum itself, so it has to be made first."""
    peak: Any = rng.uniform(0.5, 2.0) if rng.random() < 0.5 else [rng.uniform(0.5, 2.0) for _ in range(groups)]
    momentum = {"cycle_momentum": rng.random() < 0.7, "base_momentum": 0.7, "max_momentum": rng.uniform(0.8, 0.95)}
    if rng.random() < 0.5:
        anneal = rng.choice(["cos", "linear"])
        shape = {"total_steps": rng.randint(STEPS, 40), "pct_start": rng.uniform(0.2, 0.45), "anneal_strategy": anneal}
        return "OneCycleLR", {"max_lr": peak, **shape, "three_phase": rng.random() < 0.4, **momentum}
    options: dict[str, Any] = {"step_size_up": rng.randint(1, 6), "gamma": rng.uniform(0.8, 1.0)}
    options["step_size_down"] = rng.choice([None, rng.randint(1, 6)])
    options["mode"] = rng.choice(["triangular", "triangular2", "exp_range"])
    if rng.random() < 0.3:
        options["scale_fn"], options["scale_mode"] = Power(0.8), rng.choice(["cycle", "iterations"])
    return "CyclicLR", {"base_lr": rng.uniform(0.01, 0.3), "max_lr": peak, **options, **momentum}


KINDS = [
    "LambdaLR",
    "MultiplicativeLR",
    "StepLR",
    "MultiStepLR",
    "ConstantLR",
    "LinearLR",
    "ExponentialLR",
    "PolynomialLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "WarmupCosineLR",
    "OneCycleLR",
    "CyclicLR",
]


def _leaf(name: str, options: dict[str, Any]) -> Make:
    return lambda module, optimizer, last: getattr(module, name)(optimizer, **options, last_epoch=last)


def _tree(rng: random.Random, groups: int, depth: int, first: bool) -> tuple[str, Make, bool]:
    """A schedule's text, how to make it, and whether PyTorch runs it; ``first`` if nothing was made before it."""
    choice = rng.random()
    if depth == 0 or choice < 0.4:
        name, options = _cyclic(rng, groups) if first and rng.random() < 0.25 else _simple(rng, groups)
        return f"{name}({options})", _leaf(name, options), name != "WarmupCosineLR"
    count = rng.randint(1, 3)
    parts = [_tree(rng, groups, depth - 1, first and place == 0) for place in range(count)]
    texts, makes, runs = zip(*parts, strict=True)
    if choice < 0.7:

        def chained(module: Any, optimizer: Any, last: int) -> Any:
            return module.ChainedScheduler([make(module, optimizer, last) for make in makes])

        return f"Chained[{', '.join(texts)}]", chained, all(runs)
    milestones = sorted(rng.randint(0, STEPS) for _ in range(count - 1))
    fresh = rng.random() < 0.5  # whether the parts are made without last_epoch when resumed

    def sequential(module: Any, optimizer: Any, last: int) -> Any:
        made = [make(module, optimizer, -1 if fresh else last) for make in makes]
        return module.SequentialLR(optimizer, made, milestones, last_epoch=last)

    # In PyTorch a combination inside a SequentialLR starts at its epoch 1, or raises NotImplementedError at a
    # milestone.
    nested = any("[" in text.split("(")[0] for text in texts)
    return f"Sequential[{', '.join(texts)}]({milestones}, {fresh})", sequential, all(runs) and not nested


def plan(case: int) -> Plan:
    """The plan of a case."""
    rng = random.Random(case)
    lrs = [rng.uniform(0.05, 1.0) for _ in range(rng.randint(1, 3))]
    text, make, in_torch = _tree(rng, len(lrs), rng.choice([0, 1, 1, 2]), True)
    return Plan(text, make, lrs, rng.choice(["SGD", "Adam"]), in_torch)


def optimizer_of(library: Any, plan: Plan, lrs: list[float] | None = None) -> Any:
    """The plan's optimizer; with ``lrs``, these are its groups' "initial_lr"."""
    groups = [{"params": [library.nn.Parameter(library.ones(1))], "lr": lr} for lr in lrs or plan.lrs]
    if lrs is not None:
        groups = [{**group, "initial_lr": lr} for group, lr in zip(groups, lrs, strict=True)]
    options = {"momentum": 0.9} if plan.optimizer == "SGD" else {}
    return getattr(library.optim, plan.optimizer)(groups, lr=0.1, **options)


def rates(optimizer: Any) -> list[float]:
    """What a schedule sets: the rate and the momentum of each group."""
    return [
        float(number)
        for group in optimizer.param_groups
        for number in (group["lr"], group["momentum"] if "momentum" in group else group["betas"][0])
    ]


def curve(optimizer: Any, schedule: Any, steps: int) -> list[list[float]]:
    """The rates now and after each of the steps."""
    found = [rates(optimizer)]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        found.append(rates(optimizer))
    return found
