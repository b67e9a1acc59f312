"""Optimizers on float32 copies of 16-bit parameters: the bits of a float32 optimizer, rounded."""

from __future__ import annotations

import copy
from typing import Any

import deepseek
import pytest
from deepseek import nn, optim
from test_optim import CASES, parameters, set_grads

F32, BF16, F16 = deepseek.float32, deepseek.bfloat16, deepseek.float16
each_dtype = pytest.mark.parametrize("dtype", [BF16, F16], ids=["bfloat16", "float16"])
each_pass = pytest.mark.parametrize("fused", [None, True, False])


def widened(params: list[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().to(F32)) for p in params]


def step_both(one: optim.Optimizer, wide: optim.Optimizer, step: int, missing: tuple[int, ...] = ()) -> None:
    """A step with the same 16-bit gradients on both."""
    mine, theirs = one.param_groups[0]["params"], wide.param_groups[0]["params"]
    set_grads(mine, step, missing)
    for p, q in zip(mine, theirs, strict=True):
        q.grad = None if p.grad is None else p.grad.to(F32)
    one.step()
    wide.step()


def assert_rounded(one: optim.Optimizer, wide: optim.Optimizer) -> None:
    for p, q in zip(one.param_groups[0]["params"], wide.param_groups[0]["params"], strict=True):
        assert p.detach().equal(q.detach().to(p.dtype))
        for key, value in wide.state.get(q, {}).items():
            found = one.state[p][key]
            assert found == value if key == "step" else found.dtype == F32 and found.equal(value), key
        if q in wide.state:
            assert one.state[p]["master"].dtype == F32 and one.state[p]["master"].equal(q.detach())


@each_pass
@each_dtype
@pytest.mark.parametrize(
    ("cls", "options"), CASES, ids=lambda v: getattr(v, "__name__", None) or "-".join(map(str, v.values()))
)
def test_equals_float32_rounded_after_each_step(cls: Any, options: dict[str, Any], dtype: Any, fused: Any) -> None:
    params = parameters(dtype)
    one = cls(params, **options, fused=fused, master_weights=True)
    wide = cls(widened(params), **options, fused=fused)
    for step in range(5):
        step_both(one, wide, step, (1,) if step in (0, 3) else ())
        assert_rounded(one, wide)


OPTIMIZERS = [value for value in vars(optim).values() if isinstance(value, type) and issubclass(value, optim.Optimizer)]


def test_every_optimizer_has_masters() -> None:
    p = nn.Parameter(deepseek.ones(1, dtype=F16))
    for cls in {*OPTIMIZERS, optim.SGD, optim.Adam, optim.AdamW} - {optim.Optimizer}:
        optimizer = cls([p], lr=0.5, master_weights=True)
        p.grad = deepseek.ones(1, dtype=F16)
        optimizer.step()
        assert optimizer.state[p]["master"].dtype is F32


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW])
def test_small_steps_add_up(cls: Any) -> None:
    lost, kept = (nn.Parameter(deepseek.ones(3, dtype=BF16)) for _ in range(2))
    plain, masters = cls([lost], lr=1e-4), cls([kept], lr=1e-4, master_weights=True)
    for _ in range(200):
        lost.grad, kept.grad = deepseek.ones(3, dtype=BF16), deepseek.ones(3, dtype=BF16)
        plain.step()
        masters.step()
    assert lost.tolist() == [1.0] * 3 and max(kept.tolist()) < 0.985


@each_pass
def test_wide_parameters_need_no_master(fused: bool | None) -> None:
    params = [*parameters(F32), *parameters(BF16)]
    optimizer = optim.AdamW(params, master_weights=True, fused=fused)
    set_grads(params, 0)
    optimizer.step()
    assert ["master" in optimizer.state[p] for p in params] == [p.dtype == BF16 for p in params]


def test_strided_parameters() -> None:
    p = nn.Parameter(deepseek.randn(5, 4, dtype=BF16).t())
    wide = nn.Parameter(p.detach().to(F32))
    p.grad = deepseek.randn(4, 5, dtype=BF16)
    wide.grad = p.grad.to(F32)
    optim.AdamW([p], master_weights=True).step()
    optim.AdamW([wide]).step()
    assert p.detach().equal(wide.detach().to(BF16))


@each_dtype
def test_resume_keeps_float32(dtype: Any) -> None:
    params = parameters(dtype)
    one = optim.AdamW(params, lr=0.02, amsgrad=True, master_weights=True)
    wide = optim.AdamW(widened(params), lr=0.02, amsgrad=True)
    for step in range(3):
        step_both(one, wide, step)
    resumed = [nn.Parameter(p.detach().clone()) for p in params]
    other = optim.AdamW(resumed, master_weights=True)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert_rounded(other, wide)
    step_both(other, wide, 3)
    assert_rounded(other, wide)


def test_a_checkpoint_without_masters_gets_them_from_the_parameters() -> None:
    params = parameters(BF16)
    old = optim.AdamW(params, lr=0.02)
    set_grads(params, 0)
    old.step()
    saved = old.state_dict()
    del saved["param_groups"][0]["master_weights"]  # as an older version wrote it
    other = optim.AdamW(params, master_weights=True)
    other.load_state_dict(saved)
    wide = optim.AdamW(widened(params))
    wide.load_state_dict(saved)
    assert other.param_groups[0]["master_weights"] is True and "master" not in other.state[params[0]]
    step_both(other, wide, 1)
    assert_rounded(other, wide)


