"""Optimizer steps as ops: what they write to, and what deepseek.jit records of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import _C, nn, optim

BF16 = deepseek.bfloat16
SGD: dict[str, Any] = {
    "momentum": 0.9,
    "dampening": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
    "first": False,
    "maximize": False,
}


def sgd(p: Any, buffer: Any = None, grad: Any = None) -> None:
    grad = deepseek.ones(*p.shape) if grad is None else grad
    buffer = deepseek.zeros(*p.shape) if buffer is None else buffer
    _C._sgd_step([p], [grad], [buffer], [], 0.5, 1.0, **SGD)


# --- declared writes
def test_the_schema_says_what_is_written() -> None:
    table = _C.op_table()
    assert table["_sgd_step"].writes == ["params", "momentum_buffers", "masters"]
    assert table["_adam_step"].writes == ["params", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "masters"]
    assert table["_unscale"].writes == ["gradients"]
    assert table["_sum_squares"].writes == table["add"].writes == []
    assert table["_sgd_step"].num_outputs == 0 and not table["_sgd_step"].differentiable


def test_versions_of_all_that_is_written_move() -> None:
    p, buffer, grad = deepseek.ones(2), deepseek.zeros(2), deepseek.ones(2)
    sgd(p, buffer, grad)
    assert p.tolist() == [0.5, 0.5] and buffer.tolist() == [1.0, 1.0]
    assert (p._version, buffer._version, grad._version) == (1, 1, 0)
    saved = nn.Parameter(deepseek.ones(2))
    loss = (saved * saved).sum()
    with deepseek.no_grad():
        sgd(saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_may_not_be_written_is_refused_before_anything_is() -> None:
    leaf = nn.Parameter(deepseek.ones(2))
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        sgd(leaf)
    with pytest.raises(RuntimeError, match=r"_sgd_step\(\) writes to its arguments and has no derivative"):
        sgd(leaf * 1)
    with pytest.raises(RuntimeError, match="has no derivative"):
        sgd(deepseek.ones(2), grad=leaf)
    read_only = np.ones(2, dtype="float32")
    read_only.flags.writeable = False
    with pytest.raises(RuntimeError, match="the memory of parameter 0 is read-only"):
        sgd(deepseek.from_numpy(read_only))
    p = deepseek.ones(2)
    with pytest.raises(RuntimeError, match="read-only"):
        sgd(p, deepseek.from_numpy(read_only))
    with pytest.raises(RuntimeError, match="single memory location"):
        sgd(p, deepseek.zeros(1).expand(2))
    with deepseek.inference_mode():
        inner = deepseek.ones(2)
        sgd(inner)
        assert inner.tolist() == [0.5, 0.5]
    with pytest.raises(RuntimeError, match="inference tensor outside InferenceMode"):
        sgd(inner)
    assert leaf.tolist() == p.tolist() == [1.0, 1.0] and p._version == 0


def test_lists_are_as_long_as_each_other() -> None:
    p = deepseek.ones(2)
    with pytest.raises(TypeError, match=r"_sgd_step\(\): argument 'grads' has 2 tensors, 'params' 1"):
        _C._sgd_step([p], [p, p], [], [], 0.5, 1.0, **SGD)
    with pytest.raises(TypeError, match="'masters' has 2 tensors, 'params' 1"):
        _C._sgd_step([p], [p], [p], [None, None], 0.5, 1.0, **SGD)
    with pytest.raises(TypeError, match="'momentum_buffers' must be a list of Tensors.*int"):
        _C._sgd_step([p], [p], [3], [], 0.5, 1.0, **SGD)


def test_memory_that_is_not_dense_is_written_through_a_copy() -> None:
    base, wide = deepseek.zeros(4, 6), deepseek.zeros(6, 4)
    p, buffer = base[:, ::2], wide[::2].t()
    sgd(p, buffer, deepseek.ones(3, 4).t())
    assert base.sum().item() == -6.0 and p.unique().tolist() == [-0.5]
    assert wide.sum().item() == 12.0 and buffer.unique().tolist() == [1.0]


# --- recorded by hand
def test_a_recorded_step_reads_its_numbers_on_every_replay() -> None:
    p, twin, lr = deepseek.ones(3), deepseek.ones(3), deepseek.tensor(0.5)
    buffer, other = deepseek.zeros(3), deepseek.zeros(3)

    def step(p: Any, buffer: Any, grad: Any) -> Any:
        before = p.sum()
        _C._sgd_step([p], [grad], [buffer], [], lr, 1.0, **SGD)
        return before, p.sum()  # the same call on other values: not one

    captured = deepseek.jit(step, verify=True)
    for i in range(5):
        lr.fill_(0.5 / (i + 1))
        grad = deepseek.full((3,), i + 1.0)
        for a, b in zip(captured(p, buffer, grad), step(twin, other, grad), strict=True):
            assert a.item() == b.item()
        assert p.equal(twin) and buffer.equal(other) and p._version == i + 1
    assert len(captured._entries) == 1 and "_sgd_step(" in captured.graph(), captured.explain()


def test_what_a_step_writes_inside_a_function_is_not_left_out() -> None:
    """Memory nobody outside has: the step counts only for what is read from it."""

    def f(x: Any) -> Any:
        p, lost = x * 2, x * 3
        _C._sgd_step([p], [x], [deepseek.zeros(2)], [], 0.5, 1.0, **SGD)
        _C._sgd_step([lost], [x], [deepseek.zeros(2)], [], 0.5, 1.0, **SGD)
        return p + 1

    captured = deepseek.jit(f, verify=True)
    for x in (deepseek.ones(2), deepseek.tensor([1.0, -4.0]), deepseek.ones(2)):
        assert captured(x).equal(f(x)) and f(x).equal(x * 1.5 + 1)
    assert len(captured._entries) == 1, captured.explain()


# --- optimizers whose steps are recorded
def build(dtype: Any, scheduled: bool, cls: Any = optim.AdamW, **options: Any) -> tuple[Callable[[], Any], Any, Any]:
    deepseek.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)).to(dtype)
    optimizer = cls(model.parameters(), lr=deepseek.tensor(0.05) if scheduled else 0.05, capturable=True, **options)
    schedule = optim.lr_scheduler.StepLR(optimizer, 3, 0.5) if scheduled else None
    x = deepseek.randn(16, 4, dtype=dtype)

    def step() -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        return loss

    return step, model, optimizer


def assert_same_state(one: Any, two: Any) -> None:
    for group, other in zip(one.param_groups, two.param_groups, strict=True):
        for p, q in zip(group["params"], other["params"], strict=True):
            assert p.equal(q) and set(one.state[p]) == set(two.state[q])
            for key, value in one.state[p].items():
                assert value.dtype == two.state[q][key].dtype and value.equal(two.state[q][key]), key


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize(
    ("cls", "dtype", "options"),
    [
        (optim.AdamW, deepseek.float32, {}),
        (optim.Adam, deepseek.float32, {"amsgrad": True, "weight_decay": 0.1}),
        (optim.AdamW, BF16, {}),
    ],
)
def test_a_recorded_training_step_equals_eager(cls: Any, dtype: Any, options: dict[str, Any], scheduled: bool) -> None:
    eager, _, one = build(dtype, scheduled, cls, **options)
    step, _, two = build(dtype, scheduled, cls, **options)
    captured = deepseek.jit(step, verify=True)
    for _ in range(12):
        assert eager().item() == captured().item()
        assert_same_state(one, two)
    assert len(captured._entries) == 2, captured.explain()  # at first no .grad is there
    text = captured.graph()
    assert "_adam_step(" in text and f"{cls.__name__}.step" not in text and "Adam.step" not in text, text
    assert two.state[two.param_groups[0]["params"][0]]["step"].tolist() == 12.0


@pytest.mark.parametrize("options", [{"master_weights": True}, {"fused": False}])
def test_what_is_not_recorded_runs_for_real(options: dict[str, Any]) -> None:
    eager, _, one = build(BF16, True, **options)
    step, _, two = build(BF16, True, **options)
    captured = deepseek.jit(step, verify=True)
    for _ in range(5):
        assert eager().item() == captured().item()
        assert_same_state(one, two)
    assert "_adam_step(" not in captured.graph() and ".step(" in captured.graph()


def test_options_and_hooks_that_change_are_seen() -> None:
    eager, _, one = build(deepseek.float32, False)
    step, _, two = build(deepseek.float32, False)
    captured = deepseek.jit(step, verify=True)
    calls: list[int] = []

    def both() -> None:
        for _ in range(3):
            assert eager().item() == captured().item()
        assert_same_state(one, two)

    both()
    for optimizer in (one, two):
        optimizer.param_groups[0]["lr"] = 0.01
    both()
    for optimizer in (one, two):
        optimizer.param_groups[0]["weight_decay"] = 0.5
    both()
    two.register_step_post_hook(lambda *_: calls.append(1))
    both()
    assert len(calls) == 3
    for optimizer in (one, two):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    both()
    assert len(calls) == 6


def test_capturable_state() -> None:
    params = [nn.Parameter(deepseek.ones(2)), nn.Parameter(deepseek.ones(2))]
    optimizer = optim.AdamW(params, capturable=True)
    assert [optimizer.state[p]["step"].tolist() for p in params] == [0.0, 0.0]
    params[0].grad = deepseek.ones(2)
    optimizer.step()
    optimizer.add_param_group({"params": [nn.Parameter(deepseek.ones(1))]})
    steps = [float(state["step"]) for state in optimizer.state.values()]
    assert steps == [1.0, 0.0, 0.0] and optimizer.state[params[0]]["step"].dtype is deepseek.float32
    plain = optim.AdamW(params)
    plain.add_param_group({"params": [nn.Parameter(deepseek.ones(1))]})
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["capturable"] = False
    plain.load_state_dict(saved)
    assert [plain.state[p]["step"] for p in params] == [1, 0] and isinstance(plain.state[params[0]]["step"], int)
    for group in saved["param_groups"]:
        del group["capturable"]
    again = optim.AdamW(params, capturable=True)
    again.add_param_group({"params": [nn.Parameter(deepseek.ones(1))]})
    again.load_state_dict(saved)
    assert again.state[params[0]]["step"].tolist() == 1.0


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"fused": False}])
def test_capturable_steps_have_the_same_bits(options: dict[str, Any]) -> None:
    one, two = ([nn.Parameter(deepseek.arange(5.0)), nn.Parameter(deepseek.ones(3))] for _ in range(2))
    plain, tensors = optim.Adam(one, **options), optim.Adam(two, capturable=True, lr=1e-3, **options)
    for i in range(6):
        for p, q in zip(one, two, strict=True):
            p.grad = q.grad = None if i == 2 and p.numel() == 3 else deepseek.randn(p.numel())
        plain.step()
        tensors.step()
        assert all(p.equal(q) for p, q in zip(one, two, strict=True))
