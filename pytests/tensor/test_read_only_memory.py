"""Read-only memory of NumPy and DLPack: nothing writes to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
import dlpack_capsules as capsules
import numpy as np
import pytest


def frozen(*values: float) -> np.ndarray:
    a = np.array(values)
    a.flags.writeable = False
    return a


def optimizer_step(x: Any) -> None:
    x.requires_grad_()
    x.grad = deepseek.ones_like(x)
    deepseek.optim.SGD([x], lr=0.1).step()


def adam_step(x: Any) -> None:
    x.requires_grad_()
    x.grad = deepseek.ones_like(x)
    deepseek.optim.AdamW([x], lr=0.1).step()


def accumulate(x: Any) -> None:
    w = deepseek.zeros_like(x).requires_grad_()
    w.grad = x
    w.sum().backward()


WRITES: dict[str, Callable[[Any], Any]] = {
    "add_": lambda x: x.add_(1),
    "mul_ by a tensor": lambda x: x.mul_(x.clone()),
    "zero_": lambda x: x.zero_(),
    "fill_": lambda x: x.fill_(3),
    "copy_": lambda x: x.copy_(deepseek.zeros(3)),
    "set an element": lambda x: x.__setitem__(0, 9.0),
    "set a slice": lambda x: x.__setitem__(slice(1, None), 9.0),
    "set by a mask": lambda x: x.__setitem__(x > 1, 9.0),
    "through a view": lambda x: x[1:].sub_(1),
    "through a detached one": lambda x: x.detach().neg_(),
    "through .data": lambda x: x.data.exp_(),
    "normal_": lambda x: x.normal_(),
    "uniform_": lambda x: x.uniform_(),
    "clamp_": lambda x: x.clamp_(0, 1),
    "masked_fill_": lambda x: x.masked_fill_(x > 1, 0.0),
    "index_fill_": lambda x: x.index_fill_(0, deepseek.tensor([0]), 0.0),
    "index_add_": lambda x: x.index_add_(0, deepseek.tensor([0]), deepseek.ones(1, dtype=x.dtype)),
    "scatter_": lambda x: x.scatter_(0, deepseek.tensor([0]), 5.0),
    "augmented": lambda x: x.__iadd__(1),
    "an initializer": lambda x: deepseek.nn.init.ones_(x),
    "an optimizer": optimizer_step,
    "a fused optimizer": adam_step,
    "backward into .grad": accumulate,
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("make", [deepseek.from_numpy, deepseek.from_dlpack, deepseek.as_tensor])
def test_read_only_memory_is_not_written(name: str, make: Callable[[Any], Any]) -> None:
    a = frozen(1.0, 2.0, 3.0)
    x = make(a)
    with pytest.raises(RuntimeError, match="read-only"):
        WRITES[name](x)
    assert a.tolist() == [1.0, 2.0, 3.0] and x._version == 0


def test_read_only_memory_stays_so_on_the_way_out() -> None:
    x = deepseek.from_numpy(frozen(1.0, 2.0))
    for y in (x, x[1:], deepseek.from_dlpack(x), x.detach()):
        assert not y.numpy().flags.writeable and not np.from_dlpack(y).flags.writeable
        assert capsules.flags(y.__dlpack__(max_version=(1, 0))) == 1
        with pytest.raises(BufferError, match="read-only"):
            y.__dlpack__()
    for y in (x.clone(), x + 0, deepseek.tensor(x.numpy()), deepseek.from_dlpack(x.__dlpack__(copy=True))):
        assert y.add_(1)[-1].item() == 3.0 and y.numpy().flags.writeable


def test_the_read_only_flag_of_another_producer() -> None:
    values = np.arange(12, dtype=np.float32)
    x = deepseek.from_dlpack(capsules.Producer(values, versioned=True, flags=1).capsule)
    with pytest.raises(RuntimeError, match="read-only"):
        x.zero_()
