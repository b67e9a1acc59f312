"""What tests of all ops share: the live table beside the entries, running a sample, gradients, layouts of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import _C

from opinfo import REGISTRY, OpInfo, Sample
from opinfo.core import leaves, outputs, tree_map

# "max" has the overloads "max", "max.binary" and "max.dim": one entry of opinfo covers all of a base name.
TABLE: dict[str, Any] = dict(_C.op_table())
OVERLOADS: dict[str, list[str]] = {}
for _full in sorted(TABLE):
    OVERLOADS.setdefault(_full.split(".")[0], []).append(_full)
Tensor = deepseek.Tensor


def python_function(name: str) -> Callable[..., Any] | None:
    """What is written in Python over the table: `einsum`, `nn.functional.one_hot`, `Tensor.index_put`."""
    for place in (deepseek, deepseek.nn.functional, Tensor):
        if hasattr(place, name):
            return getattr(place, name)
    return None


FUNCTIONS = {name: f for name in REGISTRY if name not in OVERLOADS and (f := python_function(name)) is not None}
KNOWN = [REGISTRY[name] for name in sorted(REGISTRY) if name in OVERLOADS or name in FUNCTIONS]


def cases(
    keep: Callable[[OpInfo], bool] = lambda _: True, which: Callable[[Sample], bool] = lambda _: True
) -> Iterable[Any]:
    for info in KNOWN:
        if keep(info):
            for index, sample in enumerate(info.samples):
                if which(sample):
                    yield pytest.param(info, index, id=f"{info.name}-{index}{sample}")


def over(*args: Any, **kwargs: Any) -> Any:
    return pytest.mark.parametrize(("info", "index"), list(cases(*args, **kwargs)))


def each(values: Callable[[OpInfo], Iterable[Any]], name: str) -> Any:
    params = [
        pytest.param(info, value, id=f"{info.name}-{i}") for info in KNOWN for i, value in enumerate(values(info))
    ]
    return pytest.mark.parametrize(("info", name), params)


def run(info: OpInfo, args: tuple, kwargs: dict) -> Any:
    if info.random:
        deepseek.manual_seed(1234)
    return call_op(info.name, args, kwargs)


def call_op(name: str, args: tuple, kwargs: dict) -> Any:
    """By full name where there is one overload, through the overloaded function otherwise."""
    if name in FUNCTIONS:
        return FUNCTIONS[name](*args, **kwargs)
    if OVERLOADS[name] != [name]:
        return getattr(_C, name)(*args, **kwargs)
    if TABLE[name].writes:
        return call_writing(name, args, kwargs)
    return _C.op_call(name, *args, **kwargs)


def call_writing(name: str, args: tuple, kwargs: dict) -> list[Any]:
    """An op that writes to its arguments gets copies of those: its results, before what it returns."""
    given = dict(zip((argument[0] for argument in TABLE[name].arguments), args, strict=False), **kwargs)
    for argument in TABLE[name].writes:
        given[argument] = tree_map(lambda t: t.detach().clone(), given[argument], Tensor)
    written = list(leaves([given[argument] for argument in TABLE[name].writes], Tensor))
    with deepseek.no_grad():
        result = _C.op_call(name, **given)
    return written + ([] if result is None else outputs(result))


def rows_of(info: OpInfo) -> list[Any]:
    return [TABLE[full] for full in OVERLOADS.get(info.name, [])]


def reference(info: OpInfo, call: Any) -> list[Any]:
    args, kwargs = call.for_reference(float_result=info.out == "float")
    with np.errstate(all="ignore"):
        result = info.ref(*args, **kwargs)
    if isinstance(result, (list, tuple)):
        return list(result)
    return [result]


def grad_outputs(result: Any) -> list[Any]:
    return [t for t in outputs(result) if isinstance(t, Tensor) and t.dtype.is_floating_point]


def gradients(info: OpInfo, call: Any, layout: Callable[[Any], Any] | None = None) -> tuple[Any, list[Any]]:
    """The result and the gradients of a fixed weighted sum of its floating outputs."""
    args, kwargs = call.tensors(requires_grad=info.grad, layout=layout)
    result = run(info, args, kwargs)
    inputs = [t for t in leaves((args, kwargs), Tensor) if t.requires_grad]
    outs = [t for t in grad_outputs(result) if t.requires_grad]
    if not inputs or not outs:
        return result, []
    weights = [weight_like(t) for t in outs]
    return result, list(deepseek.autograd.grad(outs, inputs, weights, allow_unused=True))


def weight_like(t: Any) -> Any:
    """Grad outputs that are all different, so that a permuted gradient cannot pass."""
    values = 0.5 + (np.arange(math.prod(t.shape)) * 0.37) % 1.0
    return deepseek.from_numpy(values.reshape(tuple(t.shape))).to(t.dtype)


def transposed(t: Any) -> Any:
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t


def stepped(t: Any) -> Any:
    """Every second element of a larger buffer, with an offset."""
    if t.dim() == 0:
        return t
    wide = deepseek.zeros([*t.shape[:-1], 2 * t.shape[-1] + 1], dtype=t.dtype)
    wide[..., 1::2] = t
    return wide[..., 1::2]
