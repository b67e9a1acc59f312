"""The graph passes of ``deepseek.jit``."""

from __future__ import annotations

from typing import Any

import deepseek
import pytest
from deepseek import _C, nn
from jit_helpers import rand


def test_passes_remove_work_and_can_be_switched_off() -> None:
    def f(x: Any) -> Any:
        unused = x.exp().sum()  # noqa: F841
        return (x * 2).sin() + (x * 2).sin()

    full, plain = deepseek.jit(f, verify=True), deepseek.jit(f, disabled_passes=("cse", "dce"), verify=True)
    x = rand(3)
    assert full(x).equal(plain(x)) and full(x).equal(plain(x))
    assert full.graph().count("sin(") == 1 and "exp(" not in full.graph()
    assert plain.graph().count("sin(") == 2 and "exp(" in plain.graph()


def test_common_subexpressions_are_not_shared_across_writes() -> None:
    def f(x: Any) -> Any:
        a = x * 2
        x.add_(1)
        b = x * 2
        c = b + 0
        c.mul_(3)
        return a, b, c

    compiled = deepseek.jit(f, verify=True)
    for _ in range(2):
        found, expected = compiled(deepseek.ones(2)), f(deepseek.ones(2))
        assert [t.tolist() for t in found] == [t.tolist() for t in expected]


@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16])
def test_linear_layers_take_what_follows_along(dtype: Any) -> None:
    layer, gate = nn.Linear(33, 70).to(dtype), nn.Linear(33, 70, bias=False).to(dtype)
    functional = nn.functional

    def f(x: Any, residual: Any) -> Any:
        return (
            functional.gelu(layer(x), approximate="tanh") + residual,
            functional.silu(gate(x)) * layer(x * 2),
            residual + gate(x * 2),
            functional.relu(layer(x.unsqueeze(0))),
        )

    x, residual = rand(5, 33).to(dtype), rand(5, 70).to(dtype)
    compiled = deepseek.jit(f, verify=True)
    with deepseek.no_grad():
        for _ in range(2):
            for found, expected in zip(compiled(x, residual), f(x, residual), strict=True):
                assert found.equal(expected) and found.stride() == expected.stride()
        graph = compiled.graph()
    assert graph.count("_linear_fused(") == 4 and "gelu" in graph and graph.count(" linear(") == 1
    compiled(x, residual)  # with gradients: nothing is fused
    compiled(x, residual)[0].sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("name", _C._activations())
def test_every_activation_is_fused(name: str) -> None:
    functional, layer = nn.functional, nn.Linear(33, 70)
    functions = {"gelu_tanh": lambda x: functional.gelu(x, approximate="tanh")}
    activation = functions.get(name) or getattr(functional, name)
    compiled = deepseek.jit(lambda x: activation(layer(x)), verify=True)
    x = deepseek.randn(5, 33)
    with deepseek.no_grad():
        for _ in range(2):
            assert compiled(x).equal(activation(layer(x)))
    assert f"activation='{name}'" in compiled.graph() and " linear(" not in compiled.graph()


def test_linear_layers_that_are_seen_by_others_stay_alone() -> None:
    layer = nn.Linear(4, 4)

    def f(x: Any) -> Any:
        first = layer(x)  # returned
        second = layer(x + 1)
        row = second[0]  # a view of it
        second.relu_()
        third = layer(x + 2)
        wide = third + deepseek.ones(2, 3, 4)  # another shape
        fourth = layer(x + 3)
        y = fourth.relu()
        x.mul_(2)  # written before the sum
        fifth = layer(x)
        return first, first.relu(), row, wide, y, fourth, fifth.double().relu()

    compiled = deepseek.jit(f, verify=True)
    with deepseek.no_grad():
        for _ in range(3):
            for found, expected in zip(compiled(deepseek.ones(3, 4)), f(deepseek.ones(3, 4)), strict=True):
                assert found.equal(expected)
        assert "_linear_fused" not in compiled.graph()


def test_nothing_moves_past_what_may_change_its_inputs() -> None:
    """Gradients are added to in place, and arguments may share memory with what was captured."""
    p = deepseek.zeros(6, 8).requires_grad_()
    functional = nn.functional

    def reads_grad(x: Any) -> Any:
        with deepseek.no_grad():
            before = functional.linear(x, p.grad)
        (p * 2).sum().backward()
        with deepseek.no_grad():
            return functional.relu(before), functional.linear(x, p.grad)

    def values(f: Any) -> list[Any]:
        p.grad = deepseek.zeros(6, 8)
        return [[t[0, 0].item() for t in f(deepseek.ones(2, 8))] for _ in range(4)]

    assert values(deepseek.jit(reads_grad, verify=True)) == values(reads_grad)

    w, x = deepseek.ones(4, 4), deepseek.ones(1, 4)

    def writes_argument(target: Any) -> Any:
        before = functional.linear(x, w)
        twice = w * 2
        target.mul_(0)
        return functional.relu(before), twice, w * 2

    compiled = deepseek.jit(writes_argument, verify=True)
    for target in (deepseek.ones(4, 4), deepseek.ones(4, 4), w):
        found = [t.sum().item() for t in compiled(target)]
    assert found == [16, 32, 0]


def test_layers_behind_a_host_function_are_not_fused() -> None:
    """There sizes may be others on a replay."""
    calls: set[int] = set()

    @deepseek.jit.disable
    def source(x: Any) -> Any:
        calls.add(len(calls))
        return x[:1] if len(calls) > 2 else x * 1

    w, other = rand(6, 8), rand(4, 6)
    compiled = deepseek.jit(lambda x: nn.functional.linear(source(x), w) + other, verify=True)
    assert [tuple(compiled(rand(4, 8)).shape) for _ in range(4)] == [(4, 6)] * 4
