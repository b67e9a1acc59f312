"""Gradients through the casts that autocast keeps: not rounded before they are summed, and never lost."""

from __future__ import annotations

from typing import Any

import deepseek
import deepseek.nn.functional as F
import pytest
from deepseek import float16, float32, nn
from kept_casts import LOW, kept, nothing_is_left, weight  # noqa: F401

# --- gradients


@pytest.mark.parametrize("lower", LOW)
def test_gradients_of_many_uses_are_summed_in_float32(lower: Any) -> None:
    """In bfloat16 256 + 1 is 256: a sum in the lower dtype would stand still there."""
    w = deepseek.ones(1, 1, requires_grad=True)
    x = deepseek.ones(1, 1)
    with deepseek.autocast("cpu", dtype=lower):
        total = sum((F.linear(x, w).float() for _ in range(5000)), deepseek.zeros(1, 1))
        assert kept() == 1
    total.backward()
    assert w.grad.item() == 5000.0 and w.grad.dtype is float32


@pytest.mark.parametrize("cache", [True, False])
def test_gradients_are_those_without_a_cache(cache: bool) -> None:
    deepseek.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    x = deepseek.randn(5, 6)
    want = [deepseek.zeros_like(p) for p in model.parameters()]
    for _ in range(3):
        with deepseek.autocast("cpu", cache_enabled=False):
            loss = model(x).float().square().mean()
        for total, grad in zip(want, deepseek.autograd.grad(loss, list(model.parameters())), strict=True):
            total += grad
    with deepseek.autocast("cpu", cache_enabled=cache):
        for _ in range(3):  # the graph of a backward is freed, but not the cast that the next one uses
            model(x).float().square().mean().backward()
    for p, total in zip(model.parameters(), want, strict=True):
        assert p.grad.dtype is float32
        deepseek.testing.assert_close(p.grad, total, rtol=1e-6, atol=1e-7)


def test_retained_graphs_and_hooks() -> None:
    w, x, heard = weight(), deepseek.randn(2, 4), []
    handle = w.register_hook(lambda g: heard.append(g.dtype))
    with deepseek.autocast("cpu"):
        loss = (F.linear(x, w) + F.linear(x, w)).float().sum()
    loss.backward(retain_graph=True)
    once = w.grad.clone()
    loss.backward()
    assert w.grad.equal(once * 2) and heard == [float32, float32]
    handle.remove()


def test_second_derivatives() -> None:
    w, x = weight(), deepseek.randn(2, 4)

    def penalty(cache: bool) -> Any:
        with deepseek.autocast("cpu", cache_enabled=cache):
            y = (F.linear(x, w).float() ** 2).sum() + (F.linear(x * 2, w).float() ** 3).sum()
        (first,) = deepseek.autograd.grad(y, w, create_graph=True)
        assert first.dtype is float32
        (second,) = deepseek.autograd.grad((first**2).sum(), w)
        return second

    deepseek.testing.assert_close(penalty(True), penalty(False), rtol=2e-2, atol=2e-2)


def test_a_cast_without_a_graph_is_not_given_to_one_with() -> None:
    """PyTorch's cache loses the gradient here."""
    w, x = weight(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu"):
        with deepseek.no_grad():
            assert not F.linear(x, w).requires_grad
        y = F.linear(x, w)
        assert y.requires_grad
        with deepseek.no_grad():
            assert F.linear(x, w).equal(y) and kept() == 1
        with deepseek.inference_mode():
            assert F.linear(x, w).equal(y)
        y.float().sum().backward()
    assert w.grad is not None
    with deepseek.autocast("cpu"):
        with deepseek.inference_mode():
            F.linear(x, w)
        F.linear(x, w).float().sum().backward()


def test_requires_grad_changes() -> None:
    w, x = weight(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu"):
        F.linear(x, w)
        w.requires_grad_(False)
        assert not F.linear(x, w).requires_grad
        w.requires_grad_(True)
        F.linear(x, w).float().sum().backward()
    assert w.grad is not None


# --- what several layers read one after another


def cast_nodes(*outputs: Any) -> int:
    return len({y.grad_fn.next_functions[0][0] for y in outputs})


def test_layers_that_read_the_same_tensor_share_its_cast() -> None:
    deepseek.manual_seed(0)
    x, weights = deepseek.randn(3, 4).requires_grad_(), [weight(4, 4) for _ in range(3)]
    with deepseek.autocast("cpu"):
        h = x * 2
        assert cast_nodes(*(F.linear(h, w) for w in weights)) == 1
        y = F.linear(h, weights[0])
        F.linear(x * 3, weights[0])  # another one in between
        assert cast_nodes(y, F.linear(h, weights[0])) == 2
        with deepseek.autocast("cpu", dtype=float16):
            assert F.linear(h, weights[0]).dtype is float16
    with deepseek.autocast("cpu", cache_enabled=False):
        assert cast_nodes(*(F.linear(h, w) for w in weights)) == 3


def test_a_shared_cast_of_an_activation_is_never_outdated() -> None:
    w, base = weight(), deepseek.randn(3, 4).requires_grad_()
    with deepseek.autocast("cpu"):
        h = base * 1
        before = F.linear(h, w)
        h.mul_(2)
        assert F.linear(h, w).equal(F.linear(h.clone(), w)) and not F.linear(h, w).equal(before)
        with deepseek.no_grad():
            quiet = F.linear(base * 1, w)
            assert not quiet.requires_grad
        with deepseek.no_grad():
            h = base * 1
        F.linear(h, w)
        h.requires_grad_()
        F.linear(h, w).float().sum().backward()
        assert h.grad is not None
        with deepseek.no_grad():
            data = deepseek.randn(3, 4)
            F.linear(data, w)
        assert F.linear(data, w).requires_grad
        array = data.numpy()
        array[:] = 1.0
        assert F.linear(data, w).equal(F.linear(deepseek.ones(3, 4), w))


@pytest.mark.parametrize("lower", LOW)
def test_its_gradients_are_summed_in_float32(lower: Any) -> None:
    """The sum of what three layers send back is that of the parts, which are not rounded."""
    deepseek.manual_seed(0)
    x, weights = deepseek.randn(3, 8).requires_grad_(), [deepseek.randn(8, 8).requires_grad_() for _ in range(3)]
    with deepseek.autocast("cpu", dtype=lower):
        h = x * 1
        outputs = [F.linear(h, w) for w in weights]
    grads = [deepseek.randn(3, 8).to(lower) for _ in outputs]
    found = deepseek.autograd.grad(outputs, [x, *weights], grads)
    exact = sum((g.double() @ w.detach().to(lower).double() for g, w in zip(grads, weights, strict=True)), 0.0)
    deepseek.testing.assert_close(found[0].double(), exact, rtol=1e-5, atol=1e-5)
    for g, dw in zip(grads, found[1:], strict=True):
        want = g.double().t() @ x.detach().to(lower).double()
        assert dw.dtype is float32
        deepseek.testing.assert_close(dw.double(), want, rtol=1e-5, atol=1e-5)


def test_the_sum_of_a_float16_gradient_does_not_overflow() -> None:
    w = deepseek.ones(1, 1, requires_grad=True)
    with deepseek.autocast("cpu", dtype=float16):
        y = F.linear(deepseek.full((4, 1), 2.0), w)
    y.backward(deepseek.full((4, 1), 30000.0, dtype=float16))
    assert w.grad.item() == 240000.0  # PyTorch: inf
