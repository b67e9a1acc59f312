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
    assert additions() == (0 if other == "nothing" else 2)
    expected = deepseek.zeros(ROWS, DIM, dtype=dtype)
    for _ in range(2):
        first.grad = second.grad = None
        OTHERS[other](F.embedding(IDS, first, padding_idx=padding), second).sum().backward()
        expected = expected + (first.grad if second.grad is None else second.grad + first.grad)
    same(tied.grad, expected)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_product_gives_gradients_in_the_layout_of_its_operands(batch: tuple[int, ...]) -> None:
    deepseek.manual_seed(1)
    left, right = deepseek.randn(*batch, 5, 7), deepseek.randn(*batch, 7, 6)

    def gradients(*operands: Any) -> Any:
        leaves = [x.detach().requires_grad_() for x in operands]
        return deepseek.autograd.grad((leaves[0] @ leaves[1]).square().sum(), leaves)

    def by_columns(x: Any) -> Any:
        return x.mT.contiguous().mT

    expected = gradients(left, right)
    for operands in ((by_columns(left), right), (left, by_columns(right)), (by_columns(left), by_columns(right))):
        for operand, gradient, wanted in zip(operands, gradients(*operands), expected, strict=True):
            assert gradient.stride() == operand.stride()
            same(gradient, wanted)


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


# --- parts of a tensor, each with a use of its own
PARTS: dict[str, Callable[[Any], Any]] = {
    "rows": lambda x: x[1:5],
    "a column": lambda x: x[:, 2],
    "a row": lambda x: x[3],
    "steps": lambda x: x[::2, ::3],
    "diagonal": lambda x: x.diagonal(),
    "a number": lambda x: x[2, 3],
    "windows": lambda x: x.unfold(0, 3, 1) if isinstance(x, deepseek.Tensor) else windows(x),
}


