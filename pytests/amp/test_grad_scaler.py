"""GradScaler: one pass over gradients, counters, several optimizers, clipping, masters. Against torch: parity/."""

from __future__ import annotations

import math
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import _C, nn, optim
from deepseek.amp import GradScaler

F16, BF16, F32, F64 = deepseek.float16, deepseek.bfloat16, deepseek.float32, deepseek.float64


def weight(*values: float, dtype: Any = F32) -> Any:
    return deepseek.tensor(list(values), dtype=dtype, requires_grad=True)


# --- the one pass
def counts(found: Any) -> tuple[int, int]:
    return int(found.infinite), int(found.nan)


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64])
@pytest.mark.parametrize("size", [0, 1, 7, 16, 17, 33, 1000, 70_001])
def test_unscale_counts_and_multiplies(dtype: Any, size: int) -> None:
    draw = np.random.default_rng(size)
    grads, want, infinite, nan = [], [], 0, 0
    for n in (size, 5, size // 2):
        values = draw.normal(size=n).astype("float32")
        for kind in (math.inf, -math.inf, math.nan):
            values[draw.random(n) < 0.05] = kind
        infinite += int(np.isinf(values).sum())
        nan += int(np.isnan(values).sum())
        grads.append(deepseek.tensor(values.tolist(), dtype=dtype))
        want.append(grads[-1].clone().mul_(0.3125))
    versions = [g._version for g in grads]
    assert counts(_C._count_nonfinite(grads)) == (infinite, nan) and [g._version for g in grads] == versions
    assert counts(_C._unscale(grads, 0.3125)) == (infinite, nan)
    for g, w, version in zip(grads, want, versions, strict=True):
        deepseek.testing.assert_close(g, w, rtol=0, atol=0, equal_nan=True)
        assert g._version > version


def test_gradients_of_any_layout() -> None:
    base = deepseek.arange(24.0).reshape(4, 6)
    for view in (base.clone().t(), base.clone()[:, ::2], base.clone()[1:, 1:], deepseek.tensor(3.0)):
        want = view * 0.5
        assert counts(_C._unscale([view], 0.5)) == (0, 0) and view.equal(want)
    read_only = np.ones(3, dtype="float32")
    read_only.flags.writeable = False
    with pytest.raises(RuntimeError, match="gradient 0 is read-only"):
        _C._unscale([deepseek.from_numpy(read_only)], 0.5)
    with pytest.raises(TypeError, match="gradients must be float32, float64, bfloat16 or float16, got deepseek.int64"):
        _C._unscale([deepseek.ones(2, dtype=deepseek.int64)], 0.5)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_threads_count_alike(threads: int) -> None:
    before = deepseek.get_num_threads()
    deepseek.set_num_threads(threads)
    try:
        grad = deepseek.ones(3_000_001)
        grad[::1000] = math.nan
        grad[5::1000] = math.inf
        assert counts(_C._unscale([grad], 0.5)) == (3000, 3001)
    finally:
        deepseek.set_num_threads(before)


# --- steps


def test_skips_an_overflowed_step() -> None:
    w = weight(1.0, 1.0)
    optimizer = optim.SGD([w], lr=1.0)
    scaler = GradScaler(init_scale=8.0, growth_interval=1)
    scaler.scale((w * 0.5).sum()).backward()
    assert w.grad.tolist() == [4.0, 4.0]
    scaler.step(optimizer)
    scaler.update()
    assert w.tolist() == [0.5, 0.5] and scaler.get_scale() == 16.0
    w.grad = deepseek.tensor([float("inf"), 1.0])
    scaler.step(optimizer)
    scaler.update()
    assert w.tolist() == [0.5, 0.5] and scaler.get_scale() == 8.0


def test_infinite_and_nan_are_counted_apart() -> None:
    w, v = weight(1.0, 2.0, 3.0), weight(1.0)
    first, second = optim.SGD([w], lr=0.5), optim.SGD([v], lr=0.5)
    scaler = GradScaler(init_scale=4.0)
    assert scaler.skipped_rate == 0 and scaler.steps == 0
    for kinds in ([math.inf, -math.inf, math.nan], [1.0, 2.0, 3.0], [math.nan, 1.0, 1.0]):
        scaler.scale(w.sum())
        w.grad, v.grad = deepseek.tensor(kinds), deepseek.tensor([4.0])
        scaler.step(first)
        scaler.step(second)
        scaler.update()
    assert (scaler.steps, scaler.skipped_steps, scaler.skipped_rate) == (6, 2, 2 / 6)
    assert (scaler.inf_elements, scaler.nan_elements) == (2, 2)
    assert "skipped_steps=2 (33.33%), inf_elements=2, nan_elements=2" in repr(scaler)
    assert w.tolist() == [1.0 - 0.25, 2.0 - 0.5, 3.0 - 0.75]  # one step in three; the other optimizer steps always
    assert v.tolist() == [1.0 - 0.5 - 1.0 - 1.0]  # its scale was 4, 2 and 2
    assert repr(GradScaler(enabled=False)) == "GradScaler(enabled=False)"


def test_clipping_after_unscale() -> None:
    def train(scaled: bool) -> list[float]:
        w = weight(3.0, 4.0)
        optimizer = optim.SGD([w], lr=1.0)
        scaler = GradScaler(init_scale=1024.0, enabled=scaled)
        scaler.scale((w * w).sum()).backward()
        scaler.unscale_(optimizer)
        assert nn.utils.clip_grad_norm_([w], 1.0).item() == 10.0
        scaler.step(optimizer)
        scaler.update()
        return w.tolist()

    assert train(True) == train(False)


def test_the_scale_stops_at_its_maximum() -> None:
    w = weight(1.0)
    optimizer, scaler = optim.SGD([w], lr=0.0), GradScaler(init_scale=128.0, growth_interval=1, max_scale=300.0)
    seen = []
    for _ in range(4):
        scaler.scale(w.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        seen.append(scaler.get_scale())
    assert seen == [256.0, 300.0, 300.0, 300.0]
    with pytest.raises(ValueError, match="max_scale must be at least init_scale=512.0, got 300.0"):
        GradScaler(init_scale=512.0, max_scale=300.0)


def test_closures_are_refused_however_they_come() -> None:
    w = weight(1.0)
    optimizer, scaler = optim.SGD([w], lr=0.0), GradScaler()
    scaler.scale(w.sum()).backward()
    for call in (lambda: scaler.step(optimizer, closure=sum), lambda: scaler.step(optimizer, lambda: w.sum())):
        with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
            call()
    off = GradScaler(enabled=False)
    assert off.step(optimizer, lambda: w.sum()).item() == 1.0


def test_gradients_with_a_graph() -> None:
    w = weight(2.0)
    optimizer, scaler = optim.SGD([w], lr=1.0), GradScaler(init_scale=4.0)
    scaler.scale((w**3).sum()).backward(create_graph=True)
    assert w.grad.requires_grad
    scaler.step(optimizer)
    assert w.item() == 2.0 - 12.0


# --- float16 parameters with a float32 master


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW])
def test_masters_are_stepped_on_with_gradients_divided_in_float32(cls: Any, fused: bool | None) -> None:
    """2^-20 is no normal float16 and 1.5 * 2^-25 is none at all, but their scaled gradients are exact."""
    tiny = [2.0**-20, 1.5 * 2.0**-25, -(2.0**-24) * 1.25]
    p, wide = weight(1.0, 2.0, 3.0, dtype=F16), weight(1.0, 2.0, 3.0)
    options = {"lr": 4.0, "momentum": 0.5} if cls is optim.SGD else {"lr": 2.0**-10, "eps": 2.0**-24}
    optimizer = cls([p], **options, fused=fused, master_weights=True)
    reference = cls([wide], **options, fused=fused)
    scaler = GradScaler(init_scale=2.0**14)
    for _ in range(5):
        scaler.scale((p.float() * 0).sum()).backward()
        p.grad = (deepseek.tensor(tiny) * 2.0**14).half()
        wide.grad = deepseek.tensor(tiny)
        scaler.step(optimizer)
        scaler.update()
        reference.step()
        assert optimizer.state[p]["master"].equal(wide.detach()) and p.detach().equal(wide.detach().half())
    assert not wide.detach().equal(deepseek.tensor([1.0, 2.0, 3.0]))
    before = optimizer.state[p]["master"].clone()
    scaler.scale((p.float() * 0).sum())
    p.grad[0] = math.nan
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.state[p]["master"].equal(before) and p.detach().equal(before.half())
    assert scaler.get_scale() == 2.0**13 and (scaler.steps, scaler.skipped_steps, scaler.nan_elements) == (6, 1, 1)
    assert not hasattr(optimizer, "grad_scale") and not hasattr(optimizer, "found_inf")


