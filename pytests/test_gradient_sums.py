"""Gradients that an op adds to what has been summed: a weight that is an embedding and something else besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import _C

F = deepseek.nn.functional
ROWS, DIM = 40, 8
IDS = deepseek.tensor([[3, 0, 3], [7, 39, 3]])
OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "head": lambda x, w: F.linear(x, w),
    "head, transposed": lambda x, w: x @ w.t(),
    "loss": lambda x, w: F.linear_cross_entropy(x.flatten(0, 1), w, deepseek.tensor([1, 2, 3, 4, 5, 6])),
    "second embedding": lambda x, w: x.sum() * F.embedding(IDS + 0, w),
    "columns": lambda x, w: x.sum() * w[:, 2:5],
    "itself": lambda x, w: x.sum() * w,
    "nothing": lambda x, w: x * 2,
}
DTYPES = [deepseek.float32, deepseek.float64, deepseek.bfloat16]


def weight(dtype: Any) -> Any:
    deepseek.manual_seed(3)
    return deepseek.randn(ROWS, DIM).to(dtype).requires_grad_()


def same(a: Any, b: Any) -> None:
    a, b = (t.detach().double().numpy() for t in (a, b))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


def additions() -> int:
    return _C.kernel_counts()["embedding.backward_add"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("other", OTHERS)
def test_a_tied_weight_gets_the_sum_of_both_gradients(other: str, padding: int | None, dtype: Any) -> None:
    tied, first, second = weight(dtype), weight(dtype), weight(dtype)
    _C.reset_kernel_counts()
    for _ in range(2):  # the second time there is a gradient already
        OTHERS[other](F.embedding(IDS, tied, padding_idx=padding), tied).sum().backward()
    # Rows are added to a gradient of the weight's layout, when there is one.
    assert additions() == (0 if other in ("nothing", "head, transposed") else 2)
    expected = deepseek.zeros(ROWS, DIM, dtype=dtype)
    for _ in range(2):
        first.grad = second.grad = None
        OTHERS[other](F.embedding(IDS, first, padding_idx=padding), second).sum().backward()
        expected = expected + (first.grad if second.grad is None else second.grad + first.grad)
    same(tied.grad, expected)


def test_a_gradient_that_was_given_is_not_written() -> None:
    w = weight(deepseek.float32)
    given = deepseek.ones(ROWS, DIM)
    y = F.embedding(IDS, w)
    deepseek.autograd.backward([w, y], [given, deepseek.ones_like(y)])
    same(given, deepseek.ones(ROWS, DIM))
    assert w.grad[3, 0].item() == 4 and w.grad[0, 0].item() == 2 and w.grad[1, 0].item() == 1


def test_a_gradient_that_a_hook_kept_is_not_written() -> None:
    w = weight(deepseek.float32)
    kept: list[Any] = []
    y = F.embedding(IDS, w)
    part = w + deepseek.zeros(ROWS, DIM)  # after y: its gradient, passed on to w, is there first
    part.register_hook(kept.append)
    (y.sum() + (part * 2).sum()).backward()
    same(kept[0], deepseek.full((ROWS, DIM), 2.0))
    assert w.grad[3, 0].item() == 5 and w.grad[1, 0].item() == 2


def test_a_zero_gradient_is_added_too() -> None:
    mask = deepseek.tensor([[1.0], [1.0], [0.0], [0.0]])
    w = deepseek.ones(4, 2, requires_grad=True)
    y = F.embedding(deepseek.tensor([0, 1]), w, padding_idx=1)
    _C.reset_kernel_counts()
    (y.sum() - (w * mask).sum()).backward()
    assert additions() == 1
    same(w.grad, deepseek.tensor([[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]))  # no -0, as in PyTorch


def test_hooks_of_the_weight_see_the_whole_gradient_once() -> None:
    w = weight(deepseek.float32)
    seen: list[Any] = []
    w.register_hook(lambda g: seen.append(g.clone()))
    OTHERS["head"](F.embedding(IDS, w), w).sum().backward()
    assert len(seen) == 1
    same(seen[0], w.grad)


def test_a_graph_that_is_kept_gives_the_same_again() -> None:
    w = weight(deepseek.float32)
    loss = OTHERS["head"](F.embedding(IDS, w), w).square().sum()
    first, second = (deepseek.autograd.grad(loss, w, retain_graph=True)[0] for _ in range(2))
    loss.backward()
    same(first, second)
    same(first, w.grad)


def test_second_derivatives() -> None:
    w = weight(deepseek.float64)
    assert deepseek.testing.gradcheck(lambda t: OTHERS["head"](F.embedding(IDS, t), t).square(), (w,))
    assert deepseek.testing.gradgradcheck(lambda t: OTHERS["head"](F.embedding(IDS, t), t).square(), (w,))


def test_a_replayed_step_gives_the_same() -> None:
    eager, replayed = weight(deepseek.float32), weight(deepseek.float32)

    def step(w: Any) -> Any:
        loss = OTHERS["loss"](F.embedding(IDS, w), w)
        loss.backward()
        return loss

    captured = deepseek.jit(step)
    for _ in range(3):
        same(step(eager), captured(replayed))
        same(eager.grad, replayed.grad)
        eager.grad = replayed.grad = None
