"""assert_close, gradcheck and gradgradcheck: what they accept, what they refuse, and what they say then."""

from __future__ import annotations

import math
import re
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import testing
from deepseek.autograd import Function
from deepseek.testing import GradcheckError, assert_close, gradcheck, gradgradcheck


def leaf(*values: Any) -> deepseek.Tensor:
    return deepseek.tensor(list(values), dtype=deepseek.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("dtype", "apart", "close"),
    [
        (deepseek.float32, 1e-6, True),
        (deepseek.float32, 1e-4, False),
        (deepseek.float64, 1e-8, True),
        (deepseek.float64, 1e-6, False),
        (deepseek.bfloat16, 0.0078125, True),
        (deepseek.bfloat16, 0.0625, False),
        (deepseek.float16, 0.0009765625, True),
        (deepseek.float16, 0.0078125, False),
    ],
)
def test_default_tolerance_follows_dtype(dtype: Any, apart: float, close: bool) -> None:
    a = deepseek.tensor([1.0, 1.0], dtype=deepseek.float64).to(dtype)
    b = deepseek.tensor([1.0, 1.0 + apart], dtype=deepseek.float64).to(dtype)
    if close:
        assert_close(a, b)
    else:
        with pytest.raises(AssertionError, match="not close"):
            assert_close(a, b)


def test_message_counts_and_locates() -> None:
    a = deepseek.tensor([[1.0, 2.0], [3.0, 5.0]])
    b = deepseek.tensor([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(AssertionError) as info:
        assert_close(a, b)
    text = str(info.value)
    assert "Mismatched elements: 1 / 4 (25.0%)" in text
    assert "Greatest absolute difference: 1.0 at index (1, 1) (up to 1e-05 allowed)" in text
    assert "Greatest relative difference: 0.25 at index (1, 1)" in text
    assert "the actual value is 5.0 and the expected value 4.0" in text


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (deepseek.ones(2), deepseek.ones(3), "'shape' do not match: (2,) != (3,)"),
        (deepseek.ones(2), deepseek.ones(2, dtype=deepseek.float64), "'dtype' do not match"),
        (deepseek.tensor([1, 2]), deepseek.tensor([1, 3]), "not equal"),
        (deepseek.tensor(1.0), deepseek.tensor(2.0), "Expected 2.0 but got 1.0"),
        (deepseek.tensor([math.nan]), deepseek.tensor([math.nan]), "Mismatched elements: 1 / 1"),
        (deepseek.tensor([math.inf]), deepseek.tensor([-math.inf]), "Mismatched elements: 1 / 1"),
        (deepseek.tensor([math.inf]), deepseek.tensor([1e30]), "Mismatched elements: 1 / 1"),
        (deepseek.tensor([True, False]), deepseek.tensor([True, True]), "Mismatched elements: 1 / 2"),
        (1.0, 2.0, "Expected 2.0 but got 1.0"),
        (1, 1.0, "types of the numbers"),
        (None, 1.0, "None mismatch"),
        ([1.0], [1.0, 2.0], "length of the sequences mismatch: 1 != 2"),
        ({"a": 1.0}, {"b": 1.0}, "keys of the mappings"),
        ({"a": [1.0, 3.0]}, {"a": [1.0, 2.0]}, "item ['a'][1]"),
    ],
)
def test_refuses(a: Any, b: Any, text: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(text)):
        assert_close(a, b)


def test_accepts() -> None:
    assert_close(deepseek.tensor([math.nan, 1.0]), deepseek.tensor([math.nan, 1.0]), equal_nan=True)
    assert_close(deepseek.tensor([math.inf, -math.inf]), deepseek.tensor([math.inf, -math.inf]))
    assert_close(deepseek.ones(2), deepseek.ones(2, dtype=deepseek.float64), check_dtype=False)
    assert_close({"a": (deepseek.ones(2), None)}, {"a": [deepseek.ones(2), None]})
    assert_close(deepseek.ones(2), np.ones(2, np.float32))
    assert_close(deepseek.ones(0), deepseek.ones(0))
    assert_close(1.0, 1.1, rtol=0.1, atol=0.0)


def test_arguments_of_assert_close() -> None:
    with pytest.raises(ValueError, match="both"):
        assert_close(1.0, 1.0, rtol=1e-3)
    with pytest.raises(TypeError, match="cannot compare Tensor with float"):
        assert_close(deepseek.ones(2), 1.0)
    with pytest.raises(TypeError, match="text"):
        assert_close("a", "a")
    with pytest.raises(AssertionError, match=r"^step 3: Scalars"):
        assert_close(1.0, 2.0, msg=lambda text: "step 3: " + text)
    with pytest.raises(AssertionError, match=r"^no$"):
        assert_close(1.0, 2.0, msg="no")
    transposed = deepseek.ones(2, 3).t()
    assert_close(transposed, deepseek.ones(3, 2))
    with pytest.raises(AssertionError, match="stride"):
        assert_close(transposed, deepseek.ones(3, 2), check_stride=True)


class WrongCube(Function):
    """x**3 with a derivative that is right except at one element, and a wrong second derivative."""

    @staticmethod
    def forward(ctx: Any, x: deepseek.Tensor, broken: bool) -> deepseek.Tensor:
        ctx.save_for_backward(x)
        ctx.broken = broken
        return x * x * x

    @staticmethod
    def backward(ctx: Any, grad: deepseek.Tensor) -> tuple[Any, None]:
        (x,) = ctx.saved_tensors
        slope = 3 * x * x if ctx.broken else 3 * x * x.detach()  # the second is right once, not twice
        if ctx.broken:
            slope = slope + deepseek.tensor([0.0, 1.0, 0.0], dtype=slope.dtype)
        return grad * slope, None


