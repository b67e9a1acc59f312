"""Every op of the table under ``deepseek.jit``: a replay equals the eager call bit for bit, gradients too."""

from __future__ import annotations

import functools
from typing import Any

import deepseek
from deepseek import _C
from opinfo import OpInfo
from opinfo.core import fill, leaves
from opinfo.running import FUNCTIONS, OVERLOADS, TABLE, grad_outputs, over, weight_like

Tensor = deepseek.Tensor
# These read values in C++ and act on them, so no recording can follow.
EAGER = {
    "_moe": "its composite, which differentiates the rows beside the result, sorts tokens by expert on the host",
    "_moe_backward": "so does the composite that gives derivatives of higher order",
    "normal": "looks at the smallest of several standard deviations",
    "repeat_interleave": "builds its index from the counts on the host",
}
UNSET = {"empty", "empty_like", "empty_strided", "new_empty"}  # the values are whatever was in memory


def callable_of(name: str) -> Any:
    """The op alone, without the tables around it that a capture would have to watch."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    return functools.partial(_C.op_call, name) if OVERLOADS[name] == [name] else getattr(_C, name)


def bits(value: Any, info: OpInfo) -> Any:
    """A comparable picture of a result: dtype, size, strides and the exact bytes."""
    if isinstance(value, Tensor):
        t = value.detach()
        raw = t.to(deepseek.float64) if t.dtype.is_floating_point and info.name not in UNSET else t.clone()
        if info.name in UNSET:
            raw.zero_()
        return str(t.dtype), tuple(t.shape), t.stride(), raw.numpy().tobytes(), value.requires_grad
    if isinstance(value, (list, tuple)):
        return [bits(v, info) for v in value]
    return value


def dtype_of(info: OpInfo) -> str:
    return "float32" if "float32" in info.floats else (info.floats or info.ints)[0]


def run(function: Any, info: OpInfo, index: int, grad: bool) -> Any:
    args, kwargs = fill(info, index, dtype_of(info)).tensors(requires_grad=grad)
    deepseek.manual_seed(7)
    result = function(*args, **kwargs)
    written = info.name in TABLE and TABLE[info.name].writes
    return [result, *leaves((args, kwargs), Tensor)] if written else result


@over()
def test_replay_equals_eager(info: OpInfo, index: int) -> None:
    compiled = deepseek.jit(callable_of(info.name), verify=True)
    expected = bits(run(compiled._function, info, index, grad=False), info)
    for _ in range(3):
        assert bits(run(compiled, info, index, grad=False), info) == expected
    if not compiled._entries:
        assert info.name in EAGER or "object" in compiled.explain(), compiled.explain()


@over(lambda info: info.grad)
def test_gradients_of_a_replay_equal_eager(info: OpInfo, index: int) -> None:
    """Both ways: backward of a replayed call, and a replayed call that runs backward itself."""

    target = callable_of(info.name)

    def whole(*args: Any, **kwargs: Any) -> Any:
        result = target(*args, **kwargs)
        inputs = [t for t in leaves((args, kwargs), Tensor) if t.requires_grad]
        outs = [t for t in grad_outputs(result) if t.requires_grad]
        if not inputs or not outs:
            return result, []
        grads = deepseek.autograd.grad(outs, inputs, [deepseek.ones_like(t) * 0.75 for t in outs], allow_unused=True)
        return result, list(grads)

    def outside(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        inputs = [t for t in leaves((args, kwargs), Tensor) if t.requires_grad]
        outs = [t for t in grad_outputs(result) if t.requires_grad]
        if not outs:
            return []
        return list(deepseek.autograd.grad(outs, inputs, [weight_like(t) for t in outs], allow_unused=True))

    forward = deepseek.jit(target, verify=True)
    inside = deepseek.jit(whole, verify=True)
    dtype = dtype_of(info)
    deepseek.manual_seed(7)
    call = fill(info, index, dtype)
    args, kwargs = call.tensors(requires_grad=True)
    deepseek.manual_seed(7)
    expected_inside = bits(whole(*args, **kwargs), info)
    expected_outside: Any = None
    for _ in range(3):
        args, kwargs = fill(info, index, dtype).tensors(requires_grad=True)
        deepseek.manual_seed(7)
        assert bits(inside(*args, **kwargs), info) == expected_inside
        args, kwargs = fill(info, index, dtype).tensors(requires_grad=True)
        deepseek.manual_seed(7)
        found = bits(outside(*args, **kwargs), info)
        assert expected_outside is None or found == expected_outside
        expected_outside = found
    if info.name not in EAGER:
        assert inside._entries and forward._entries, inside.explain() + forward.explain()
