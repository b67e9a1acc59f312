"""Ctrl-C during a backward pass: KeyboardInterrupt at once, nothing half-done is left in the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import deepseek
import pytest


@pytest.fixture(autouse=True)
def sigint_raises() -> Iterator[None]:
    """Background jobs inherit an ignored SIGINT; these tests need Python's handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def chain(x: Any, nodes: int) -> Any:
    for _ in range(nodes):
        x = x * 1.0
    return x


def fresh_backward_works(x: Any) -> None:
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3.0] * len(x)


def test_a_signal_inside_a_hook_stops_the_pass() -> None:
    x = deepseek.ones(2, requires_grad=True)
    y = chain(x, 10)
    y.register_hook(lambda grad: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        chain(y, 1000).sum().backward()
    assert x.grad is None
    fresh_backward_works(x)


def test_a_signal_between_nodes_stops_the_pass() -> None:
    """The alarm goes off while only C++ runs; its handler is called between two nodes, not after the last one."""
    x = deepseek.ones(2, requires_grad=True)
    total = chain(x, 100_000).sum()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with pytest.raises(KeyboardInterrupt):
            total.backward()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert x.grad is None
    fresh_backward_works(x)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_in_a_hook_comes_out_of_backward(error: type[BaseException]) -> None:
    x = deepseek.ones(2, requires_grad=True)
    y = x * 2

    def hook(grad: Any) -> None:
        raise error("from the hook")

    handle = y.register_hook(hook)
    z = y * 5
    with pytest.raises(error, match="from the hook"):
        z.sum().backward(retain_graph=True)
    assert x.grad is None
    handle.remove()
    z.sum().backward()  # the same graph, again
    assert x.grad.tolist() == [10.0, 10.0]
    fresh_backward_works(x)


def test_a_signal_during_a_nested_backward() -> None:
    x = deepseek.ones(2, requires_grad=True)

    def hook(grad: Any) -> None:
        inner = deepseek.ones(2, requires_grad=True)
        os.kill(os.getpid(), signal.SIGINT)
        chain(inner, 100).sum().backward()

    y = x * 2
    y.register_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        y.sum().backward()
    fresh_backward_works(x)


def test_a_handler_that_does_not_raise_lets_the_pass_finish() -> None:
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    try:
        x = deepseek.ones(2, requires_grad=True)
        y = chain(x, 5)
        y.register_hook(lambda grad: os.kill(os.getpid(), signal.SIGINT))
        chain(y, 5).sum().backward()
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [1] and x.grad.tolist() == [1.0, 1.0]


def test_memory_of_an_interrupted_pass_is_freed() -> None:
    x = deepseek.ones(1000, requires_grad=True)

    def interrupted() -> None:
        y = x.exp()
        y.register_hook(lambda grad: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            chain(y, 50).exp().sum().backward()

    interrupted()
    before = deepseek.memory_stats()["allocated_bytes"]
    for _ in range(20):
        interrupted()
    assert deepseek.memory_stats()["allocated_bytes"] == before


def test_ctrl_c_from_outside() -> None:
    """Another process interrupts backward passes over a long graph; the program catches it and trains on."""
    script = """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        import deepseek
        x = deepseek.ones(64, requires_grad=True)
        y = x
        for _ in range(50_000):
            y = y * 1.0
        total = y.sum()
        print("ready", flush=True)
        try:
            while True:
                total.backward(retain_graph=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        x.grad = None
        total.backward()
        assert x.grad.tolist() == [1.0] * 64
        print("continued", flush=True)
    """
    command = [sys.executable, "-u", "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "interrupted\ncontinued\n"), err