def windows(x: Any) -> Any:
    return np.lib.stride_tricks.sliding_window_view(x, 3, axis=0, writeable=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("whole", ["first", "last", "never"])
def test_parts_get_the_sum_of_their_gradients(whole: str, dtype: Any) -> None:
    x = deepseek.randn(8, 8).to(dtype).requires_grad_()
    want = np.full((8, 8), 0.0 if whole == "never" else 2.0)
    uses = []
    for part in PARTS.values():
        weights = deepseek.randint(-3, 4, part(x).shape).to(dtype)
        uses.append((part(x) * weights).sum())
        places = part(np.arange(64).reshape(8, 8))
        np.add.at(want.reshape(-1), places.ravel(), weights.double().numpy().ravel())
    everything = [] if whole == "never" else [(x * 2).sum()]
    deepseek.stack(everything + uses if whole == "first" else uses + everything).sum().backward()
    np.testing.assert_array_equal(x.grad.double().numpy(), want)


def test_a_loop_over_rows_makes_no_zeros_as_large_as_all() -> None:
    x = deepseek.randn(500, 2000).requires_grad_()
    loss = sum((row * 2).sum() for row in (x[i] for i in range(500)))
    deepseek.reset_peak_memory_stats()
    before = deepseek.memory_stats()["allocated_bytes"]
    loss.backward()
    assert deepseek.memory_stats()["peak_bytes"] - before < 1.2 * x.nbytes
    same(x.grad, deepseek.full((500, 2000), 2.0))


def test_minus_zero_becomes_zero_where_a_part_adds_nothing() -> None:
    x = deepseek.ones(4, requires_grad=True)
    first = x[:2] * 3
    ((x * deepseek.tensor([-0.0, -0.0, -0.0, -0.0])).sum() + first.sum()).backward()
    same(x.grad, deepseek.tensor([3.0, 3.0, 0.0, 0.0]))


def test_second_derivatives_of_parts() -> None:
    x = deepseek.randn(4, 4, dtype=deepseek.float64).requires_grad_()
    call = lambda t: (t[0] * t[:, 1] * t[1:3].sum(0) * t.diagonal()).sin()  # noqa: E731
    assert deepseek.testing.gradcheck(call, (x,))
    assert deepseek.testing.gradgradcheck(call, (x,))


# --- keys that several calls read
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("need", ["both", "keys", "values"])
@pytest.mark.parametrize("by_token", [True, False])
def test_queries_in_pieces_give_their_keys_the_whole_gradient(by_token: bool, need: str, dtype: Any) -> None:
    def make(heads: int, width: int) -> Any:
        if by_token:
            return deepseek.randn(2, 70, heads, width).to(dtype).transpose(1, 2)
        return deepseek.randn(2, heads, 70, width).to(dtype)

    deepseek.manual_seed(4)
    q, k, v = make(4, 5), make(2, 5), make(2, 3)
    k.requires_grad_(need != "values")
    v.requires_grad_(need != "keys")
    lists = deepseek.randint(0, 5, (2, 2, 70, 3))
    weights = deepseek.randn(2, 4, 70, 3).to(dtype)

    def attend(begin: int, end: int) -> Any:
        some = q[:, :, begin:end], k, v
        out = deepseek.attention.sparse_attention(
            *some, block_lists=lists[:, :, begin:end].contiguous(), block_size=16, query_start=begin
        ).out
        return (out * weights[:, :, begin:end]).sum()

    wanted = [t for t in (k, v) if t.requires_grad]
    whole = deepseek.autograd.grad(attend(0, 70), wanted)
    found = deepseek.autograd.grad(sum(attend(i, i + 14) for i in range(0, 70, 14)), wanted)
    tolerance = {deepseek.float64: 1e-14, deepseek.float32: 1e-6, deepseek.bfloat16: 2e-2}[dtype]
    for a, b, t in zip(found, whole, wanted, strict=True):
        assert a.stride() == t.stride()
        np.testing.assert_allclose(a.double().numpy(), b.double().numpy(), atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_tensor_as_key_and_value_gets_both_gradients(dtype: Any) -> None:
    c = deepseek.randn(1, 1, 16, 8).to(dtype).requires_grad_()
    q = deepseek.randn(1, 1, 4, 8).to(dtype)
    lists = deepseek.zeros(1, 1, 4, 1, dtype=deepseek.int64)

    def run(k: Any, v: Any) -> Any:
        attend = deepseek.attention.sparse_attention
        return attend(q, k, v, block_lists=lists, block_size=16, is_causal=False).out.float().sum()

    both = c * 1
    deepseek.stack([run(both, both), run(both, both)]).sum().backward()
    key, value = deepseek.autograd.grad(run(k := c * 1, v := c * 1), (k, v))
    want = 2 * (key.double() + value.double())
    tolerance = {deepseek.float64: 1e-14, deepseek.float32: 1e-6, deepseek.bfloat16: 3e-2}[dtype]
    np.testing.assert_allclose(c.grad.double().numpy(), want.numpy(), atol=tolerance * float(want.abs().max()))


@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16], ids=str)
def test_gradients_added_in_place_have_the_bits_of_recorded_ones(dtype: Any) -> None:
    k, v = (deepseek.randn(1, 2, 64, 8).to(dtype).requires_grad_() for _ in range(2))
    calls = [(deepseek.randn(1, 4, 9, 8).to(dtype), deepseek.randint(0, 4, (1, 2, 9, 2))) for _ in range(4)]
    outs = [
        deepseek.attention.sparse_attention(q, k, v, block_lists=lists, block_size=16, is_causal=False).out
        for q, lists in calls
    ]
    loss = deepseek.stack(outs).float().pow(2).sum()
    found = deepseek.autograd.grad(loss, (k, v), retain_graph=True)
    for a, b in zip(found, deepseek.autograd.grad(loss, (k, v), create_graph=True), strict=True):
        same(a, b)


def test_minus_zeros_that_meet_stay() -> None:
    y = deepseek.ones(2, requires_grad=True) * 1
    minus = deepseek.tensor([-0.0])
    same(deepseek.autograd.grad([y[:1], y[:1]], [y], [minus, minus])[0], deepseek.tensor([-0.0, 0.0]))
