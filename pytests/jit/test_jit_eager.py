"""What ``deepseek.jit`` runs eagerly, and what it runs for real on every replay."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.train import WindowSampler
from jit_helpers import rand

SEEN: list[Any] = []


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: deepseek.from_numpy((x * 2).numpy()), "NumPy"),
        (lambda x: x + deepseek.tensor(np.ones(2)), "NumPy"),
        (lambda x: ..., "Ellipsis"),
        (lambda x: SEEN.append(x * 2) or x * 2, "SEEN"),
        (lambda x: object(), "object"),
        (lambda x: (x.add_(1), x.sum().item())[0], "read back after"),
        (lambda x: x.clone().requires_grad_(), "requires_grad is changed"),
        (lambda x: deepseek.rand(2, generator=deepseek.Generator()), "generator of its own"),
        (lambda x: deepseek.manual_seed(3) and x, "seeded"),
    ],
)
def test_what_cannot_be_replayed(function: Any, reason: str) -> None:
    f = deepseek.jit(function)
    f(deepseek.ones(2))
    assert not f._entries and "runs eagerly from now on: " in f.explain() and reason in f.explain()
    f(deepseek.ones(2))


def test_iterators_and_modes_are_not_captured() -> None:
    stream = iter([1.0, 2.0, 3.0])
    f = deepseek.jit(lambda x: x * next(stream))
    assert [f(deepseek.ones(1)).item() for _ in range(3)] == [1.0, 2.0, 3.0]
    assert "iterator" in f.explain()

    def g(x: Any) -> Any:
        deepseek.set_grad_enabled(False)
        return x

    try:
        f = deepseek.jit(g)
        f(deepseek.ones(1))
        assert "grad mode" in f.explain()
    finally:
        deepseek.set_grad_enabled(True)


def test_batches_drawn_inside_are_not_captured() -> None:
    windows = WindowSampler(np.arange(1024, dtype=np.int64) % 256, 8, seed=0)
    model = nn.Embedding(256, 2)
    f = deepseek.jit(lambda: model(windows.next_batch(2)[0]))
    first, second = f(), f()
    assert not first.equal(second) and not f._entries


def test_an_error_while_recording_leaves_nothing_behind() -> None:
    @deepseek.jit
    def f(x: Any) -> Any:
        if x.shape[0] == 3:
            raise KeyError("three")
        return x + 1

    with pytest.raises(KeyError):
        f(deepseek.ones(3))
    assert not deepseek.jit.is_recording()
    assert f(deepseek.ones(2)).tolist() == [2.0, 2.0]


def test_disabled_functions_run_every_time() -> None:
    log: list[float] = []

    class Sink:
        @staticmethod
        @deepseek.jit.disable
        def note(value: Any) -> Any:
            SEEN.append(value.item())
            return value * 10

    SEEN.clear()
    f = deepseek.jit(lambda x: Sink.note(x.sum()) + 1)
    assert [f(deepseek.tensor([v])).item() for v in (1.0, 2.0, 3.0)] == [11.0, 21.0, 31.0]
    assert SEEN == [1.0, 2.0, 3.0] and not log
    SEEN.clear()


def test_a_disabled_function_that_returns_a_number_or_fills_a_list_runs_eagerly() -> None:
    calls: list[int] = []

    @deepseek.jit.disable
    def count(x: Any) -> float:
        calls.append(1)
        return float(len(calls))

    @deepseek.jit.disable
    def fill(out: list[Any], x: Any) -> None:
        out.append(x * len(calls))

    def filled(x: Any) -> Any:
        out: list[Any] = []
        fill(out, x)
        return out[0]

    counted = deepseek.jit(lambda x: x * count(x))
    assert [counted(deepseek.ones(1)).item() for _ in range(4)] == [1, 2, 3, 4]
    listed = deepseek.jit(filled)
    assert [(listed(deepseek.ones(1)).item(), calls.append(1))[0] for _ in range(3)] == [4, 5, 6]


def test_a_disabled_function_sees_autocast_on_every_replay() -> None:
    @deepseek.jit.disable
    def product(x: Any) -> Any:
        return x @ x

    f = deepseek.jit(lambda x: product(x) + 0)
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        assert [f(deepseek.eye(2)).dtype for _ in range(3)] == [deepseek.bfloat16] * 3


def test_a_function_that_is_recorded_in_vain_runs_eagerly() -> None:
    f = deepseek.jit(lambda x: x * x.sum().item())
    for n in range(2 * deepseek.jit.capture.MAX_RECORDINGS + 2):
        assert f(deepseek.tensor([float(n)])).item() == float(n * n)
    assert f._eager and "had to be recorded again" in f.explain()


# --- what a recording would leave out


@pytest.mark.parametrize(
    ("top", "body", "reason"),
    [
        ("", "print('hello')", "print"),
        ("", "list(map(print, ['hello']))", "print"),
        ("say = print", "say('hello')", "print"),
        ("say = [print]", "say[0]('hello')", "say"),
        ("import random", "x = x * random.random()", "random"),
        ("import random\nr = random.Random(3)", "x = x * r.random()", "Random"),
        ("from random import random", "x = x * random()", "random"),
        ("import time", "x = x * time.perf_counter()", "perf_counter"),
        ("import os", "x = x * len(os.environ.get('HOME', ''))", "os"),
        ("import itertools\ni = itertools.count()", "x = x * next(i)", "iterator"),
        ("import warnings", "warnings.warn('careful')", "warn"),
        ("import logging", "logging.getLogger('quiet').info('hello')", "logging"),
        ("", "x = x * len(eval('[1]'))", "eval"),
        ("import functools\n@functools.lru_cache\ndef c(): return 2", "x = x * c()", "cache"),
        ("import datetime", "x = x * datetime.datetime.now().second", "now"),
        ("", "x.tag = 1", "argument"),
        ("", "x = x * 1\n    x.tag = 1", "attributes"),
        ("", "x = T.nn.Parameter(x)", ""),
    ],
)
def test_what_runs_only_while_recording_is_not_captured(top: str, body: str, reason: str) -> None:
    namespace: dict[str, Any] = {"__name__": "jit_eager_program"}
    exec(f"import deepseek as T\n{top}\ndef f(x):\n    {body}\n    return x\n", namespace)
    f = deepseek.jit(namespace["f"])
    for _ in range(3):
        with contextlib.suppress(UserWarning):
            f(deepseek.ones(1))
    assert not f._entries and reason in f.explain(), f.explain()


def test_prints_and_hooks_run_every_time(capsys: pytest.CaptureFixture[str]) -> None:
    f = deepseek.jit(lambda x: print("called") or x)
    for _ in range(3):
        f(deepseek.ones(1))
    assert capsys.readouterr().out == "called\n" * 3

    layer = nn.Linear(1, 1)
    g = deepseek.jit(layer)
    for _ in range(3):
        g(deepseek.ones(1))
    layer.register_forward_hook(lambda *_: print("hook"))
    w = layer.weight
    for _ in range(3):
        g(deepseek.ones(1))
    assert capsys.readouterr().out == "hook\n" * 3

    def step(x: Any) -> None:
        (w * x).sum().backward()

    h = deepseek.jit(step)
    for _ in range(2):
        h(deepseek.ones(1))
    handle = w.register_hook(lambda grad: SEEN.append(grad))
    SEEN.clear()
    for _ in range(3):
        h(deepseek.ones(1))
    handle.remove()
    h(deepseek.ones(1))
    assert len(SEEN) == 3
    SEEN.clear()


def test_a_logger_that_is_not_used_is_no_hindrance() -> None:
    namespace: dict[str, Any] = {"__name__": "jit_eager_program"}
    top = "import logging\nlogger = logging.getLogger('jit')\ndef f(x):\n    if x.ndim > 1:\n"
    exec(f"{top}        logger.warning('wide')\n    return x * (2 if logger.disabled else 1)\n", namespace)
    f = deepseek.jit(namespace["f"])
    assert [f(deepseek.ones(1)).item() for _ in range(2)] == [1.0, 1.0] and f._entries, f.explain()
    namespace["logger"].disabled = True
    assert f(deepseek.ones(1)).item() == 2.0
    f(deepseek.ones(1, 1))
    assert "logging" in f.explain()


def test_a_profiler_that_is_active_goes_on() -> None:
    names: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: names.append(frame.f_code.co_name) if event == "call" else None)
    try:
        f = deepseek.jit(lambda x: twice(x))
        f(deepseek.ones(1))
        twice(deepseek.ones(1))
    finally:
        sys.setprofile(before)
    assert names.count("twice") == 2 and f._entries


def twice(x: Any) -> Any:
    return x * 2


# --- errors


def test_the_functions_own_handlers_see_an_ops_error() -> None:
    def f(x: Any) -> Any:
        try:
            return 1 // x
        except RuntimeError as error:
            return str(error)

    captured = deepseek.jit(f, verify=True)
    one, zero = deepseek.tensor([1]), deepseek.tensor([0])
    for x in (one, one, zero, one, zero, zero):
        expected, found = f(x), captured(x)
        assert found == expected if isinstance(expected, str) else found.equal(expected)


@pytest.mark.parametrize("kind", ["bare", "finally", "with"])
def test_handlers_of_every_kind(kind: str) -> None:
    total = deepseek.zeros(1)

    class Manager:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> bool:
            total.add_(100)
            return True

    def f(x: Any) -> Any:
        total.add_(1)
        if kind == "with":
            with Manager():
                return 1 // x
        try:
            total.add_(1 // x)
        except:  # noqa: E722
            if kind == "bare":
                total.add_(100)
            else:
                raise
        finally:
            total.add_(1000)
        return total.clone()

    def run(function: Any) -> list[Any]:
        total.zero_()
        seen = []
        for n in (1, 1, 0, 1, 0):
            with contextlib.suppress(RuntimeError):
                function(deepseek.tensor([n]))
            seen.append(total.item())
        return seen

    assert run(deepseek.jit(f)) == run(f)


def test_an_error_in_a_replay_leaves_what_the_eager_call_leaves() -> None:
    def run(compile: Any) -> list[Any]:
        w, total = rand(2, grad=True).detach().fill_(1).requires_grad_(), deepseek.zeros(2)

        def f(x: Any) -> Any:
            noise = deepseek.rand(2)
            w.grad = None
            total.add_(1)
            y = total.long() // x
            total.add_(1)
            return y, noise

        step, seen = compile(f), []
        deepseek.manual_seed(0)
        for n in (1, 1, 0, 1):
            w.grad = deepseek.ones(2, dtype=w.dtype)
            try:
                seen.append(str(step(deepseek.tensor([n, n]))))
            except RuntimeError as error:
                seen.append(str(error))
            seen += [total.tolist(), w.grad is None, deepseek.get_rng_state().tolist()]
        return seen

    assert run(deepseek.jit) == run(lambda f: f)


def test_an_unused_call_fails_all_the_same() -> None:
    def f(x: Any) -> Any:
        1 // x
        return x

    captured = deepseek.jit(f)
    captured(deepseek.tensor([1]))
    captured(deepseek.tensor([1]))
    with pytest.raises(RuntimeError):
        captured(deepseek.tensor([0]))


def test_a_disabled_function_that_fails_in_a_try_block() -> None:
    @deepseek.jit.disable
    def host(x: Any) -> Any:
        if x.item() == 0:
            raise ValueError("zero")
        return x * 2

    def f(x: Any) -> Any:
        try:
            return host(x)
        except ValueError:
            return x - 1

    captured = deepseek.jit(f)
    assert [captured(deepseek.tensor([v])).item() for v in (1.0, 1.0, 0.0, 1.0)] == [2.0, 2.0, -1.0, 2.0]


def test_texts_of_any_alphabet_and_objects_without_one() -> None:
    captured = deepseek.jit(lambda x, text: x * 2)
    x = deepseek.ones(2)
    for text in ["€" * 40] * 3 + ["€" * 40 + "x" * i for i in range(12)]:
        assert captured(x, text).tolist() == [2.0, 2.0]

    class Unprintable:
        def __repr__(self) -> str:
            return "\ud800"

    for value in (3, 3, Unprintable()):
        assert captured(x, value).tolist() == [2.0, 2.0]
