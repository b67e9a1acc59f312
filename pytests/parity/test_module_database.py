"""Modules and optimizers that exist here and in torch's own test database, on torch's inputs."""

from __future__ import annotations

import warnings
from typing import Any

import deepseek
import op_database  # noqa: F401  (makes torch's test utilities importable)
import pytest
import torch
from torch.testing._internal.common_modules import module_db
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db
from torch_bridge import Translation, Unsupported, back, far, tensors

MODULES = {
    m.formatted_name: m for m in module_db if m.module_cls.__module__.startswith("torch.nn.modules")
    and hasattr(deepseek.nn, m.module_cls.__name__)
}  # fmt: skip
OPTIMIZERS = {o.optim_cls.__name__: o for o in optim_db if hasattr(deepseek.optim, o.optim_cls.__name__)}

REFUSED = ("add_bias_kv", "add_zero_attn")  # of MultiheadAttention: NotImplementedError
NOTHING_TO_RUN = ("nn_TransformerEncoderLayer",)  # all of its inputs have dropout


def same(ours: Any, theirs: Any, what: str) -> None:
    ours, theirs = list(tensors(ours)), list(tensors(theirs))
    assert len(ours) == len(theirs), what
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert tuple(a.shape) == tuple(b.shape), what
        text = far(back(a), b.detach(), lambda: None)
        assert not text, f"{what} {i}: {text}"


def run_module(info: Any, dtype: torch.dtype, training: bool) -> int:
    """How many inputs were compared."""
    torch.manual_seed(0)
    count = 0
    for given in info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training):
        refused = any(given.constructor_input.kwargs.get(k) for k in REFUSED)
        if given.forward_input is None or refused:
            continue
        build, call = given.constructor_input, given.forward_input
        theirs = info.module_cls(*build.args, **build.kwargs).to(dtype).train(training)
        translate = Translation()
        try:
            made = translate(build.args), translate.kwargs(build.kwargs)
            args, kwargs = translate(call.args), translate.kwargs(call.kwargs)
        except Unsupported:
            continue
        ours = getattr(deepseek.nn, info.module_cls.__name__)(*made[0], **made[1]).to(translate(dtype)).train(training)
        ours.load_state_dict(translate(dict(theirs.state_dict())))
        if any(getattr(m, "p", 0) for m in theirs.modules() if "Dropout" in type(m).__name__) and training:
            continue  # random
        want, got = theirs(*call.args, **call.kwargs), ours(*args, **kwargs)
        same(got, want, f"{given.desc}: result")
        wanted = [t for t in tensors(want) if t.requires_grad]
        inputs = [t for t in tensors((call.args, call.kwargs)) if t.requires_grad] + list(theirs.parameters())
        if wanted and inputs:
            mine = [translate.tensor(t) for t in inputs if not isinstance(t, torch.nn.Parameter)] + list(
                ours.parameters()
            )
            grads = torch.autograd.grad([t.sum() for t in wanted], inputs, allow_unused=True)
            found = deepseek.autograd.grad([t.sum() for t in tensors(got) if t.requires_grad], mine, allow_unused=True)
            kept = [(a, b) for a, b in zip(found, grads, strict=True) if a is not None and b is not None]
            assert len(kept) == sum(b is not None for b in grads), f"{given.desc}: a gradient is missing"
            same([a for a, _ in kept], [b for _, b in kept], f"{given.desc}: gradient")
        count += 1
    return count


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_module(name: str, training: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dtype in (torch.float32, torch.float64):
            assert run_module(MODULES[name], dtype, training) or name in NOTHING_TO_RUN


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name: str) -> None:
    info = OPTIMIZERS[name]
    for given in info.optim_inputs_func("cpu"):
        translate = Translation()
        start = [torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(0.1, 2, 5)]
        theirs = [t.clone().requires_grad_() for t in start]
        ours = [translate.tensor(t).clone().requires_grad_() for t in start]
        a = getattr(deepseek.optim, name)(ours, **translate.kwargs(given.kwargs))
        b = info.optim_cls(theirs, **given.kwargs)
        for _ in range(10):
            for step, parameters in ((a, ours), (b, theirs)):
                step.zero_grad()
                sum((p**2 - p).sum() for p in parameters).backward()
                step.step()
        same(ours, theirs, given.desc)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_refusals(name: str) -> None:
    info = OPTIMIZERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given in info.optim_error_inputs_func("cpu", torch.float32):
            # Where torch warns that something will be an error one day (the same parameter twice), it is one here.
            if given.error_on is not OptimizerErrorEnum.CONSTRUCTION_ERROR or issubclass(given.error_type, Warning):
                continue
            made = given.optimizer_error_input
            if made.kwargs.keys() & {"foreach", "fused", "capturable"}:
                continue  # ways of running on other devices, which change nothing here
            translate = Translation()
            try:
                given_params = made.params if made.params is not None else [torch.ones(1, requires_grad=True)]
                params, kwargs = translate(given_params), translate.kwargs(made.kwargs)
            except Unsupported:
                continue
            with pytest.raises(given.error_type):
                getattr(deepseek.optim, name)(params, **kwargs)
                pytest.fail(f"{made.desc} was accepted")
