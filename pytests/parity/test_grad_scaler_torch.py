"""GradScaler against PyTorch's over random sequences of events: values, state, and the errors' classes and texts."""

from __future__ import annotations

import copy
import io
import math
import pickle
import random
from typing import Any

import deepseek
import numpy as np
import pytest

torch = pytest.importorskip("torch")

SEQUENCES, EVENTS, ALWAYS = 60, 60, 6
KINDS = ("finite",) * 6 + ("inf", "-inf", "nan", "one inf", "large", "none")


def library_scaler(T: Any, **options: Any) -> Any:
    return T.amp.GradScaler("cpu", **options)


class Side:
    """One library's half of a sequence: two optimizers that share nothing, and the scaler."""

    def __init__(self, T: Any, options: dict[str, Any]) -> None:
        self.T = T
        self.params = [
            [T.tensor([[0.5, -1.0, 2.0]], dtype=T.float32, requires_grad=True) for _ in range(2)],
            [T.tensor([3.0, -2.0], dtype=d, requires_grad=True) for d in (T.float64, T.bfloat16)],
        ]
        self.optimizers = [T.optim.SGD(p, lr=0.125) for p in self.params]
        self.options = options
        self.scaler = library_scaler(T, **options)

    def gradients(self, which: int, kinds: list[str], seed: int) -> None:
        draw = np.random.default_rng(seed)
        for p, kind in zip(self.params[which], kinds, strict=True):
            values = draw.normal(size=tuple(p.shape)) * 8
            if kind in ("inf", "-inf", "nan"):
                values[:] = float(kind)
            elif kind == "one inf":
                values.flat[-1] = math.inf
            elif kind == "large":
                values[:] = 3e38
            p.grad = None if kind == "none" else self.T.tensor(values.tolist(), dtype=p.dtype)

    def perform(self, event: str, number: int, value: float) -> Any:
        T, scaler, optimizer = self.T, self.scaler, self.optimizers[number % 2]
        match event:
            case "scale":
                return scaler.scale(T.tensor([value, 1.0])).tolist()
            case "scale several":
                made = scaler.scale([T.tensor(value), (T.tensor([2.0]),)])
                return type(made).__name__, made[0].item(), type(made[1]).__name__, made[1][0].tolist()
            case "scale nonsense":
                return scaler.scale(3)
            case "unscale":
                return scaler.unscale_(optimizer)
            case "step":
                return scaler.step(optimizer)
            case "closure":
                return scaler.step(optimizer, closure=lambda: None)
            case "update":
                return scaler.update()
            case "new scale":
                return scaler.update(value)
            case "new scale tensor":
                return scaler.update(T.tensor(value))
            case "wrong new scale":
                return scaler.update(T.tensor([value, value]))
            case "growth factor":
                return scaler.set_growth_factor(1.0 + value)
            case "backoff factor":
                return scaler.set_backoff_factor(1.0 / (1.0 + value))
            case "growth interval":
                return scaler.set_growth_interval(1 + number % 4)
            case "save":
                kept, self.scaler = scaler.state_dict(), library_scaler(T, **self.options)
                return kept, self.scaler.load_state_dict(kept)
            case "pickle":
                file = io.BytesIO()
                pickle.dump(scaler, file)
                file.seek(0)
                self.scaler = pickle.load(file)
                return None
            case "copy":
                self.scaler = copy.deepcopy(scaler)
                return None
        raise AssertionError(event)

    def attempt(self, event: str, number: int, value: float) -> tuple[str, Any]:
        try:
            return "returned", self.perform(event, number, value)
        except Exception as error:
            # Ours may go on after what PyTorch says.
            return type(error).__name__, str(error)

    def seen(self) -> Any:
        scaler = self.scaler
        numbers = [
            [(p.detach().double().tolist(), None if p.grad is None else p.grad.double().tolist()) for p in group]
            for group in self.params
        ]
        if not scaler.is_enabled():
            return numbers, scaler.get_scale(), scaler.state_dict()
        return (
            numbers,
            scaler.get_scale(),
            scaler._get_growth_tracker(),
            (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()),
            scaler.state_dict(),
            [
                (state["stage"].name, [found.item() for found in state["found_inf_per_device"].values()])
                for state in scaler._per_optimizer_states.values()
            ],
        )


