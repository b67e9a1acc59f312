"""Casts of weights that autocast keeps: one a region, never outdated, gone with the region, one cache a thread."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import deepseek
import deepseek.nn.functional as F
import pytest
from deepseek import _C, bfloat16, float16, float32, nn

LOW = (bfloat16, float16)


def kept() -> int:
    """Casts that are kept in this thread."""
    return _C._autocast_cache_size()


def weight(*size: int) -> Any:
    deepseek.manual_seed(3)
    return deepseek.randn(*(size or (4, 4))).requires_grad_()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    assert kept() == 0
    yield
    assert kept() == 0 and deepseek.is_autocast_cache_enabled()


# --- when a cast is kept


def test_one_cast_for_all_uses_of_a_region() -> None:
    w, x = weight(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu"):
        first = F.linear(x, w)
        assert kept() == 1
        with deepseek.autocast("cpu"):
            assert F.linear(x, w).equal(first)
        assert kept() == 1
        with deepseek.autocast("cpu", enabled=False):
            assert F.linear(x, w).dtype is float32
        assert F.linear(x, w).equal(first) and kept() == 1
        nodes = {F.linear(x, w).grad_fn.next_functions[1][0] for _ in range(3)}
        assert len(nodes) == 1 and next(iter(nodes)).name() == "ToCopyBackward0"


def test_one_cast_for_each_dtype() -> None:
    w, x = weight(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu", dtype=bfloat16):
        first = F.linear(x, w)
        with deepseek.autocast("cpu", dtype=float16):
            assert F.linear(x, w).dtype is float16
        assert kept() == 2 and F.linear(x, w).equal(first)


def test_what_is_not_kept() -> None:
    x = deepseek.randn(4, 4)
    with deepseek.autocast("cpu"):
        F.linear(x, x)  # requires no gradient
        w = weight()
        F.linear(x, w * 1)  # not a leaf
        F.linear(x, w.detach())
        F.linear(x, w.bfloat16().detach().requires_grad_())  # in the dtype already
        F.linear(x.double(), w.double().detach().requires_grad_())  # not converted
        F.linear(x.bfloat16(), w.half().detach().requires_grad_())  # only float32 is, as in PyTorch
        assert kept() == 0
    F.linear(x, w)
    deepseek.set_autocast_enabled("cpu", True)  # no region that would end
    try:
        assert F.linear(x, w).dtype is bfloat16 and kept() == 0
    finally:
        deepseek.set_autocast_enabled("cpu", False)


def test_switched_off() -> None:
    w, x = weight(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu", cache_enabled=False):
        assert not deepseek.is_autocast_cache_enabled()
        F.linear(x, w)
        with deepseek.autocast("cpu"):  # as it is set here
            F.linear(x, w)
            assert kept() == 0
            with deepseek.autocast("cpu", cache_enabled=True):
                F.linear(x, w)
                assert kept() == 1
        assert kept() == 1
    deepseek.set_autocast_cache_enabled(False)
    with deepseek.autocast("cpu"):
        F.linear(x, w)
        assert kept() == 0
        deepseek.set_autocast_cache_enabled(True)
        F.linear(x, w)
        assert kept() == 1
        deepseek.clear_autocast_cache()
        assert kept() == 0
    assert not deepseek.is_autocast_cache_enabled()  # as it was when the region began
    deepseek.set_autocast_cache_enabled(True)


def test_an_error_ends_the_region() -> None:
    w, x = weight(), deepseek.randn(2, 4)
    with pytest.raises(ZeroDivisionError), deepseek.autocast("cpu"):
        F.linear(x, w)
        raise ZeroDivisionError
    assert kept() == 0


def test_a_weight_lives_no_longer_than_the_region() -> None:
    w = weight()
    alive = weakref.ref(w)
    with deepseek.autocast("cpu"):
        F.linear(deepseek.ones(1, 4), w)
        del w
    gc.collect()
    assert alive() is None


# --- never outdated


WRITES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda w: w.mul_(2),
    "copy_": lambda w: w.copy_(w + 1),
    "part of it": lambda w: w[0].zero_(),
    "another memory": lambda w: setattr(w, "data", w.detach() + 1),
    "through data": lambda w: w.data.add_(1),
    "numpy": lambda w: w.detach().numpy().__setitem__(0, 7.0),
    "an optimizer": lambda w: (setattr(w, "grad", deepseek.ones(4, 4)), deepseek.optim.SGD([w], lr=0.5).step()),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("lower", LOW)
def test_a_write_makes_it_anew(name: str, lower: Any) -> None:
    w, x = weight(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu", dtype=lower):
        before = F.linear(x, w)
        with deepseek.no_grad():
            WRITES[name](w)
        after = F.linear(x, w)
        assert not after.equal(before) and after.equal(F.linear(x, w.detach()))
        assert kept() <= 1


def test_memory_that_numpy_knows_is_cast_every_time() -> None:
    w = weight()
    array, x = w.detach().numpy(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu"):
        for value in (1.0, 2.0, 3.0):
            array[:] = value
            assert F.linear(x, w).equal(F.linear(x, deepseek.full((4, 4), value)))


def test_an_optimizer_step_inside_the_region() -> None:
    def losses(cache: bool) -> list[float]:
        w, x = weight(), deepseek.arange(8.0).reshape(2, 4) / 8
        optimizer, found = deepseek.optim.AdamW([w], lr=0.1), []
        with deepseek.autocast("cpu", cache_enabled=cache):
            for _ in range(5):
                loss = F.linear(x, w).float().square().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
        return found

    assert losses(True) == losses(False) and len(set(losses(True))) == 5


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


# --- ops that cast themselves


def test_bodies_that_cast_some_inputs_use_it_too() -> None:
    deepseek.manual_seed(0)
    x, ids, gates = deepseek.randn(6, 4), deepseek.zeros(6, 1, dtype=deepseek.int64), deepseek.ones(6, 1)
    gate, up, down = (deepseek.randn(2, 4, 4).requires_grad_() for _ in range(3))
    with deepseek.autocast("cpu"):
        F.moe(x, gate, up, down, ids, gates)
        assert kept() == 3
        F.moe(x, gate, up, down, ids, gates).float().sum().backward()
        assert kept() == 3
    assert all(w.grad.dtype is float32 for w in (gate, up, down))


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


# --- without gradients: kept with the weight's memory, beyond the region


@pytest.mark.parametrize("mode", [deepseek.no_grad, deepseek.inference_mode])
@pytest.mark.parametrize("lower", LOW)
def test_inference_casts_a_weight_once(mode: Any, lower: Any) -> None:
    w, x = weight(256, 512), deepseek.randn(2, 512)
    with mode(), deepseek.autocast("cpu", dtype=lower, cache_enabled=False):
        want = F.linear(x, w)
    start = deepseek.memory_stats()["allocated_bytes"]
    for _ in range(3):
        with mode(), deepseek.autocast("cpu", dtype=lower):
            assert F.linear(x, w).equal(want)
        assert deepseek.memory_stats()["allocated_bytes"] - start == pytest.approx(256 * 512 * 2, abs=4096)
    with deepseek.no_grad():
        w.mul_(2)
    with mode(), deepseek.autocast("cpu", dtype=lower):
        assert F.linear(x, w).equal(want * 2)
    with deepseek.no_grad():
        w.mul_(0.5)
    with deepseek.autocast("cpu", dtype=lower):
        y = F.linear(x, w)  # recorded: what the evaluation has left is freed
        assert y.equal(want) and y.requires_grad
    del y
    assert deepseek.memory_stats()["allocated_bytes"] - start == pytest.approx(0, abs=4096)


def test_a_weight_of_any_layout_in_inference() -> None:
    base, x = weight(8, 6), deepseek.randn(2, 8)
    views = [base.detach().t(), base.detach()[:6, :], base.detach()[1:7, ::2].t(), deepseek.zeros(0, 8)]
    for view in views:
        w = view.requires_grad_()
        inputs = deepseek.randn(2, w.shape[1])
        with deepseek.no_grad(), deepseek.autocast("cpu"):
            for _ in range(2):
                assert F.linear(inputs, w).equal(F.linear(inputs.bfloat16(), w.bfloat16()))
    with deepseek.no_grad(), deepseek.autocast("cpu"):
        assert (x @ base).equal(x.bfloat16() @ base.bfloat16())


def test_evaluation_inside_a_training_region() -> None:
    w, x = weight(), deepseek.randn(2, 4)
    with deepseek.autocast("cpu"):
        with deepseek.inference_mode():
            want = F.linear(x, w)
        F.linear(x, w).float().sum().backward()
        with deepseek.no_grad():
            assert F.linear(x, w).equal(want)
            w.grad.zero_()
    assert w.grad is not None


def test_threads_that_infer_at_once() -> None:
    w, x, found = weight(64, 64), deepseek.randn(2, 64), []
    with deepseek.no_grad():
        want = F.linear(x.bfloat16(), w.bfloat16())

    def work() -> None:
        for _ in range(50):
            with deepseek.no_grad(), deepseek.autocast("cpu"):
                found.append(F.linear(x, w).equal(want))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200 and all(found)


# --- threads


def test_each_thread_has_its_own() -> None:
    w, x, counts = weight(), deepseek.randn(2, 4), {}
    inside, leave = threading.Barrier(3, timeout=60), threading.Barrier(3, timeout=60)
    want = F.linear(x.bfloat16(), w.detach().bfloat16())

    def work(name: int) -> None:
        with deepseek.autocast("cpu"):
            equal = F.linear(x, w).equal(want)
            inside.wait()
            counts[name] = (kept(), equal)
            leave.wait()
        counts[name] += (kept(),)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    here = kept()
    leave.wait()
    for thread in threads:
        thread.join()
    assert here == 0 and counts == {0: (1, True, 0), 1: (1, True, 0)}


def test_a_thread_that_ends_inside_a_region() -> None:
    w = weight()

    def work() -> None:
        deepseek.autocast("cpu").__enter__()
        F.linear(deepseek.ones(1, 4), w)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert kept() == 0


# --- captured functions


def test_a_captured_function_keeps_no_cast() -> None:
    w, x = weight(), deepseek.randn(2, 4)
    f = deepseek.jit(lambda x: F.linear(x, w) + F.linear(x * 2, w), verify=True)
    with deepseek.autocast("cpu"):
        F.linear(x, w)  # a cast from before the call
        for _ in range(4):
            want = F.linear(x, w) + F.linear(x * 2, w)
            assert f(x).equal(want)
            with deepseek.no_grad():
                w.mul_(1.5)
    assert not f._eager, f.explain()
    assert f.graph().count("_autocast_lower") == 3  # of x, of x * 2, and one of w


def test_a_captured_step_equals_eager() -> None:
    x = deepseek.randn(8, 4)

    def make(capture: bool) -> Any:
        deepseek.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        optimizer = deepseek.optim.AdamW(model.parameters(), lr=1e-2)

        def step() -> Any:
            with deepseek.autocast("cpu"):
                loss = model(model(x)).float().square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                again = model(model(x)).float().square().mean()  # inside the region the weights have changed
            return loss, again

        return deepseek.jit(step, verify=True) if capture else step

    eager, captured = make(False), make(True)
    for _ in range(5):
        (a, b), (c, d) = eager(), captured()
        assert a.item() == c.item() and b.item() == d.item()
    assert not captured._eager, captured.explain()


def test_a_captured_graph_that_is_differentiated_outside() -> None:
    w, v, x = weight(), weight(), deepseek.randn(2, 4)

    def twice(x: Any, w: Any) -> Any:
        return F.linear(x, w) * F.linear(x * 3, w)

    f = deepseek.jit(twice, verify=True)
    with deepseek.autocast("cpu"):
        for _ in range(3):
            f(x, w).float().sum().backward()
            twice(x, v).float().sum().backward()
            assert w.grad.equal(v.grad)
    assert not f._eager, f.explain()


# --- names


def test_state_functions() -> None:
    with pytest.raises(ValueError, match="bfloat16 or float16, not in deepseek.float32"):
        deepseek.set_autocast_dtype("cpu", float32)
    with pytest.raises(RuntimeError, match="CPU only"):
        deepseek.set_autocast_enabled("cuda", True)
    deepseek.set_autocast_enabled("cuda", False)
    deepseek.set_autocast_dtype("cpu", float16)
    try:
        with deepseek.autocast("cpu"):  # no dtype: the one that is set
            assert F.linear(deepseek.ones(1, 1), deepseek.ones(1, 1)).dtype is float16
    finally:
        deepseek.set_autocast_dtype("cpu", bfloat16)
    with deepseek.autocast("cpu", dtype=float16), deepseek.autocast("cpu"):
        assert deepseek.get_autocast_dtype("cpu") is float16
    assert deepseek.get_autocast_dtype("cpu") is bfloat16
    with pytest.raises(ValueError, match="of type `str`"):
        deepseek.autocast(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="requires a callable, but got int"):
        deepseek.autocast("cpu")(3)  # type: ignore[type-var]
    assert deepseek.amp.is_autocast_available("cpu") and not deepseek.amp.is_autocast_available("cuda")
