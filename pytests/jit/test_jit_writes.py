"""What ``deepseek.jit`` writes and hands out: arguments, captured tensors, views, constants."""

from __future__ import annotations

from typing import Any

import deepseek
import pytest
from jit_helpers import rand, recordings


def test_writes_into_arguments_and_captured_tensors() -> None:
    total = deepseek.zeros(3)

    @deepseek.jit(verify=True)
    def f(x: Any) -> Any:
        x[0] = 5
        x.view(-1)[1:].mul_(2)
        total.add_(x)
        return x

    for n in range(1, 4):
        x = deepseek.ones(3)
        assert f(x) is x and x.tolist() == [5.0, 2.0, 2.0]
        assert total.tolist() == [5.0 * n, 2.0 * n, 2.0 * n]


def test_writes_with_gradients() -> None:
    @deepseek.jit(verify=True)
    def f(x: Any) -> Any:
        y = x * 2
        y[:, 0] *= y[:, 1]
        z = deepseek.zeros(3, 2, dtype=y.dtype)
        z[1:] = y[:2]
        return z.exp().sum()

    for _ in range(3):
        x = rand(3, 2, grad=True)
        (found,) = deepseek.autograd.grad(f(x), x)
        (expected,) = deepseek.autograd.grad(f._function(x), x)
        assert found.equal(expected)
    assert recordings(f) == 1


def test_results_are_fresh_and_views_stay_views() -> None:
    @deepseek.jit
    def f(x: Any) -> tuple[Any, Any, Any]:
        c = deepseek.tensor([1.0, 2.0])
        return x + 1, x[0], c

    x = deepseek.zeros(2, 2)
    f(x)
    a, v, c = f(x)
    b, _, d = f(x)
    a.fill_(9)
    c.fill_(9)
    v.fill_(7)
    assert b.tolist() == [[1.0, 1.0], [1.0, 1.0]] and d.tolist() == [1.0, 2.0]
    assert x.tolist() == [[7.0, 7.0], [0.0, 0.0]]
    assert f(x)[2].tolist() == [1.0, 2.0]


def test_arguments_that_are_one_tensor_are_told_apart() -> None:
    @deepseek.jit
    def f(x: Any, y: Any) -> Any:
        x.add_(1)
        return x * y

    a, b = deepseek.ones(2), deepseek.ones(2)
    assert f(a, b).tolist() == [2.0, 2.0]
    c = deepseek.ones(2)
    assert f(c, c).tolist() == [4.0, 4.0]
    assert "share memory" in f.explain()


# --- tensors made from host data


def test_constants_are_as_they_were_made_on_every_call() -> None:
    f = deepseek.jit(lambda x: deepseek.tensor([0.0]).add_(x), verify=True)
    assert [f(deepseek.ones(1)).item() for _ in range(3)] == [1.0] * 3

    def loss(xs: list[Any]) -> Any:
        total = deepseek.tensor(0.0)
        for x in xs:
            total += x.sum()
        return total

    g = deepseek.jit(loss, verify=True)
    assert [g([deepseek.ones(2), deepseek.ones(3)]).item() for _ in range(3)] == [5.0] * 3
    assert recordings(f) == recordings(g) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda x: deepseek.tensor([1.0, 2.0]),
        lambda x: deepseek.tensor([1.0, 2.0])[:],
        lambda x: deepseek.tensor([[1.0, 2.0]]).view(2),
        lambda x: (deepseek.tensor([1.0, 2.0]) + x, deepseek.as_tensor([1.0, 2.0]))[1],
    ],
)
def test_a_returned_constant_belongs_to_the_caller(make: Any) -> None:
    f = deepseek.jit(make, verify=True)
    for _ in range(3):
        found = f(deepseek.ones(2))
        assert found.tolist() == [1.0, 2.0]
        found.add_(1)
    assert recordings(f) == 1


def test_a_constant_that_becomes_a_gradient() -> None:
    w = rand(2, grad=True)

    def f(x: Any) -> Any:
        w.grad = deepseek.tensor([1.0, 2.0], dtype=w.dtype)
        (w * x).sum().backward()
        return w.grad * 1

    captured = deepseek.jit(f, verify=True)
    for _ in range(3):
        assert captured(deepseek.ones(2)).tolist() == [2.0, 3.0] == w.grad.tolist()
        w.grad.mul_(5)
    assert recordings(captured) == 1


def test_a_leaf_made_inside_has_no_history() -> None:
    def f(x: Any) -> Any:
        leaf = deepseek.tensor([2.0], requires_grad=True)
        (leaf * leaf * x).sum().backward()
        return leaf.grad

    captured = deepseek.jit(f)
    assert [captured(deepseek.ones(1)).item() for _ in range(3)] == [4.0] * 3
    assert "requires" in captured.explain()


# --- captured tensors


def test_state_that_begins_to_require_grad() -> None:
    def run(compile: Any) -> list[Any]:
        h, w = deepseek.ones(2), deepseek.ones(2, requires_grad=True)

        def f(x: Any) -> Any:
            y = h * 2
            h.copy_(w * x)
            return y

        step, seen = compile(f), []
        for k in range(5):
            y = step(deepseek.ones(2) * k)
            seen.append((y.tolist(), y.requires_grad, h.requires_grad))
            if y.requires_grad:
                y.sum().backward()
                seen.append(w.grad.tolist())
        return seen

    expected = run(lambda f: f)
    assert expected[1][1] and run(deepseek.jit) == expected


def test_arguments_that_share_memory_with_captured_tensors() -> None:
    h, w = deepseek.ones(3), deepseek.ones(3, requires_grad=True)

    @deepseek.jit
    def f(x: Any) -> Any:
        x.copy_(w)
        return h * 2

    assert not f(deepseek.zeros(3)).requires_grad
    assert f(h[:]).requires_grad and "memory" in f.explain()
