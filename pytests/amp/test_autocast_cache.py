"""Casts of weights that autocast keeps: one a region, never outdated, gone with the region, one cache a thread."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import deepseek
import deepseek.nn.functional as F
import pytest
from deepseek import bfloat16, float16, float32, nn
from kept_casts import LOW, kept, nothing_is_left, weight  # noqa: F401

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


def expected(x: Any, w: Any, lower: Any) -> Any:
    return F.linear(x.to(lower), w.detach().to(lower))


@pytest.mark.parametrize("lower", LOW)
@pytest.mark.parametrize("size", [16, 64])  # memory within the storage, and beside it
def test_memory_that_is_exchanged_twice(lower: Any, size: int) -> None:
    """The allocator gives the second the address of what was there first, and its version is 0 again."""
    w, x = nn.Parameter(deepseek.randn(size, size)), deepseek.randn(4, size)
    with deepseek.autocast("cpu", dtype=lower):
        for _ in range(20):
            F.linear(x, w)
            w.data = deepseek.randn(size, size)
            w.data = deepseek.randn(size, size)
            assert F.linear(x, w).equal(expected(x, w, lower)) and kept() == 1


@pytest.mark.parametrize("lower", LOW)
@pytest.mark.parametrize("size", [16, 64])
def test_memory_of_an_activation_that_is_exchanged_twice(lower: Any, size: int) -> None:
    w, x = weight(size, size), deepseek.randn(4, size)
    with deepseek.autocast("cpu", dtype=lower):
        for _ in range(20):
            F.linear(x, w)
            x.data = deepseek.randn(4, size)
            x.data = deepseek.randn(4, size)
            assert F.linear(x, w).equal(expected(x, w, lower))


def test_a_weight_that_is_exchanged_for_a_function_of_itself() -> None:
    w, x = nn.Parameter(deepseek.randn(16, 16)), deepseek.randn(4, 16)
    with deepseek.autocast("cpu"):
        for _ in range(50):
            F.linear(x, w)
            w.data = w.data * 0.5
            w.data = w.data - 0
            assert F.linear(x, w).equal(expected(x, w, bfloat16))


def test_another_thread_exchanges_the_memory() -> None:
    w, x = nn.Parameter(deepseek.randn(16, 16)), deepseek.randn(4, 16)

    def exchange() -> None:
        w.data = deepseek.randn(16, 16)
        w.data = deepseek.randn(16, 16)

    with deepseek.autocast("cpu"):
        for _ in range(20):
            F.linear(x, w)
            thread = threading.Thread(target=exchange)
            thread.start()
            thread.join()
            assert F.linear(x, w).equal(expected(x, w, bfloat16))


def test_exchanged_memory_is_freed_inside_the_region() -> None:
    w, x = nn.Parameter(deepseek.randn(512, 512)), deepseek.randn(512, 512)
    with deepseek.autocast("cpu"):
        F.linear(x, w)
        start = deepseek.memory_stats()["allocated_bytes"]
        w.data, x.data = deepseek.zeros(1), deepseek.zeros(1)
        assert kept() == 0
        freed = start - deepseek.memory_stats()["allocated_bytes"]
        assert freed == pytest.approx(2 * 512 * 512 * (4 + 2), rel=0.01)  # float32 and the casts


def test_a_captured_function_sees_memory_that_is_exchanged_twice() -> None:
    w, x = nn.Parameter(deepseek.randn(16, 16)), deepseek.randn(4, 16)
    f = deepseek.jit(lambda x: F.linear(x, w), verify=True)
    with deepseek.autocast("cpu"):
        for _ in range(20):
            assert f(x).equal(expected(x, w, bfloat16))
            w.data = deepseek.randn(16, 16)
            w.data = deepseek.randn(16, 16)


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
