"""Conversion, copies, identity and subclasses of tensors."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import deepseek
import pytest


def test_to() -> None:
    x = deepseek.ones(2)
    assert x.to(deepseek.float32) is x and x.to(deepseek.float64).dtype == deepseek.float64 and x.to("cpu") is x
    assert (
        x.to(deepseek.ones(1, dtype=deepseek.int8)).dtype == deepseek.int8
        and x.to(deepseek.float32, copy=True) is not x
    )
    for name, want in {
        "float": "float32",
        "double": "float64",
        "half": "float16",
        "bfloat16": "bfloat16",
        "long": "int64",
        "int": "int32",
        "short": "int16",
        "bool": "bool",
    }.items():
        assert getattr(x, name)().dtype == getattr(deepseek, want)
    assert x.type_as(deepseek.ones(1, dtype=deepseek.int64)).dtype == deepseek.int64
    with pytest.raises((RuntimeError, ValueError, NotImplementedError), match="(?i)cuda|device"):
        x.to("cuda")


def test_device() -> None:
    x = deepseek.ones(2)
    assert str(x.device) == "cpu" and x.device.type == "cpu" and x.device == deepseek.device("cpu") and x.cpu() is x
    assert deepseek.zeros(2, device="cpu").device == x.device


def test_copies() -> None:
    x = deepseek.tensor([1.0, 2.0], requires_grad=True)
    for y in (copy.deepcopy(x), copy.copy(x)):
        assert y.requires_grad and y.is_leaf and y.tolist() == x.tolist() and type(y) is deepseek.Tensor
    y = copy.deepcopy(x)
    with deepseek.no_grad():
        y[0] = 5
    assert x[0].item() == 1.0
    shared = copy.deepcopy({"a": x, "b": x})
    assert shared["a"] is shared["b"]
    z = deepseek.zeros(4)
    whole, part = copy.deepcopy([z, z[1:]])
    whole[1] = 7
    assert part[0].item() == 7.0  # tensors that shared memory still do
    with pytest.raises(RuntimeError, match="leaf|graph"):
        copy.deepcopy(x * 2)
    assert x.clone().requires_grad and not x.clone().is_leaf


def test_identity_attributes_and_weak_references() -> None:
    x = deepseek.ones(2, requires_grad=True)
    x.tag = "kept"
    (x * 2).sum().backward()
    x.grad.tag = "also kept"
    assert x.grad is x.grad and x.grad.tag == "also kept"
    y = x * 2
    y.tag = {"any": "object"}
    assert y.grad_fn is not None and y.tag == {"any": "object"}
    ref = weakref.ref(y)
    assert ref() is y
    del y
    gc.collect()
    assert ref() is None and x.tag == "kept"


def test_a_cycle_through_a_tensor_is_collected() -> None:
    x = deepseek.ones(2)
    x.me = x
    ref = weakref.ref(x)
    del x
    gc.collect()
    assert ref() is None


def test_subclass() -> None:
    class Named(deepseek.Tensor):
        label = "class attribute"

        def twice(self) -> Any:
            return self * 2

    x = deepseek.ones(2).as_subclass(Named)
    assert (
        isinstance(x, Named)
        and isinstance(x, deepseek.Tensor)
        and x.label == "class attribute"
        and x.twice().tolist() == [2.0, 2.0]
    )
    assert deepseek.is_tensor(x) and not deepseek.is_tensor([1])
    for y in (x.twice(), 2 - x, x[0], x.exp(), x.sum(), x.to(deepseek.float64), x.new_zeros(3), deepseek.cat([x, x])):
        assert type(y) is Named
    assert all(type(y) is Named for y in (*x, *x.max(0), *x.chunk(2), copy.copy(x), copy.deepcopy(x), x.data, x.T))
    assert type(pickle.loads(pickle.dumps(deepseek.Tensor([1.0])))) is deepseek.Tensor
    assert x.add_(1) is x and x.__imul__(2) is x  # in place it stays the object it is
    assert type(x * deepseek.nn.Parameter(deepseek.ones(2))) is Named
    total = deepseek.ones(2)
    assert type(total.add_(x)) is deepseek.Tensor and total.add_(x) is total


def test_subclasses_that_are_not_related() -> None:
    class One(deepseek.Tensor):
        pass

    class Two(deepseek.Tensor):
        pass

    class Child(One):
        pass

    one, two, child = (deepseek.ones(2).as_subclass(cls) for cls in (One, Two, Child))
    assert type(one + child) is Child and type(child + one) is Child
    with pytest.raises(TypeError, match="'One' and 'Two', and neither derives from the other"):
        _ = one + two


def test_torch_function() -> None:
    """A hook is asked about every op; what it leaves to its parent gives its own class."""
    seen = []

    class Logged(deepseek.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs)

    x = deepseek.tensor([1.0, 2.0]).as_subclass(Logged)
    assert type(deepseek.exp(x)) is Logged and type(2 - x) is Logged and type(x.topk(1).values) is Logged
    assert seen == ["exp", "__rsub__", "topk"]
    with deepseek._C.DisableTorchFunctionSubclass():
        assert type(x + 1) is deepseek.Tensor
    assert len(seen) == 3

    class Refusing(deepseek.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented

    with pytest.raises(TypeError, match="no implementation found for 'exp'"):
        deepseek.ones(1).as_subclass(Refusing).exp()


def test_a_subclass_in_a_jit_function_runs_eagerly() -> None:
    class Named(deepseek.Tensor):
        pass

    f = deepseek.jit(lambda x: x * 2)
    for _ in range(3):
        y = f(deepseek.ones(2).as_subclass(Named))
        assert type(y) is Named and y.tolist() == [2.0, 2.0]


def test_parameter() -> None:
    p = deepseek.nn.Parameter(deepseek.ones(2))
    assert isinstance(p, deepseek.Tensor) and isinstance(p, deepseek.nn.Parameter) and p.requires_grad and p.is_leaf
    assert repr(p) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    assert type(p * 2) is deepseek.Tensor and type(copy.deepcopy(p)) is deepseek.nn.Parameter
    assert not deepseek.nn.Parameter(deepseek.ones(2), requires_grad=False).requires_grad


def test_data_attribute() -> None:
    x = deepseek.tensor([1.0, 2.0], requires_grad=True)
    x.data[0] = 9.0
    assert x.tolist() == [9.0, 2.0] and not x.data.requires_grad
    x.data = deepseek.zeros(3)
    assert x.shape == (3,) and x.requires_grad


def test_set_grad_to_none_and_zero() -> None:
    x = deepseek.ones(2, requires_grad=True)
    x.sum().backward()
    x.grad.zero_()
    assert x.grad.tolist() == [0.0, 0.0]
    x.grad = None
    assert x.grad is None
    del x.grad
    assert x.grad is None
