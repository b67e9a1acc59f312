"""Of what kind of number a dtype is, what follows from it, and that no imaginary part is dropped."""

from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest

DTYPES = [t for t in vars(deepseek._C).values() if isinstance(t, deepseek.dtype)]
INTEGERS = {deepseek.uint8, deepseek.int8, deepseek.int16, deepseek.int32, deepseek.int64}
FLOAT8 = {deepseek.float8_e4m3fn, deepseek.float8_e5m2}
FLOATS = FLOAT8 | {deepseek.float16, deepseek.bfloat16, deepseek.float32, deepseek.float64}


def test_every_dtype_has_one_category() -> None:
    assert set(DTYPES) == {deepseek.bool} | INTEGERS | FLOATS
    for t in DTYPES:
        x = deepseek.zeros(1, dtype=t)
        assert (t.is_floating_point, t.is_complex) == (t in FLOATS, False)
        assert (x.is_floating_point(), x.is_complex()) == (t.is_floating_point, t.is_complex)
        assert (deepseek.is_floating_point(x), deepseek.is_complex(x)) == (t.is_floating_point, t.is_complex)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.name)
def test_differentiable_dtypes_are_those_that_may_require_gradients(dtype: deepseek.dtype) -> None:
    differentiable = dtype.is_floating_point or dtype.is_complex
    assert deepseek.ones(2, requires_grad=True).to(dtype).requires_grad == differentiable
    if differentiable and dtype not in FLOAT8:  # results may be float8, leaves may not
        assert deepseek.ones(2, dtype=dtype).requires_grad_().requires_grad
        assert deepseek.ones(2, dtype=dtype, requires_grad=True).requires_grad
        return
    refusal = "only Tensors of floating point dtype can require gradients"
    with pytest.raises(RuntimeError, match=refusal):
        deepseek.ones(2, dtype=dtype).requires_grad_()
    with pytest.raises(RuntimeError, match=refusal):
        deepseek.ones(2, dtype=dtype, requires_grad=True)


J: Any = 1j  # no number of the signatures

# x is float32, i int64.
COMPLEX: dict[str, Callable[[deepseek.Tensor, deepseek.Tensor], object]] = {
    "tensor": lambda x, i: deepseek.tensor(J),
    "tensor of a list": lambda x, i: deepseek.tensor([1.0, J]),
    "tensor of a dtype": lambda x, i: deepseek.tensor([J], dtype=deepseek.float32),
    "asarray": lambda x, i: deepseek.asarray([J]),
    "mul": lambda x, i: x * J,
    "rmul": lambda x, i: J * x,
    "add": lambda x, i: x + J,
    "add to integers": lambda x, i: i + J,
    "no imaginary part": lambda x, i: x + (J * 0 + 1),
    "div": lambda x, i: x / J,
    "pow": lambda x, i: x**J,
    "rpow": lambda x, i: J**x,
    "eq": lambda x, i: x == J,
    "lt": lambda x, i: x < J,
    "iadd": lambda x, i: x.__iadd__(J),
    "function": lambda x, i: deepseek.mul(x, J),
    "method": lambda x, i: x.add(J),
    "alpha": lambda x, i: deepseek.add(x, x, alpha=J),
    "value": lambda x, i: deepseek.addcmul(x, x, x, value=J),
    "full": lambda x, i: deepseek.full((2,), J),
    "full of a dtype": lambda x, i: deepseek.full((2,), J, dtype=deepseek.float32),
    "full_like": lambda x, i: deepseek.full_like(x, J),
    "fill_": lambda x, i: x.fill_(J),
    "setitem": lambda x, i: x.__setitem__(0, J),
    "arange": lambda x, i: deepseek.arange(J),
    "linspace": lambda x, i: deepseek.linspace(0, J, 3),
    "clamp": lambda x, i: x.clamp(J),
    "where": lambda x, i: deepseek.where(x > 0, x, J),
    "masked_fill": lambda x, i: x.masked_fill(x > 0, J),
    "norm": lambda x, i: deepseek.norm(x, J),
    "correction": lambda x, i: deepseek.std(x, correction=J),
    "result_type": lambda x, i: deepseek.result_type(x, J),
}


@pytest.mark.parametrize("f", COMPLEX.values(), ids=COMPLEX)
def test_complex_numbers_are_refused_by_name(f: Callable[[deepseek.Tensor, deepseek.Tensor], object]) -> None:
    x, i = deepseek.ones(2), deepseek.tensor([1, 2])
    with pytest.raises(TypeError, match=r"complex numbers are not supported yet: no dtype holds (1j|\(1\+0j\))"):
        f(x, i)
    assert x.tolist() == [1, 1] and i.tolist() == [1, 2]


def test_a_float_argument_says_that_it_is_a_float() -> None:
    with pytest.raises(TypeError, match="must be float or None, not complex"):
        deepseek.nan_to_num(deepseek.ones(2), nan=J)
    with pytest.raises(TypeError, match="unsupported operand type"):
        _ = deepseek.ones(2) @ J


def test_complex_arrays_answer_on_their_own() -> None:
    for value in (np.complex64(2 + 1j), np.complex128(2 + 1j)):
        assert isinstance(deepseek.ones(2) * value, np.ndarray)
    with pytest.raises(TypeError, match="complex128"):
        deepseek.tensor(np.array([1j]))
