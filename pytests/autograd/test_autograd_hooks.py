"""Hooks on gradients, and retain_grad()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest

F64 = deepseek.float64


def leaf(*values: float) -> Any:
    return deepseek.tensor(list(values), dtype=F64, requires_grad=True)


def close(tensor: Any, *values: float) -> None:
    np.testing.assert_allclose(tensor.detach().numpy(), np.array(values), rtol=1e-12)


# --- hooks ------------------------------------------------------------------------------------------------------------
def test_tensor_hook_sees_and_replaces_the_gradient() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    handle = y.register_hook(lambda g: g * 10)
    y.sum().backward(retain_graph=True)
    assert seen == [[1.0, 1.0]]
    close(x.grad, 20, 20)
    handle.remove()
    x.grad = None
    y.sum().backward()
    close(x.grad, 2, 2)


def test_hooks_run_in_order_and_before_accumulation() -> None:
    x = leaf(1.0)
    order = []
    x.register_hook(lambda g: (order.append("a"), g * 2)[1])
    x.register_hook(lambda g: (order.append("b"), g + 1)[1])
    x.register_post_accumulate_grad_hook(lambda t: order.append(("after", t.grad.item())))
    (x * 3).sum().backward()
    assert order == ["a", "b", ("after", 7.0)]


def test_post_accumulate_hook_may_free_the_gradient() -> None:
    x = leaf(1.0)

    def step(t: Any) -> None:
        with deepseek.no_grad():
            t.sub_(t.grad, alpha=0.5)
        t.grad = None

    handle = x.register_post_accumulate_grad_hook(step)
    (x * 2).sum().backward()
    assert x.grad is None
    close(x, 0)
    handle.remove()
    (x * 2).sum().backward()
    close(x.grad, 2)


def test_hook_on_a_tensor_without_grad_is_refused() -> None:
    with pytest.raises(RuntimeError, match="require"):
        deepseek.ones(2).register_hook(lambda g: g)
    with pytest.raises(RuntimeError, match="leaf|require"):
        (leaf(1.0) * 2).register_post_accumulate_grad_hook(lambda t: None)


def test_an_error_in_a_hook_reaches_the_caller() -> None:
    x = leaf(1.0)

    def bad(_: Any) -> None:
        raise LookupError("from the hook")

    y = x * 2
    y.register_hook(bad)
    with pytest.raises(LookupError, match="from the hook"):
        y.sum().backward()
    assert x.grad is None
    (x * 2).sum().backward()
    close(x.grad, 2)


def test_a_hook_stays_with_the_value_it_was_registered_on() -> None:
    x = leaf(1.0)
    y = x * 2
    seen: list[Any] = []
    old = y.register_hook(lambda g: seen.append(("before the write", g.item())))
    y.mul_(3)
    y.register_hook(lambda g: seen.append(("after", g.item())))
    (y * 5).sum().backward(retain_graph=True)
    assert seen == [("after", 5.0), ("before the write", 15.0)]
    old.remove()
    (y * 5).sum().backward()
    assert seen[2:] == [("after", 5.0)]


@pytest.mark.parametrize(
    ("result", "text"),
    [(lambda g: g.float(), "type"), (lambda g: g[:1], "size")],
)
def test_a_hook_may_not_change_what_a_gradient_is(result: Callable[[Any], Any], text: str) -> None:
    x = leaf(1.0, 2.0)
    x.register_hook(result)
    with pytest.raises(RuntimeError, match=f"hook has changed the {text}"):
        (x * 2).sum().backward()
    assert x.grad is None


# --- retain_grad ------------------------------------------------------------------------------------------------------
def test_retain_grad() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    assert y.retains_grad
    (y * y).sum().backward()
    close(y.grad, 4, 8)
    close(x.grad, 8, 16)


def test_retain_grad_adds_up() -> None:
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    y.sum().backward(retain_graph=True)
    first = y.grad
    y.sum().backward()
    close(y.grad, 2)
    close(first, 1)


@pytest.mark.parametrize("first", ["hook", "retain_grad"])
def test_retain_grad_sees_what_all_hooks_made(first: str) -> None:
    x = leaf(1.0)
    y = x * 2
    if first == "retain_grad":
        y.retain_grad()
    y.register_hook(lambda g: g * 10)
    y.retain_grad()
    y.sum().backward()
    close(y.grad, 10)
    close(x.grad, 20)


WRITES: dict[str, Callable[[Any], Any]] = {
    "to the tensor": lambda y: y.mul_(3),
    "twice": lambda y: y.mul_(3).mul_(1),
    "through a view of it": lambda y: y[:].mul_(3),
}


@pytest.mark.parametrize("name", WRITES)
def test_retain_grad_follows_writes(name: str) -> None:
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    WRITES[name](y)
    (y * 5).sum().backward()
    close(y.grad, 5)
    close(x.grad, 30)


@pytest.mark.parametrize("write", [lambda y, v: y.mul_(3), lambda y, v: v.mul_(3), lambda y, v: y[:1].mul_(3)])
def test_retain_grad_of_a_view_follows_writes(write: Callable[[Any, Any], Any]) -> None:
    y = leaf(1.0, 2.0) * 2
    v = y[:1]
    v.retain_grad()
    write(y, v)
    (v * 5).sum().backward()
    close(v, 6)
    close(v.grad, 5)


def test_a_retained_gradient_is_memory_of_its_own() -> None:
    x, given = leaf(1.0), deepseek.ones(1, dtype=F64)
    y = x + 0
    y.retain_grad()
    y.backward(given)
    y.grad.mul_(7)
    close(x.grad, 1)
    close(given, 1)
