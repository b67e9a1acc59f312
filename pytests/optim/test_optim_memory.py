"""Optimizer steps on memory that is shared, overlaps, or is not what the state says it is."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from deepseek import Tensor, nn, optim


def parameter(values: Tensor, grad: Tensor) -> nn.Parameter:
    made = nn.Parameter(values)
    made.grad = grad
    return made


def test_two_parameters_on_one_memory_are_stepped_on_one_after_the_other() -> None:
    n = 100_000  # several threads
    memory = deepseek.zeros(n)
    params = [parameter(memory, deepseek.ones(n)) for _ in range(3)]
    optim.SGD(params, lr=1.0).step()
    np.testing.assert_array_equal(memory.numpy(), np.full(n, -3.0, np.float32))


def test_memory_that_overlaps_in_part_is_refused() -> None:
    memory = deepseek.ones(2049)
    shifted = parameter(memory[1:], memory[:-1])
    with pytest.raises(RuntimeError, match="refer to a single memory location"):
        optim.SGD([shifted], lr=1.0).step()
    square = deepseek.zeros(3, 3)
    turned = [parameter(square, deepseek.ones(3, 3)), parameter(square.T, deepseek.ones(3, 3))]
    with pytest.raises(RuntimeError, match="refer to a single memory location"):
        optim.AdamW(turned).step()
    np.testing.assert_array_equal(memory.numpy(), np.ones(2049, np.float32))
    # Parts of one memory beside each other, and a gradient that is the parameter, are no overlap.
    halves = [parameter(memory[:1000], memory[:1000]), parameter(memory[1000:], deepseek.zeros(1049))]
    optim.SGD(halves, lr=1.0).step()
    assert memory[:1000].eq(0).all() and memory[1000:].eq(1).all()


def test_state_that_some_parameters_have_is_checked_for_all() -> None:
    params = [parameter(deepseek.zeros(4096), deepseek.ones(4096)) for _ in range(2)]
    optimizer = optim.Adam(params, amsgrad=True)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["max_exp_avg_sq"] = None
    saved["state"][1]["max_exp_avg_sq"] = deepseek.zeros(1)
    optimizer.load_state_dict(saved)
    with pytest.raises((RuntimeError, TypeError), match="max_exp_avg_sq"):
        optimizer.step()


def test_a_refused_step_does_not_count() -> None:
    weight = parameter(deepseek.zeros(3), deepseek.ones(3))
    optimizer = optim.Adam([weight])
    optimizer.step()
    optimizer.state[weight]["exp_avg"] = deepseek.zeros(2)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="exp_avg 0 has shape"):
            optimizer.step()
    assert int(optimizer.state[weight]["step"]) == 1


@pytest.mark.parametrize("step", [float("nan"), 1e30, -5.0])
def test_a_count_of_steps_that_is_none_is_refused(step: float) -> None:
    weight = parameter(deepseek.zeros(3), deepseek.ones(3))
    optimizer = optim.Adam([weight], capturable=True)
    optimizer.state[weight]["step"].fill_(step)
    with pytest.raises(RuntimeError, match="the step of parameter 0 must be from 1"):
        optimizer.step()
    assert weight.eq(0).all()
