"""What recordings of ``deepseek.jit`` keep alive, and what they free."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import deepseek
from deepseek import nn
from jit_helpers import rand, recordings


def test_cycles_through_what_is_watched_are_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.gain = 2.0
            self.f = deepseek.jit(lambda x: x * self.gain)

    owner = Owner()
    for _ in range(2):
        assert owner.f(deepseek.ones(1)).item() == 2.0
    alive = weakref.ref(owner)
    del owner
    gc.collect()
    assert alive() is None


def test_arguments_are_not_kept_alive() -> None:
    """A method's recordings belong to the class: they end with the instance, whose tensors they hold."""

    class Gain(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(deepseek.tensor([value]))

        @deepseek.jit
        def scaled(self, x: Any) -> Any:
            return x * self.weight

    one, two = Gain(1.0), Gain(2.0)
    for _ in range(3):
        assert [m.scaled(deepseek.ones(1)).item() for m in (one, two)] == [1.0, 2.0]
    assert recordings(Gain.scaled) == 2
    instance, weight = weakref.ref(one), weakref.ref(one.weight)
    del one
    gc.collect()
    assert instance() is None and weight() is None
    assert recordings(Gain.scaled) == 1 and two.scaled(deepseek.ones(1)).item() == 2.0
    three = Gain(3.0)
    assert [three.scaled(deepseek.ones(1)).item() for _ in range(3)] == [3.0] * 3


def test_cycles_through_arguments_and_host_calls_are_collected() -> None:
    class Plain:
        """Cannot be referred to weakly, so that the recording holds it."""

        __slots__ = ("f",)

    class Owner:
        pass

    def used() -> list[weakref.ref[Any]]:
        plain, owner = Plain(), Owner()
        w = rand(2, grad=True)
        optimizer = deepseek.optim.SGD([w], lr=0.1)

        def step(_: Any) -> Any:
            optimizer.zero_grad()
            loss = (w * w).sum()
            loss.backward()
            optimizer.step()
            return loss

        f = deepseek.jit(step)
        plain.f = owner.f = f  # type: ignore[attr-defined]
        optimizer.owner = owner  # type: ignore[attr-defined]
        for _ in range(3):
            f(plain)
        assert recordings(f), f.explain()
        return [weakref.ref(owner), weakref.ref(optimizer), weakref.ref(f)]

    dead = used()
    gc.collect()
    assert [ref() for ref in dead] == [None] * 3


def test_recordings_dropped_while_one_runs() -> None:
    w = rand(2, grad=True)
    optimizer = deepseek.optim.SGD([w], lr=0.1)
    drop = False

    def hook(*_: Any) -> None:
        if drop:
            f.reset()

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        return w.sum()

    f = deepseek.jit(step)
    optimizer.register_step_post_hook(hook)
    x, y = deepseek.ones(2), deepseek.ones(1)
    for _ in range(3):
        f(x), f(y)
    assert recordings(f) > 1, f.explain()
    drop = True
    f(x)  # the second in the list
    assert recordings(f) == 0


def test_memory_is_freed_after_the_last_use() -> None:
    def chain(x: Any) -> Any:
        for _ in range(30):
            x = x * 1.5
        return x

    f = deepseek.jit(chain)
    x = deepseek.ones(100_000)
    with deepseek.no_grad():
        f(x)
        deepseek.reset_peak_memory_stats()
        before = deepseek.memory_stats()["allocated_bytes"]
        f(x)
        assert deepseek.memory_stats()["peak_bytes"] - before < 4 * x.nbytes
    assert math.isfinite(f(x)[0].item())
