"""Optimizers: the step itself, the fused pass against its definition, groups, state, hooks and errors."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn, optim
from deepseek.testing import assert_close
from opinfo.optim import CLASSES

F64 = deepseek.float64
SHAPES = [(4, 3), (5,), (), (2, 0)]
CASES = [(getattr(optim, name), options) for name, (cases, _) in CLASSES.items() for options in cases]


def parameters(dtype: Any = F64, seed: int = 0) -> list[nn.Parameter]:
    draw = np.random.default_rng(seed)
    return [nn.Parameter(deepseek.tensor(draw.normal(size=s).tolist(), dtype=dtype).reshape(s)) for s in SHAPES]


def set_grads(params: list[nn.Parameter], step: int, missing: tuple[int, ...] = ()) -> None:
    draw = np.random.default_rng(100 + step)
    for place, p in enumerate(params):
        values = draw.normal(size=tuple(p.shape))
        p.grad = None if place in missing else deepseek.tensor(values.tolist(), dtype=p.dtype).reshape(p.shape)


def run(
    cls: Any, options: dict[str, Any], steps: int = 6, dtype: Any = F64, late: bool = True
) -> tuple[list[nn.Parameter], optim.Optimizer]:
    """Some steps; with ``late`` the second parameter gets its first gradient in step 2 and none in step 4."""
    params = parameters(dtype)
    optimizer = cls(params, **options)
    for step in range(steps):
        set_grads(params, step, (1,) if late and step in (0, 1, 4) else ())
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("dtype", [F64, deepseek.float32])
@pytest.mark.parametrize(
    ("cls", "options"), CASES, ids=lambda v: getattr(v, "__name__", None) or "-".join(map(str, v.values()))
)
def test_fused_pass_agrees_with_its_definition(cls: Any, options: dict[str, Any], dtype: Any) -> None:
    fused, one = run(cls, options, dtype=dtype)
    plain, two = run(cls, {**options, "fused": False}, dtype=dtype)
    tolerance = {"rtol": 1e-12, "atol": 1e-13} if dtype == F64 else {"rtol": 1e-5, "atol": 1e-6}
    for a, b in zip(fused, plain, strict=True):
        assert_close(a.detach(), b.detach(), **tolerance)
        assert set(one.state[a]) == set(two.state[b])
        for key, value in one.state[a].items():
            assert_close(value, two.state[b][key], **tolerance)


def test_every_optimizer_has_an_entry() -> None:
    classes = {name for name, value in vars(optim).items() if isinstance(value, type)} - {"Optimizer"}
    assert classes == set(CLASSES), "pytests/opinfo/optim.py lists the optimizers with their options"


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize(
    ("cls", "options"), CASES, ids=lambda v: getattr(v, "__name__", None) or "-".join(map(str, v.values()))
)
def test_step_against_numpy(cls: Any, options: dict[str, Any], fused: bool | None) -> None:
    start = [p.detach().clone().numpy() for p in parameters()]
    params, _ = run(cls, {**options, "fused": fused}, steps=4, late=False)
    grads: list[list[np.ndarray]] = [[] for _ in params]
    for step in range(4):
        twins = parameters()
        set_grads(twins, step)
        for kept, p in zip(grads, twins, strict=True):
            kept.append(p.grad.numpy().copy())
    for p, first, kept in zip(params, start, grads, strict=True):
        want = CLASSES[cls.__name__][1](first, kept, options)
        np.testing.assert_allclose(p.detach().numpy(), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW])
def test_converges(cls: Any) -> None:
    x = nn.Parameter(deepseek.tensor([4.0, -3.0]))
    optimizer = cls([x], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        ((x - deepseek.tensor([1.0, 2.0])) ** 2).sum().backward()
        optimizer.step()
    assert_close(x.detach(), deepseek.tensor([1.0, 2.0]), rtol=0.0, atol=0.05)


def test_low_precision_parameters_keep_their_dtype() -> None:
    for cls, options in ((optim.SGD, {"lr": 0.1, "momentum": 0.9}), (optim.AdamW, {"lr": 0.1})):
        params, optimizer = run(cls, options, dtype=deepseek.bfloat16)
        assert all(p.dtype == deepseek.bfloat16 and bool(deepseek.isfinite(p).all()) for p in params)
        buffers = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, deepseek.Tensor)]
        assert buffers and all(v.dtype == deepseek.bfloat16 for v in buffers)


def test_parameters_stay_leaves_and_views_follow() -> None:
    p = nn.Parameter(deepseek.ones(3))
    view = p.detach()[1:]
    p.grad = deepseek.ones(3)
    optim.SGD([p], lr=0.5).step()
    assert p.is_leaf and p.requires_grad and p.grad_fn is None and view.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("fused", [None, False])
def test_step_is_seen_by_version_checks(fused: bool | None) -> None:
    """A graph from before the step must not be used with the new weights."""
    p = nn.Parameter(deepseek.ones(2))
    loss = (p * p).sum()
    p.grad = deepseek.ones(2)
    optim.SGD([p], lr=0.5, fused=fused).step()
    with pytest.raises(RuntimeError, match="modified|version|in-place|inplace"):
        loss.backward()


# --- groups, closures, hooks
def test_groups() -> None:
    a, b, c = (nn.Parameter(deepseek.ones(1)) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": (p for p in [c]), "momentum": 0.9})
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5, 0.1]
    assert [g["momentum"] for g in optimizer.param_groups] == [0, 0, 0.9]
    for p in (a, b, c):
        p.grad = deepseek.ones(1)
    optimizer.step()
    assert_close([p.detach() for p in (a, b, c)], [deepseek.tensor([v]) for v in (0.9, 0.5, 0.9)])
    assert set(optimizer.state) == {c}
    named = optim.SGD(nn.Linear(1, 1).named_parameters())
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]


def test_closure_and_tensor_learning_rate() -> None:
    p = nn.Parameter(deepseek.tensor([2.0]))
    optimizer = optim.SGD([p], lr=deepseek.tensor(0.25))

    def closure() -> deepseek.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with deepseek.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert p.tolist() == [1.0]


def test_zero_grad() -> None:
    p = nn.Parameter(deepseek.ones(2))
    optimizer = optim.Adam([p])
    p.grad = deepseek.ones(2)
    grad = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad and grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.step()
    assert p.tolist() == [1.0, 1.0] and not optimizer.state[p]


def test_step_hooks() -> None:
    p = nn.Parameter(deepseek.ones(1))
    optimizer = optim.SGD([p])
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append("before"))
    handle = optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append("after"))
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert calls == ["before", "after", "before"]


def test_own_optimizer() -> None:
    class Sign(optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        def step(self, closure: Any = None) -> None:
            with deepseek.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        self.state[p]["n"] = self.state[p].get("n", 0) + 1
                        p.sub_(p.grad.sign() * group["lr"])

    p = nn.Parameter(deepseek.ones(2))
    optimizer = Sign([p], 0.5)
    schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    p.grad = deepseek.tensor([3.0, -4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the schedule must see that step() was called
        optimizer.step()
        schedule.step()
    assert p.tolist() == [0.5, 1.5] and optimizer.state_dict()["state"] == {0: {"n": 1}}
    assert abs(optimizer.param_groups[0]["lr"] - 0.05) < 1e-12
    with pytest.raises(NotImplementedError, match="step"):
        optim.Optimizer([p], {}).step()


# --- state
@pytest.mark.parametrize(
    ("cls", "options"),
    [(optim.SGD, {"lr": 0.1, "momentum": 0.9}), (optim.Adam, {"amsgrad": True}), (optim.AdamW, {"lr": 0.02})],
)
def test_resume_gives_the_same_bits(cls: Any, options: dict[str, Any]) -> None:
    whole, _ = run(cls, options, steps=8)
    half, optimizer = run(cls, options, steps=5)
    saved = optimizer.state_dict()
    assert all(isinstance(number, int) for group in saved["param_groups"] for number in group["params"])
    resumed = [nn.Parameter(p.detach().clone()) for p in half]
    other = cls(resumed, lr=5.0)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for step in range(5, 8):
        set_grads(resumed, step)
        other.step()
    for a, b in zip(whole, resumed, strict=True):
        assert deepseek.equal(a.detach(), b.detach())
    # Loading copied: going on did not change what was loaded.
    again = cls([nn.Parameter(p.detach().clone()) for p in half])
    again.load_state_dict(saved)
    key = "momentum_buffer" if cls is optim.SGD else "exp_avg"
    mine = optimizer.state[half[0]][key]
    assert deepseek.equal(again.state[again.param_groups[0]["params"][0]][key], mine)


def test_state_takes_the_parameters_dtype_but_not_the_step() -> None:
    _, optimizer = run(optim.Adam, {}, dtype=F64)
    params = parameters(deepseek.float32)
    other = optim.Adam(params)
    saved = optimizer.state_dict()
    saved = {"state": copy.deepcopy(saved["state"]), "param_groups": saved["param_groups"]}
    saved["state"][0]["step"] = deepseek.tensor(6.0)  # as PyTorch stores it
    other.load_state_dict(saved)
    state = other.state[params[0]]
    assert state["exp_avg"].dtype == deepseek.float32 and state["step"] == 6 and isinstance(state["step"], int)


def test_state_from_json_keys_and_older_options() -> None:
    _, optimizer = run(optim.AdamW, {})
    saved = optimizer.state_dict()
    params = parameters()
    other = optim.AdamW(params)
    groups = [{k: v for k, v in saved["param_groups"][0].items() if k not in ("fused", "decoupled_weight_decay")}]
    other.load_state_dict({"state": {str(k): v for k, v in saved["state"].items()}, "param_groups": groups})
    assert set(other.state) == set(params) and other.param_groups[0]["decoupled_weight_decay"] is True
    set_grads(params, 0)
    other.step()
    assert other.state[params[0]]["step"] == 7


@pytest.mark.parametrize("groups", [[], [{"params": [0]}], [{"params": [0, 1, 2, 3]}, {"params": []}]])
def test_state_that_does_not_fit(groups: list[Any]) -> None:
    optimizer = optim.SGD(parameters())
    with pytest.raises(ValueError, match="loaded state dict"):
        optimizer.load_state_dict({"state": {}, "param_groups": groups})


def test_deepcopy_follows_the_model() -> None:
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters())
    model(deepseek.ones(1, 2)).sum().backward()
    optimizer.step()
    twin_model, twin = copy.deepcopy((model, optimizer))
    twin_params = list(twin_model.parameters())
    assert all(a is b for a, b in zip(twin.param_groups[0]["params"], twin_params, strict=True))
    assert set(twin.state) == set(twin_params) and twin.state[twin_params[0]]["step"] == 1


# --- errors and text
def leaf() -> nn.Parameter:
    return nn.Parameter(deepseek.ones(1))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: optim.SGD([leaf()], lr=-1), ValueError, "Invalid learning rate: -1"),
        (lambda: optim.SGD([leaf()], momentum=-1), ValueError, "Invalid momentum value: -1"),
        (lambda: optim.SGD([leaf()], weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
        (lambda: optim.SGD([leaf()], nesterov=True), ValueError, "Nesterov momentum requires a momentum"),
        (lambda: optim.Adam([leaf()], lr=math.nan), ValueError, "Invalid learning rate: nan"),
        (lambda: optim.Adam([leaf()], betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
        (lambda: optim.AdamW([leaf()], betas=(0.9, -0.1)), ValueError, "Invalid beta parameter at index 1: -0.1"),
        (lambda: optim.Adam([leaf()], eps=-1), ValueError, "Invalid epsilon value: -1"),
        (lambda: optim.Adam([leaf()], weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
        (lambda: optim.SGD([leaf()], differentiable=True), NotImplementedError, "SGD: differentiable=True"),
        (lambda: optim.SGD([]), ValueError, "empty parameter list"),
        (lambda: optim.SGD(leaf()), TypeError, "iterable of Tensors or dicts"),
        (lambda: optim.SGD(nn.Linear(2, 2)), TypeError, r"iterable of .* but got Linear; pass its \.parameters\(\)"),
        (lambda: optim.SGD([{"params": nn.Linear(2, 2)}]), TypeError, r"but got Linear; pass its \.parameters\(\)"),
        (lambda: optim.SGD(3), TypeError, "iterable of Tensors or dicts, but got int"),
        (lambda: optim.SGD([leaf()], lr="a"), TypeError, "lr must be a number or a Tensor, not str"),
        (lambda: optim.Adam([leaf()], lr="a"), TypeError, "lr must be a number or a Tensor, not str"),
        (
            lambda: optim.Adam([leaf()], weight_decay=None),
            TypeError,
            "weight_decay must be a number or a Tensor, not No",
        ),
        (lambda: optim.SGD([3]), TypeError, "only optimize Tensors, but one of the params is int"),
        (lambda: optim.SGD([leaf() * 2]), ValueError, "can't optimize a non-leaf Tensor"),
        (lambda: optim.SGD([leaf()] * 2), ValueError, "more than one parameter group"),
        (lambda: optim.SGD([{"params": [p := leaf()]}, {"params": [p]}]), ValueError, "more than one"),
        (lambda: optim.SGD([{"params": {leaf()}}]), TypeError, "ordered collections"),
        (lambda: optim.SGD([("a", leaf()), leaf()]), ValueError, "with/without names"),
        (lambda: optim.SGD([leaf()]).add_param_group([leaf()]), TypeError, "must be a dict"),
        (lambda: optim.Adamw, AttributeError, "nearest name is 'AdamW'"),
        (lambda: optim.lr_scheduler.CosineLR, AttributeError, "nearest name is '.*CosineLR'"),
    ],
)
def test_mistakes(make: Callable[[], Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_repr_and_switches() -> None:
    optimizer = optim.SGD([{"params": leaf()}, {"params": leaf(), "lr": 0.5}], lr=0.1, foreach=True, fused=True)
    lines = repr(optimizer).split("\n")
    assert lines[:2] == ["SGD (", "Parameter Group 0"] and "    lr: 0.1" in lines and "    lr: 0.5" in lines
    assert "Parameter Group 1" in lines and lines[-1] == ")"
    assert {"lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "params"} <= set(
        optimizer.param_groups[0]
    )


@pytest.mark.parametrize(
    ("mistake", "error", "text"),
    [
        ("runs/optim.ds", TypeError, r"Read the file first: load_state_dict\(deepseek.load\('runs/optim.ds'\)\)"),
        (optim.SGD([nn.Parameter(deepseek.ones(1))]), TypeError, r"Pass its state: load_state_dict\(other.state_dict"),
        ([1], TypeError, "dict-like, got <class 'list'>"),
        ({}, ValueError, "it has no 'state', but nothing at all"),
        ({"model": 1, "optimizer": 2}, ValueError, "it has no 'state', but 'model', 'optimizer'"),
    ],
)
def test_what_is_no_state(mistake: Any, error: type[Exception], text: str) -> None:
    optimizer = optim.SGD([nn.Parameter(deepseek.ones(1))])
    with pytest.raises(error, match=text):
        optimizer.load_state_dict(mistake)
    if error is TypeError:
        part = optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
        for schedule in (part, optim.lr_scheduler.ChainedScheduler([part]), optim.lr_scheduler.StepLR(optimizer, 1)):
            with pytest.raises(error, match=text):
                schedule.load_state_dict(mistake)
