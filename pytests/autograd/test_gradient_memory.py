"""Deep graphs, memory that a backward pass frees, gradients without copies."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import deepseek
import numpy as np
import pytest

F64 = deepseek.float64


def leaf(*values: float) -> Any:
    return deepseek.tensor(list(values), dtype=F64, requires_grad=True)


# --- depth, memory ----------------------------------------------------------------------------------------------------
def test_a_chain_of_150000_nodes_runs_and_frees() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(150_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.tolist() == [1.0]
    del y
    z = x
    for _ in range(150_000):
        z = z * 1
    del z  # freed without having been run
    gc.collect()


def live_bytes() -> int:
    gc.collect()
    return deepseek.memory_stats()["allocated_bytes"]


def test_saved_tensors_are_freed_by_backward() -> None:
    x = deepseek.ones(256, 1024, requires_grad=True)
    before = live_bytes()
    loss = x.exp().exp().sum()
    assert live_bytes() - before >= 2 * 256 * 1024 * 4  # two outputs are kept for the backward pass
    loss.backward()
    x.grad = None
    assert live_bytes() - before < 8192


def test_dropping_a_graph_frees_it() -> None:
    x = deepseek.ones(256, 1024, requires_grad=True)
    before = live_bytes()
    y = (x.exp() * x).tanh().sum()
    del y
    assert live_bytes() == before


def test_no_leak_over_many_steps() -> None:
    w = deepseek.ones(64, 64, requires_grad=True)
    x = deepseek.ones(8, 64)

    def step() -> None:
        loss = deepseek.tanh(x @ w).square().mean()
        loss.backward()
        with deepseek.no_grad():
            w.sub_(w.grad, alpha=0.01)
        w.grad = None

    step()
    before = live_bytes()
    for _ in range(2000):
        step()
    assert live_bytes() == before


def test_create_graph_leaves_no_cycle() -> None:
    x = leaf(1.0)
    y = x.exp()
    ref = weakref.ref(y)
    (g,) = deepseek.autograd.grad(y.sum(), x, create_graph=True)
    del y, g
    assert ref() is None


@pytest.mark.threads
def test_backward_from_several_threads() -> None:
    results: list[Any] = [None] * 4

    def work(i: int) -> None:
        x = leaf(float(i), 1.0)
        for _ in range(20):
            x.grad = None
            (x * x).sum().backward()
        results[i] = x.grad.tolist()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert results == [[2.0 * i, 2.0] for i in range(4)]


# --- gradients without copies -----------------------------------------------------------------------------------------
class Given(deepseek.autograd.Function):
    """The identity, whose gradient is what `make` returns."""

    @staticmethod
    def forward(ctx: Any, x: Any, make: Any) -> Any:
        ctx.make = make
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return ctx.make(), None


def inference_ones() -> Any:
    with deepseek.inference_mode():
        return deepseek.ones(3)


@pytest.mark.parametrize("kind", ["numpy", "read-only", "inference", "dlpack", "view"])
def test_memory_that_somebody_else_sees_is_left_alone(kind: str) -> None:
    array, whole = np.ones(3, np.float32), deepseek.ones(2, 3)
    if kind == "read-only":
        array.flags.writeable = False
    make = {
        "numpy": lambda: deepseek.from_numpy(array),
        "read-only": lambda: deepseek.from_numpy(array),
        "inference": inference_ones,
        "dlpack": lambda: deepseek.from_dlpack(whole[0]),
        "view": lambda: whole[0],
    }[kind]
    x = deepseek.zeros(3, requires_grad=True)
    y = x + 0.0
    (Given.apply(y, make) + y * 3).sum().backward()  # added on the way
    assert x.grad.tolist() == [4.0] * 3
    x.grad = None
    for times in (1, 2):  # and in .grad
        Given.apply(x, make).sum().backward()
        assert x.grad.tolist() == [times] * 3
    assert array.sum() == 3 and whole.sum().item() == 6


def test_an_object_got_from_a_weak_reference_outlives_its_cell() -> None:
    p = deepseek.ones(3, requires_grad=True)
    p.grad = deepseek.full((3,), 2.0)
    reference = weakref.ref(p.grad)
    grad = reference()
    p.grad = None
    assert grad.shape == (3,) and (grad + 1).tolist() == [3.0] * 3
    del grad
    assert reference() is None


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16])
def test_linear_cross_entropy_scales_its_gradients_in_place(dtype: Any, scale: float) -> None:
    F = deepseek.nn.functional
    x = deepseek.randn(64, 32).to(dtype).requires_grad_()
    w = deepseek.randn(30_000, 32).to(dtype).requires_grad_()
    target = deepseek.randint(0, 30_000, (64,))
    once = deepseek.autograd.grad(F.linear_cross_entropy(x, w, target) * scale, (x, w))
    loss = F.linear_cross_entropy(x, w, target) * scale
    for _ in range(2):  # the graph is kept: what it saved is neither changed nor given away
        again = deepseek.autograd.grad(loss, (x, w), retain_graph=True)
        assert all(deepseek.equal(a, b) for a, b in zip(again, once, strict=True))
        for g in again:
            g.zero_()
    del again, g
    before = deepseek.memory_stats()
    loss.backward()
    after = deepseek.memory_stats()
    assert deepseek.equal(w.grad, once[1]) and deepseek.equal(x.grad, once[0])
    # The saved gradients become those of x and w.
    assert after["allocated_bytes"] - before["allocated_bytes"] < w.nbytes / 2