def test_float32_beside_float16_masters() -> None:
    p, q = weight(1.0, dtype=F16), weight(1.0)
    optimizer, scaler = optim.SGD([p, q], lr=1.0, master_weights=True), GradScaler(init_scale=4.0)
    scaler.scale(p.float().sum() + q.sum()).backward()
    scaler.step(optimizer)
    assert p.item() == 0.0 and q.item() == 0.0


def test_without_masters_float16_is_refused() -> None:
    p = weight(1.0, dtype=F16)
    optimizer, scaler = optim.SGD([p], lr=1.0), GradScaler(init_scale=4.0)
    scaler.scale(p.float().sum()).backward()
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        scaler.step(optimizer)


# --- a captured step


def test_a_captured_function_with_a_scaler_is_right() -> None:
    def make(capture: bool) -> Any:
        w = weight(1.0, 2.0)
        optimizer, scaler = optim.SGD([w], lr=0.25), GradScaler(init_scale=2.0**15, growth_interval=2)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            with deepseek.autocast("cpu", dtype=F16):
                loss = deepseek.nn.functional.linear(x, w[None]).float().sum()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        return (deepseek.jit(step, verify=True) if capture else step), w, scaler

    eager, captured = make(False), make(True)
    for size in (1.0, 1e-3, 1.0, 8.0, 1e-3, 1e-3, 1e-3):
        x = deepseek.tensor([[size, size]])
        assert eager[0](x).item() == captured[0](x).item()
        assert eager[1].equal(captured[1]) and eager[2].state_dict() == captured[2].state_dict()
        assert eager[2].skipped_steps == captured[2].skipped_steps
