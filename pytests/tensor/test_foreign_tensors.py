"""Tensors of other libraries, known by ``__dlpack__`` alone: a stand-in with PyTorch's manners."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn, optim
from deepseek.testing import assert_close


class Foreign:
    """A tensor as PyTorch's is seen from here: DLPack, ``detach``, and no array interface."""

    def __init__(self, array: np.ndarray, requires_grad: bool = False, device: int = 1, negated: bool = False) -> None:
        self._array, self.requires_grad, self._device, self._negated = array, requires_grad, device, negated

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0

    def __dlpack__(self, *, stream: Any = None) -> Any:  # the protocol before 1.0: no max_version
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return self._array.__dlpack__()

    def detach(self) -> Foreign:
        return Foreign(self._array, False, self._device, self._negated)

    def resolve_neg(self) -> Foreign:
        return Foreign(-self._array, self.requires_grad, self._device) if self._negated else self

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Foreign:
        return Foreign(self._array[index], self.requires_grad)


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.arange(12, dtype=np.float64).reshape(3, 4).T,
    np.arange(10, dtype=np.int64)[::3],
    np.array(2.5, dtype=np.float32),
    np.zeros((0, 3), dtype=np.float16),
    np.array([True, False]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
@pytest.mark.parametrize("grad", [False, True])
def test_values_and_memory(array: np.ndarray, grad: bool) -> None:
    other = Foreign(array, grad and array.dtype.kind == "f")
    for make, shares in (
        (deepseek.tensor, False),
        (deepseek.as_tensor, True),
        (deepseek.asarray, True),
        (deepseek.from_torch, True),
    ):
        found = make(other)
        assert str(found.dtype) == f"deepseek.{array.dtype}" and found.tolist() == array.tolist()
        assert tuple(found.shape) == array.shape and not found.requires_grad
        if array.size:
            assert (found.data_ptr() == array.ctypes.data) == shares
    assert deepseek.tensor(other, dtype=deepseek.float64).dtype is deepseek.float64
    assert deepseek.tensor(Foreign(array.astype(np.float32)), requires_grad=True).requires_grad


def test_in_nested_sequences() -> None:
    parts = [Foreign(a) for a in (np.ones(2, np.float32), np.zeros(2, np.float32))]
    assert deepseek.tensor(parts).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert deepseek.tensor([Foreign(np.array(1.0)), 2.0]).tolist() == [1.0, 2.0]


class OfOneElement(Foreign):
    """Stands for a number where Python asks for one."""

    def __index__(self) -> int:
        return int(self._array.item())

    def __float__(self) -> float:
        return float(self._array.item())


@pytest.mark.parametrize("values", [1, [1], [[1]], True, [True, False, False]])
def test_as_indices(values: Any) -> None:
    array = np.array(values)
    ours, theirs = deepseek.arange(3), np.arange(3)
    assert ours[OfOneElement(array)].tolist() == theirs[array].tolist()
    ours[OfOneElement(array)], theirs[array] = 7, 7
    assert ours.tolist() == theirs.tolist()


def test_none_is_taken_for_a_number() -> None:
    x, one = deepseek.ones(3), OfOneElement(np.array([1.0]))
    for call in (x.add, x.add_, x.fill_, x.pow, x.clamp, lambda v: deepseek.where(x > 0, x, v)):
        with pytest.raises(TypeError, match=r"OfOneElement; deepseek.as_tensor\(\) makes a Tensor of it"):
            call(one)
    with pytest.raises(TypeError, match="unsupported operand"):
        x + one
    assert deepseek.zeros(OfOneElement(np.array(2))).tolist() == [0.0, 0.0]  # an int's place takes any __index__


def test_a_lazy_sign_is_written_out() -> None:
    for take in (deepseek.as_tensor, deepseek.from_dlpack):
        assert take(Foreign(np.ones(2), negated=True)).tolist() == [-1.0, -1.0]


def test_refusals() -> None:
    with pytest.raises(BufferError, match=r"device \(2, 0\).*\.cpu\(\)"):
        deepseek.tensor(Foreign(np.ones(2), device=2))
    with pytest.raises(BufferError, match="no dtype for complex64"):
        deepseek.tensor(Foreign(np.ones(2, dtype=np.complex64)))
    with pytest.raises(BufferError, match="require gradient"):
        deepseek.from_dlpack(Foreign(np.ones(2), True))
    for wrong in (deepseek.ones(2), [1.0], Foreign.__init__):
        with pytest.raises(TypeError, match=r"from_torch\(\): expected a tensor of PyTorch"):
            deepseek.from_torch(wrong)
    with pytest.raises(TypeError):
        deepseek.tensor(Foreign)  # the class itself


def test_an_op_says_whose_tensor_it_was_given() -> None:
    for given, name in ((Foreign(np.ones(2)), f"{__name__}.Foreign"), (np.ones(2), "numpy.ndarray")):
        for call in (lambda x: deepseek.exp(x), lambda x: deepseek.cat([deepseek.ones(2), x])):
            with pytest.raises(TypeError, match=rf"{name}; deepseek.as_tensor\(\) makes a Tensor of it"):
                call(given)
    with pytest.raises(TypeError, match=rf"got {__name__}.Foreign; make one with deepseek.tensor"):
        nn.Parameter(Foreign(np.ones(2)))


def test_asarray() -> None:
    x = deepseek.ones(2, requires_grad=True)
    assert deepseek.asarray([1, 2]).tolist() == [1, 2] and deepseek.asarray(3.5).dim() == 0
    shared = deepseek.asarray(x)
    assert shared.data_ptr() == x.data_ptr() and not shared.requires_grad
    assert deepseek.asarray(x * 2, requires_grad=True).grad_fn is not None
    assert deepseek.asarray(x, copy=True).data_ptr() != x.data_ptr()
    assert deepseek.asarray(np.ones(2), copy=False, requires_grad=True).requires_grad
    assert deepseek.asarray(deepseek.ones(2), requires_grad=True).is_leaf
    for obj, options in (([1], {}), (deepseek.ones(1), {"dtype": deepseek.int32})):
        with pytest.raises(ValueError, match="copy=False"):
            deepseek.asarray(obj, copy=False, **options)


def test_load_state_dict() -> None:
    model, source = nn.Linear(3, 2), nn.Linear(3, 2)
    state = {name: Foreign(value.detach().numpy(), True) for name, value in source.named_parameters()}
    assert str(model.load_state_dict(state)) == "<All keys matched successfully>"
    assert_close(model.weight, source.weight)
    model.load_state_dict(state, assign=True)
    assert isinstance(model.weight, nn.Parameter) and model.weight.data_ptr() == source.weight.data_ptr()
    state["bias"] = Foreign(np.ones(3, np.float32))
    with pytest.raises(RuntimeError, match="size mismatch for bias"):
        model.load_state_dict(state)
    state["bias"] = Foreign(np.ones(2, np.complex64))
    with pytest.raises(RuntimeError, match='named "bias", its value could not be read: .*complex64'):
        model.load_state_dict(state)


def test_an_optimizers_state() -> None:
    weight = nn.Parameter(deepseek.ones(2))
    optimizer = optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    entries = {k: Foreign(v.numpy()) if isinstance(v, deepseek.Tensor) else v for k, v in state["state"][0].items()}
    other = optim.Adam([nn.Parameter(deepseek.ones(2))])
    other.load_state_dict({**state, "state": {0: entries}})
    loaded = next(iter(other.state.values()))
    assert_close(loaded["exp_avg"], optimizer.state[weight]["exp_avg"])


def test_nothing_of_the_kind_is_imported() -> None:
    program = "import sys, deepseek; deepseek.nn.Linear(1, 1); deepseek.from_torch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
