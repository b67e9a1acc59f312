"""Gradients under ``deepseek.jit``: through a replay, taken inside, accumulated, and whole training steps."""

from __future__ import annotations

import copy
from typing import Any

import deepseek
import pytest
from deepseek import nn, optim
from deepseek.models import LanguageModel, ModelConfig
from jit_helpers import Net, rand, recordings


def test_gradients_flow_through_a_replay_to_any_order() -> None:
    f = deepseek.jit(lambda x, w: (x @ w).tanh().pow(3).sum(), verify=True)
    x, w = rand(3, 4), rand(4, 2, grad=True)
    f(x, w)
    deepseek.testing.gradcheck(lambda w: f(x, w), (w,))
    deepseek.testing.gradgradcheck(lambda w: f(x, w), (w,))
    assert recordings(f) <= 4, f.explain()  # leaf or not, with and without gradients


def test_a_gradient_taken_inside() -> None:
    @deepseek.jit(verify=True)
    def penalty(x: Any, w: Any) -> Any:
        y = (x * w).sin().sum()
        (g,) = deepseek.autograd.grad(y, w, create_graph=True)
        return g.square().sum()

    w = rand(3, grad=True)
    for _ in range(3):
        x = rand(3)
        (found,) = deepseek.autograd.grad(penalty(x, w), w)
        (expected,) = deepseek.autograd.grad(penalty._function(x, w), w)
        assert found.equal(expected)
    assert recordings(penalty) == 1


def test_grad_accumulates_and_is_set() -> None:
    w = rand(3, grad=True)

    @deepseek.jit(verify=True)
    def f(x: Any) -> None:
        (x * w).sum().backward()

    x = rand(3)
    for n in range(1, 5):
        f(x)
        assert w.grad.allclose(x * n)
    w.grad = None
    f(x)
    assert w.grad.equal(x)
    assert recordings(f) == 1  # None or not: accumulating asks at run time


def test_no_tape_is_made_for_what_stays_inside() -> None:
    w = rand(3, grad=True)

    def f(x: Any) -> Any:
        loss = (x * w).sum()
        (g,) = deepseek.autograd.grad(loss, w)
        return g

    compiled = deepseek.jit(f)
    compiled(rand(3))
    assert not compiled(rand(3)).requires_grad


def train(step: Any, parts: Any, steps: int) -> list[Any]:
    deepseek.manual_seed(3)
    return [step(*parts).detach().clone() for _ in range(steps)]


def build_step(seed: int, set_to_none: bool) -> tuple[Any, Any, Any]:
    deepseek.manual_seed(seed)
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    x, y = deepseek.randn(16, 4), deepseek.randn(16, 3)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = (model(x) - y).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        return loss

    return step, model, optimizer


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_training_step_equals_eager_bit_for_bit(set_to_none: bool) -> None:
    """Dropout, backward, clipping, optimizer and schedule."""
    eager, a, _ = build_step(0, set_to_none)
    step, b, optimizer = build_step(0, set_to_none)
    compiled = deepseek.jit(step, verify=True)
    for steps in (1, 1, 6):
        expected, found = train(eager, (), steps), train(compiled, (), steps)
        assert [t.item() for t in expected] == [t.item() for t in found]
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert p.equal(q) and p.grad.equal(q.grad)
    assert compiled._entries, compiled.explain()
    assert recordings(compiled) <= 2, compiled.explain()
    assert optimizer.state[next(b.parameters())]["step"] == 8


@pytest.mark.parametrize("experts", [0, 4])
def test_the_language_models_step(experts: int) -> None:
    config = ModelConfig(dim=32, expert_dim=16, context=16, ngram_rows=64, n_routed_experts=experts)
    deepseek.manual_seed(0)
    eager = LanguageModel(config)
    captured = copy.deepcopy(eager)

    def make(model: Any) -> Any:
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)

        def step(tokens: Any) -> Any:
            optimizer.zero_grad()
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            return loss

        return step

    plain, compiled = make(eager), deepseek.jit(make(captured), verify=True)
    for _ in range(4):  # other tokens go to other experts, in the same recording
        tokens = deepseek.randint(0, 256, (2, config.context + 1))
        assert plain(tokens).item() == compiled(tokens).item()
    assert compiled._entries, compiled.explain()
    assert recordings(compiled) <= 2, compiled.explain()
    for p, q in zip(eager.parameters(), captured.parameters(), strict=True):
        assert p.equal(q)


def test_backward_into_a_graph_from_outside() -> None:
    w = rand(3, grad=True)
    f = deepseek.jit(lambda loss: deepseek.autograd.grad(loss, w)[0])
    for scale in (1.0, 2.0):
        assert f((w * scale).sum()).tolist() == [scale] * 3
    assert "graph made before the call" in f.explain()


class Double(deepseek.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 5  # not the derivative, so that a replay that lost it shows


def test_user_functions() -> None:
    def gradient(x: Any) -> Any:
        return deepseek.autograd.grad(Double.apply(x).sum(), x)[0]

    x = rand(2, grad=True)
    inside = deepseek.jit(gradient)
    assert [inside(x).tolist() for _ in range(3)] == [[5.0, 5.0]] * 3
    outside = deepseek.jit(lambda x: Double.apply(x))
    for _ in range(3):
        assert deepseek.autograd.grad(outside(x).sum(), x)[0].tolist() == [5.0, 5.0]
    assert "user-defined Function" in outside.explain()
