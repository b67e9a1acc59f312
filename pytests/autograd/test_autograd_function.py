"""User functions: deepseek.autograd.Function, and gradcheck's verdict on wrong ones."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.autograd import Function
from deepseek.testing import gradcheck, gradgradcheck

F64 = deepseek.float64


def leaf(*values: float) -> Any:
    return deepseek.tensor(list(values), dtype=F64, requires_grad=True)


def close(tensor: Any, *values: float) -> None:
    np.testing.assert_allclose(tensor.detach().numpy(), np.array(values), rtol=1e-12)


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad * 3 * x * x


def test_function() -> None:
    x = leaf(2.0, -1.0)
    y = Cube.apply(x)
    assert y.requires_grad and "Cube" in type(y.grad_fn).__name__ + y.grad_fn.name()
    y.sum().backward()
    close(x.grad, 12, 3)
    assert gradcheck(Cube.apply, (leaf(0.5, 1.5),)) and gradgradcheck(Cube.apply, (leaf(0.5, 1.5),))


def test_function_backward_twice() -> None:
    y = Cube.apply(leaf(2.0)).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time|freed"):
        y.backward()


def test_function_with_constants_and_needs_input_grad() -> None:
    seen = []

    class Affine(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any, scale: float, name: str) -> Any:
            ctx.save_for_backward(x, w)
            ctx.scale = scale
            return x * w * scale

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            seen.append(ctx.needs_input_grad)
            _x, w = ctx.saved_tensors
            return grad * w * ctx.scale, None, None, None

    x = leaf(1.0, 2.0)
    Affine.apply(x, deepseek.full((2,), 3.0, dtype=F64), 2.0, "n").sum().backward()
    close(x.grad, 6, 6)
    assert seen == [(True, False, False, False)]


def test_function_with_several_outputs() -> None:
    class Both(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2, x * x

        @staticmethod
        def backward(ctx: Any, g1: Any, g2: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g1 * 2 + g2 * 2 * x

    x = leaf(1.0, 3.0)
    a, b = Both.apply(x)
    (a + b).sum().backward()
    close(x.grad, 4, 8)
    x.grad = None
    Both.apply(x)[1].sum().backward()  # the other output's gradient arrives as zeros
    close(x.grad, 2, 6)


def test_materialize_grads_can_be_switched_off() -> None:
    seen = []

    class Both(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, g1: Any, g2: Any) -> Any:
            seen.append(g2)
            return g1 * 2

    x = leaf(1.0)
    Both.apply(x)[0].sum().backward()
    assert seen == [None]


def test_mark_non_differentiable() -> None:
    class Top(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            values, order = x.sort()
            ctx.mark_non_differentiable(order)
            ctx.save_for_backward(order)
            return values, order

        @staticmethod
        def backward(ctx: Any, g: Any, _: Any) -> Any:
            (order,) = ctx.saved_tensors
            return deepseek.zeros_like(g).scatter(0, order, g)

    x = leaf(3.0, 1.0, 2.0)
    values, order = Top.apply(x)
    assert values.requires_grad and not order.requires_grad
    (values * deepseek.tensor([1.0, 2.0, 3.0], dtype=F64)).sum().backward()
    close(x.grad, 3, 1, 2)


def test_once_differentiable() -> None:
    from deepseek.autograd.function import once_differentiable

    class Square(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2 * ctx.saved_tensors[0]

    x = leaf(3.0)
    (g,) = deepseek.autograd.grad((Square.apply(x) * x).sum(), x, create_graph=True)
    close(g, 27)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_function_that_returns_too_few_gradients() -> None:
    class Bad(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x * y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    with pytest.raises(RuntimeError, match="number of gradients|expected 2"):
        Bad.apply(leaf(1.0), leaf(2.0)).sum().backward()


def test_function_gradient_of_a_wrong_shape() -> None:
    class Bad(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return deepseek.ones(3, dtype=F64)

    with pytest.raises(RuntimeError, match="shape|size|invalid gradient"):
        Bad.apply(leaf(1.0, 2.0)).sum().backward()


def test_function_mark_dirty() -> None:
    class AddOne(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            x.add_(1)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    x = leaf(1.0, 2.0)
    y = x * 2
    z = AddOne.apply(y)
    assert z is y
    (z * z).sum().backward()
    close(x.grad, 12, 20)


def test_function_error_in_backward() -> None:
    class Bad(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            raise OSError("inside backward")

    with pytest.raises(OSError, match="inside backward"):
        Bad.apply(leaf(1.0)).sum().backward()


def test_function_detects_changed_saved_tensors() -> None:
    x = leaf(2.0)
    y = x * 1
    z = Cube.apply(y)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_function_under_no_grad() -> None:
    with deepseek.no_grad():
        assert not Cube.apply(leaf(1.0)).requires_grad


def test_function_cannot_be_called() -> None:
    with pytest.raises((RuntimeError, TypeError)):
        Cube()(leaf(1.0))


def test_function_context_is_freed() -> None:
    class Payload:
        pass

    refs = []

    class Keep(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.payload = Payload()
            refs.append(weakref.ref(ctx.payload))
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    y = Keep.apply(leaf(1.0))
    assert refs[0]() is not None
    y.sum().backward()
    del y
    gc.collect()
    assert refs[0]() is None


def test_gradcheck_finds_a_wrong_gradient() -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    with pytest.raises(RuntimeError, match="[Jj]acobian|mismatch"):
        gradcheck(Wrong.apply, (leaf(0.5, 3.0),))
    assert not gradcheck(Wrong.apply, (leaf(0.5, 3.0),), raise_exception=False)