def test_masters_that_are_not_wanted_are_dropped() -> None:
    params = parameters(BF16)
    optimizer = optim.Adam(params, master_weights=True)
    set_grads(params, 0)
    optimizer.step()
    other = optim.Adam(params)
    other.load_state_dict(optimizer.state_dict())
    assert "master" not in other.state[params[0]] and other.state[params[0]]["exp_avg"].dtype == BF16
    set_grads(params, 1)
    other.step()
    assert "master" in optimizer.state[params[0]]


def test_state_dict_survives_a_file(tmp_path: Any) -> None:
    params = parameters(BF16)
    optimizer = optim.AdamW(params, master_weights=True)
    set_grads(params, 0)
    optimizer.step()
    deepseek.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    other = optim.AdamW([nn.Parameter(p.detach().clone()) for p in params], master_weights=True)
    other.load_state_dict(deepseek.load(tmp_path / "optimizer.pt"))
    for p, q in zip(params, other.param_groups[0]["params"], strict=True):
        assert other.state[q]["master"].equal(optimizer.state[p]["master"])


def test_a_captured_step_equals_eager() -> None:
    deepseek.manual_seed(0)
    eager = nn.Linear(4, 3).to(BF16)
    captured = copy.deepcopy(eager)
    x = deepseek.randn(8, 4, dtype=BF16)

    def make(model: Any) -> Any:
        optimizer = optim.AdamW(model.parameters(), lr=1e-3, master_weights=True)

        def step() -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        return step

    one, two = make(eager), deepseek.jit(make(captured), verify=True)
    for _ in range(6):
        assert one().item() == two().item()
    for p, q in zip(eager.parameters(), captured.parameters(), strict=True):
        assert p.equal(q)


def test_sgd_resumes_with_a_float32_momentum() -> None:
    params = parameters(F16)
    one = optim.SGD(params, lr=0.02, momentum=0.9, master_weights=True)
    wide = optim.SGD(widened(params), lr=0.02, momentum=0.9)
    for step in range(3):
        step_both(one, wide, step, (2,) if step == 1 else ())
        assert_rounded(one, wide)
    resumed = [nn.Parameter(p.detach().clone()) for p in params]
    other = optim.SGD(resumed, lr=0.02, momentum=0.9, master_weights=True)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    step_both(other, wide, 3)
    assert_rounded(other, wide)
    plain = optim.SGD(resumed, lr=0.02, momentum=0.9)
    plain.load_state_dict(one.state_dict())
    assert "master" not in plain.state[resumed[0]] and plain.state[resumed[0]]["momentum_buffer"].dtype == F16


def test_sgd_without_momentum_has_no_other_state() -> None:
    p = nn.Parameter(deepseek.ones(2, dtype=BF16))
    optimizer = optim.SGD([p], lr=0.5, master_weights=True)
    p.grad = deepseek.ones(2, dtype=BF16)
    optimizer.step()
    assert set(optimizer.state[p]) == {"master"} and p.tolist() == [0.5, 0.5]


ADAM: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.99,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "decoupled": True,
    "maximize": False,
}
SGD: dict[str, Any] = {
    "momentum": 0.9,
    "dampening": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
    "first": False,
    "maximize": False,
}


def test_the_kernel_refuses_what_does_not_fit() -> None:
    def call(param: Any, state: Any, master: Any) -> None:
        state = deepseek.zeros(2, dtype=state)
        masters = [deepseek.zeros(2, dtype=master)]
        p = deepseek.zeros(2, dtype=param)
        deepseek._C._adam_step([p], [p], [state], [state], [], masters, [deepseek.tensor(1)], 0.1, 1.0, **ADAM)

    with pytest.raises(TypeError, match="master 0 must be float32, got bfloat16"):
        call(BF16, F32, BF16)
    with pytest.raises(TypeError, match="float32 master belongs to"):
        call(BF16, BF16, F32)
    with pytest.raises(TypeError, match="float32 master belongs to"):
        call(F32, F32, F32)
    p, state = deepseek.zeros(2), deepseek.zeros(2)
    with pytest.raises(TypeError, match="sgd_step: a float32 master belongs to"):
        deepseek._C._sgd_step([p], [p], [state], [state], 0.1, 1.0, **SGD)


@pytest.mark.parametrize("wrong", [deepseek.float64, deepseek.bfloat16, deepseek.int32])
def test_the_kernels_refuse_state_of_another_dtype(wrong: Any) -> None:
    """They would read its memory as the first one's, and past its end where that is wider."""
    p, right, other = deepseek.zeros(2), deepseek.zeros(2), deepseek.zeros(2, dtype=wrong)
    step = deepseek.tensor(1)
    name = str(wrong).removeprefix("deepseek.")
    with pytest.raises(TypeError, match=f"exp_avg_sq 0 must be float32, got {name}"):
        deepseek._C._adam_step([p], [p], [right], [other], [], [], [step], 0.1, 1.0, **ADAM)
    with pytest.raises(TypeError, match=f"max_exp_avg_sq 0 must be float32, got {name}"):
        deepseek._C._adam_step([p], [p], [right], [right], [other], [], [step], 0.1, 1.0, **ADAM)
    with pytest.raises(TypeError, match=f"momentum buffer 0 must be float32, got {name}"):
        deepseek._C._sgd_step([p], [p], [other], [], 0.1, 1.0, **SGD)