WEIGHTS = {
    "scale": 6, "scale several": 1, "scale nonsense": 1, "unscale": 4, "step": 9, "closure": 1, "update": 9,
    "new scale": 1, "new scale tensor": 1, "wrong new scale": 1, "growth factor": 1, "backoff factor": 1,
    "growth interval": 1, "save": 1, "pickle": 1, "copy": 1,
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    return repr(a) == repr(b)  # NaN is itself, -0.0 is not 0.0


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=() if n < ALWAYS else pytest.mark.slow) for n in range(SEQUENCES)]
)
def test_random_events(seed: int) -> None:
    draw = random.Random(seed)
    options = {
        "init_scale": draw.choice([1.0, 128.0, 3.0, 2.0**16, 2.0**126, 1e-38]),
        "growth_factor": draw.choice([2.0, 1.5, 1.1]),
        "backoff_factor": draw.choice([0.5, 0.25, 0.9]),
        "growth_interval": draw.choice([1, 2, 3, 2000]),
        "enabled": draw.random() > 0.1,
    }
    ours, theirs = Side(deepseek, options), Side(torch, options)
    assert same(ours.seen(), theirs.seen())
    for place in range(EVENTS):
        event = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        number, value = draw.randrange(8), draw.choice([0.5, 2.0, 3.25, 1024.0])
        if event in ("unscale", "step"):
            kinds, numbers = [draw.choice(KINDS), draw.choice(KINDS)], draw.randrange(10**6)
            if draw.random() < 0.8:
                for side in (ours, theirs):
                    side.gradients(number % 2, kinds, numbers)
        mine, other = ours.attempt(event, number, value), theirs.attempt(event, number, value)
        label = f"seed {seed}, event {place}: {event}"
        if other[0] == "returned":
            assert same(mine, other), label
        else:
            assert mine[0] == other[0], label
            words = other[1].split("torch")[0].rstrip(". ")  # what comes before the name of a torch class
            assert mine[1].startswith(words), (label, mine[1], other[1])
        assert same(ours.seen(), theirs.seen()), label


@pytest.mark.parametrize("wrong", [{"growth_factor": 1.0}, {"growth_factor": 0.5}, {"backoff_factor": 1.0}])
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(AssertionError) as theirs:
        library_scaler(torch, **wrong)
    with pytest.raises(AssertionError) as ours:
        library_scaler(deepseek, **wrong)
    assert str(ours.value).startswith(str(theirs.value))


def test_float16_gradients() -> None:
    texts = []
    for T in (deepseek, torch):
        p = T.ones(2, dtype=T.float16, requires_grad=True)
        scaler = library_scaler(T)
        scaler.scale((p * 0).float().sum()).backward()
        with pytest.raises(ValueError) as refused:
            scaler.unscale_(T.optim.SGD([p], lr=1.0))
        texts.append(str(refused.value))
    assert texts[0].startswith(texts[1])  # and says what to do


class ScalesItself:
    """What an optimizer with `_step_supports_amp_scaling` is called with."""

    _step_supports_amp_scaling = True

    def __init__(self, params: list[Any]) -> None:
        self.param_groups = [{"params": params}]
        self.seen: list[Any] = []

    def step(self) -> float:
        scale = self.grad_scale
        self.seen.append((None if scale is None else scale.item(), self.found_inf.item()))
        return 7.0


@pytest.mark.parametrize("unscale_first", [True, False])
@pytest.mark.parametrize("kind", ["finite", "inf"])
def test_an_optimizer_that_scales_itself(kind: str, unscale_first: bool) -> None:
    found = []
    for T in (deepseek, torch):
        p = T.ones(2, requires_grad=True)
        optimizer, scaler = ScalesItself([p]), library_scaler(T, init_scale=8.0)
        scaler.scale(p.sum()).backward()
        if kind == "inf":
            p.grad[0] = math.inf
        if unscale_first:
            scaler.unscale_(optimizer)
        result = scaler.step(optimizer)
        scaler.update()
        left = [hasattr(optimizer, name) for name in ("grad_scale", "found_inf")]
        found.append((result, optimizer.seen, left, p.grad.tolist(), scaler.get_scale()))
    assert same(found[0], found[1])


def test_the_signature_is_pytorchs() -> None:
    import inspect

    ours = inspect.signature(deepseek.amp.GradScaler).parameters
    theirs = inspect.signature(torch.amp.GradScaler).parameters
    assert [n for n in ours if ours[n].kind is not inspect.Parameter.KEYWORD_ONLY] == list(theirs)
    assert all(ours[n].default == theirs[n].default for n in theirs if n != "device")
    assert set(dir(torch.amp.GradScaler)) - set(dir(deepseek.amp.GradScaler)) <= {
        "_check_scale_growth_tracker", "_lazy_init_scale_growth_tracker", "_maybe_opt_step",
    }  # fmt: skip
