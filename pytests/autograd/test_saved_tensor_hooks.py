"""saved_tensors_hooks: what ops and Functions save goes through the hooks, and gradients stay the same bits."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import deepseek
import pytest
from deepseek import nn
from deepseek.autograd import Function, gradgradcheck
from deepseek.autograd.graph import disable_saved_tensors_hooks, saved_tensors_hooks


def leaf(*shape: int, dtype: Any = deepseek.float64) -> deepseek.Tensor:
    return deepseek.randn(*shape, dtype=dtype).requires_grad_()


def same(t: deepseek.Tensor) -> deepseek.Tensor:
    return t


class Log:
    """Hooks that count."""

    def __init__(self) -> None:
        self.packed: list[deepseek.Tensor] = []
        self.unpacked: list[int] = []

    def pack(self, t: deepseek.Tensor) -> int:
        assert not t.requires_grad
        assert not deepseek.is_grad_enabled()
        self.packed.append(t)
        return len(self.packed) - 1

    def unpack(self, number: int) -> deepseek.Tensor:
        self.unpacked.append(number)
        return self.packed[number]


def test_inputs_and_outputs_of_ops_go_through_the_hooks() -> None:
    log, x, w = Log(), leaf(3, 4), leaf(4, 4)
    with saved_tensors_hooks(log.pack, log.unpack):
        y = deepseek.exp(x @ w)
    assert len(log.packed) == 3  # both factors, and what exp returned
    assert all((a == b).all() for a, b in zip(log.packed, (x, w, y), strict=True))
    assert log.unpacked == []
    y.sum().backward()
    assert sorted(log.unpacked) == [0, 1, 2]
    plain = deepseek.autograd.grad(deepseek.exp(x @ w).sum(), (x, w))
    assert (x.grad == plain[0]).all()
    assert (w.grad == plain[1]).all()


def test_a_model_keeps_its_gradients_in_numpy() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 3))
    x = leaf(6, 5, dtype=deepseek.float32)
    plain = deepseek.autograd.grad(model(x).logsumexp(-1).sum(), [x, *model.parameters()])
    with saved_tensors_hooks(lambda t: t.numpy().copy(), deepseek.from_numpy):
        loss = model(x).logsumexp(-1).sum()
    found = deepseek.autograd.grad(loss, [x, *model.parameters()])
    assert all((a == b).all() for a, b in zip(found, plain, strict=True))


def test_second_derivatives_pass_through_what_was_unpacked() -> None:
    def f(x, w):
        with saved_tensors_hooks(lambda t: t.clone(), same):
            return deepseek.tanh(x @ w).exp()

    assert gradgradcheck(f, (leaf(2, 3), leaf(3, 2)))


def test_a_function_saves_through_the_hooks() -> None:
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    x = leaf(3) * 1
    with saved_tensors_hooks(lambda t: t * 10, same):  # wrong on purpose, which shows
        y = Square.apply(x)
    assert deepseek.allclose(deepseek.autograd.grad(y.sum(), x)[0], 20 * x)


def test_the_innermost_pair_counts_and_hooks_do_not_meet_themselves() -> None:
    outer, inner = Log(), Log()
    x = leaf(3)

    def pack(t):
        with deepseek.enable_grad():
            (t.clone().requires_grad_() ** 2).exp()
        return inner.pack(t)

    with saved_tensors_hooks(outer.pack, outer.unpack):
        a = x.exp()
        with saved_tensors_hooks(pack, inner.unpack):
            b = a.exp()
        c = b.exp()
    d = c.exp()
    assert (len(outer.packed), len(inner.packed)) == (2, 1)
    d.sum().backward()
    assert (len(outer.unpacked), len(inner.unpacked)) == (2, 1)


def test_hooks_end_with_their_context_even_by_an_error() -> None:
    log = Log()
    with pytest.raises(KeyError), saved_tensors_hooks(log.pack, log.unpack):
        raise KeyError
    leaf(3).exp()
    assert log.packed == []


def test_hooks_are_of_one_thread() -> None:
    log = Log()
    with saved_tensors_hooks(log.pack, log.unpack):
        worker = threading.Thread(target=lambda: leaf(3).exp())
        worker.start()
        worker.join()
    assert log.packed == []


def test_an_error_of_a_hook_reaches_the_caller() -> None:
    def fail(_):
        raise KeyError("mine")

    x = leaf(3)
    with saved_tensors_hooks(fail, same), pytest.raises(KeyError, match="mine"):
        x.exp()
    with saved_tensors_hooks(same, fail):
        y = x.exp()
    with pytest.raises(KeyError, match="mine"):
        y.sum().backward()


@pytest.mark.parametrize(
    ("unpack", "error", "text"),
    [
        (lambda t: 3, TypeError, "unpack_hook expected to be a Tensor but got result of type int"),
        (lambda t: t[:2], RuntimeError, r"must return what was saved, float64 \[3\], got float64 \[2\]"),
        (lambda t: t.float(), RuntimeError, r"must return what was saved, float64 \[3\], got float32 \[3\]"),
    ],
)
def test_what_is_unpacked_must_fit(unpack, error, text) -> None:
    with saved_tensors_hooks(same, unpack):
        y = leaf(3).exp()
    with pytest.raises(error, match=text):
        y.sum().backward()


def test_a_freed_graph_is_freed() -> None:
    kept: list[Any] = []

    def pack(t):
        box = Box(t)
        kept.append(weakref.ref(box))
        return box

    with saved_tensors_hooks(pack, lambda box: box.t):
        y = leaf(3).exp()
    assert kept[0]() is not None
    y.sum().backward()
    assert kept[0]() is None
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


class Box:
    def __init__(self, t: Any) -> None:
        self.t = t


def test_a_cycle_through_the_hooks_is_garbage() -> None:
    def build() -> weakref.ref[Any]:
        box = Box(None)
        with saved_tensors_hooks(lambda t: box, lambda kept: kept.t):
            box.t = leaf(3).exp()
        return weakref.ref(box)

    gc.collect()
    kept = build()
    gc.collect()
    assert kept() is None


def test_a_cycle_through_what_a_function_saves_is_garbage() -> None:
    class Keep(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    def build() -> weakref.ref[Any]:
        box = Box(None)
        with saved_tensors_hooks(lambda t: (t, box), lambda kept: kept[0]):
            box.t = Keep.apply(leaf(3))
        return weakref.ref(box)

    kept = build()
    gc.collect()
    assert kept() is None


def test_a_pack_hook_must_not_write() -> None:
    with (
        saved_tensors_hooks(lambda t: t.add_(1), same),
        pytest.raises(RuntimeError, match="must not write the tensor it is given"),
    ):
        (leaf(3) * 1).exp()


def test_hooks_are_functions() -> None:
    with pytest.raises(TypeError, match="takes two functions, got None"):
        saved_tensors_hooks(None, same)


def test_disabled_hooks_say_why() -> None:
    hooks = saved_tensors_hooks(same, same)
    with disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match="not here"), hooks:
        pass
    with hooks, hooks:  # one object may be entered again
        pass


def test_a_captured_function_runs_eagerly() -> None:
    @deepseek.jit
    def step(x):
        with saved_tensors_hooks(lambda t: t.clone(), same):
            return x.exp().sum()

    x = leaf(3)
    for _ in range(3):
        assert (deepseek.autograd.grad(step(x), x)[0] == x.exp()).all()
    assert "saved-tensor hooks" in step.explain()