@pytest.mark.parametrize("fast", [False, True])
def test_gradcheck_finds_a_wrong_gradient(fast: bool) -> None:
    x = leaf(1.0, 2.0, 3.0)
    assert gradcheck(lambda v: WrongCube.apply(v, False), x, fast_mode=fast)
    with pytest.raises(GradcheckError) as info:
        gradcheck(lambda v: WrongCube.apply(v, True), x, fast_mode=fast)
    assert "input 0" in str(info.value)
    if not fast:
        assert "d output[1] / d input[1]: numerical 12, analytical 13" in str(info.value)
        assert "1 of 9 elements are wrong" in str(info.value)
    assert gradcheck(lambda v: WrongCube.apply(v, True), x, fast_mode=fast, raise_exception=False) is False


@pytest.mark.parametrize("fast", [False, True])
def test_gradgradcheck_finds_a_wrong_second_derivative(fast: bool) -> None:
    x = leaf(1.0, 2.0, 3.0)
    assert gradgradcheck(lambda v: v * v * v, x, fast_mode=fast)
    with pytest.raises(GradcheckError, match="input 0"):
        gradgradcheck(lambda v: WrongCube.apply(v, False), x, fast_mode=fast)


def test_gradcheck_names_the_right_input_and_output() -> None:
    def fn(a: deepseek.Tensor, b: deepseek.Tensor) -> tuple[deepseek.Tensor, ...]:
        return a * 2, (a * b).sum() + (b.detach() * b).sum()

    with pytest.raises(GradcheckError, match=r"output 1 with respect to input 1: d output\[\] / d input\[1\]"):
        gradcheck(fn, (leaf(1.0, 2.0), leaf(1.0, 4.0)))


def test_gradcheck_with_outputs_of_many_kinds() -> None:
    def fn(a: deepseek.Tensor, b: deepseek.Tensor, scale: float) -> tuple[deepseek.Tensor, ...]:
        return a * b, a.argmax(), deepseek.ones(2), (a * scale).sum()

    inputs = (leaf(1.0, 2.0), leaf(3.0, 4.0), 2.0)
    assert gradcheck(fn, inputs)
    assert gradgradcheck(fn, inputs)


def test_gradcheck_through_shared_parameters() -> None:
    """Inputs are changed in place, so a function may read them from elsewhere (a module's parameters)."""
    weight = leaf(1.0, -2.0)
    assert gradcheck(lambda _: (weight * weight).sum(), (weight,))
    assert weight.tolist() == [1.0, -2.0]


def test_gradcheck_restores_inputs_after_an_error() -> None:
    x = leaf(1.0, 2.0)

    def fails_on_change(v: deepseek.Tensor) -> deepseek.Tensor:
        if v.tolist() != [1.0, 2.0]:
            raise KeyError("stop")
        return v * 1

    with pytest.raises(KeyError):
        gradcheck(fails_on_change, x)
    assert x.tolist() == [1.0, 2.0]


def test_gradcheck_finds_randomness_in_backward() -> None:
    class Noisy(Function):
        @staticmethod
        def forward(ctx: Any, x: deepseek.Tensor) -> deepseek.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, grad: deepseek.Tensor) -> deepseek.Tensor:
            return grad + deepseek.rand(grad.shape, dtype=grad.dtype) * 1e-9

    with pytest.raises(GradcheckError, match="not reentrant"):
        gradcheck(Noisy.apply, leaf(1.0, 2.0))
    assert gradcheck(Noisy.apply, leaf(1.0, 2.0), nondet_tol=1e-6)


def test_gradcheck_arguments() -> None:
    with pytest.raises(ValueError, match="at least one input"):
        gradcheck(lambda v: v * 2, deepseek.ones(2, dtype=deepseek.float64))
    with pytest.raises(ValueError, match="stride 0"):
        gradcheck(lambda v: v * 2, deepseek.ones(1, dtype=deepseek.float64).expand(3).requires_grad_())
    with pytest.raises(ValueError, match="check_forward_ad"):
        gradcheck(lambda v: v * 2, leaf(1.0), check_forward_ad=True)
    with pytest.raises(ValueError, match="must return tensors"):
        gradcheck(lambda v: (v * 2, 3.0), leaf(1.0))
    with pytest.warns(UserWarning, match="not a double precision"):
        gradcheck(lambda v: v * 2, deepseek.ones(2, requires_grad=True), eps=1e-2, atol=1e-2)


def test_gradgradcheck_with_given_and_strided_seeds() -> None:
    x = leaf(0.5, -1.5)
    assert gradgradcheck(lambda v: v.exp(), x, leaf(1.0, 2.0))
    assert gradgradcheck(lambda v: v.exp(), x, gen_non_contig_grad_outputs=True)


def test_empty_and_zero_dim() -> None:
    assert gradcheck(lambda v: v * v, deepseek.empty(0, dtype=deepseek.float64, requires_grad=True))
    assert gradcheck(lambda v: v * v, deepseek.tensor(3.0, dtype=deepseek.float64, requires_grad=True))
    assert gradcheck(lambda v: v.t() @ v, deepseek.rand(3, 2, dtype=deepseek.float64).t().requires_grad_())


def test_missing_name() -> None:
    with pytest.raises(AttributeError, match="nearest name is 'gradcheck'"):
        testing.grad_check  # noqa: B018
