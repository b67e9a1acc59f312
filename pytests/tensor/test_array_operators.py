"""Operators with NumPy arrays and scalars, with objects that are neither, and factories' options. Random ones:
generators/test_random_operands.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any
from unittest import mock

import deepseek
import numpy as np
import pytest


@pytest.mark.parametrize("compare", (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge))
def test_comparisons_are_elementwise_in_both_orders(compare: Callable[..., Any]) -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    for result in (compare(deepseek.tensor(a), b), compare(a, deepseek.tensor(b))):
        assert type(result) is deepseek.Tensor and result.dtype is deepseek.bool
        assert result.tolist() == compare(a, b).tolist()


def test_arithmetic_in_both_orders() -> None:
    t, a = deepseek.tensor([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0])  # float32 and float64
    for result, want in (
        (t + a, [3.0, 6.0, 12.0]),
        (a + t, [3.0, 6.0, 12.0]),
        (a - t, [1.0, 2.0, 4.0]),
        (a / t, [2.0, 2.0, 2.0]),
        (t / a, [0.5, 0.5, 0.5]),
        (a // t, [2.0, 2.0, 2.0]),
        (a % t, [0.0, 0.0, 0.0]),
        (a**t, [2.0, 16.0, 4096.0]),
        (np.eye(3) @ t, [1.0, 2.0, 4.0]),
        (t @ np.eye(3), [1.0, 2.0, 4.0]),
        (divmod(a, t)[0], [2.0, 2.0, 2.0]),
    ):
        assert type(result) is deepseek.Tensor and result.dtype is deepseek.float64 and result.tolist() == want
    n, m = deepseek.tensor([6, 3]), np.array([3, 1], dtype=np.int32)
    assert (n & m).tolist() == [2, 1] and (m | n).tolist() == [7, 3] and (n ^ m).tolist() == [5, 2]
    assert (m << n).tolist() == [192, 8] and (n >> m).tolist() == [0, 1]
    assert (n / m).dtype is deepseek.float64  # NumPy's quotient of integers
    assert [r.tolist() for r in divmod(n, 4)] == [[1, 0], [2, 3]] and [r.tolist() for r in divmod(13, n)] == [
        [2, 4],
        [1, 1],
    ]


def test_gradients_flow_to_the_tensor() -> None:
    x = deepseek.tensor([1.0, 2.0], requires_grad=True)
    a = np.array([3.0, 5.0], dtype=np.float32)
    (a * x * a).sum().backward()
    a[:] = 0  # what was saved is not the array
    assert x.grad.tolist() == [9.0, 25.0]
    y = (a - x).sum()
    a[:] = 7
    y.backward()
    assert x.grad.tolist() == [8.0, 24.0]


def test_in_place_a_tensor_keeps_its_memory_and_dtype() -> None:
    t = deepseek.tensor([1.0, 2.0])
    same = t
    t += np.array([1.0, 1.0])
    t *= np.array(2, dtype=np.uint16)
    assert t is same and t.dtype is deepseek.float32 and t.tolist() == [4.0, 6.0]
    n = deepseek.tensor([1, 2])
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type int64"):
        n += np.array([0.5, 0.5])


def test_dtypes_without_a_twin() -> None:
    b = deepseek.tensor([1.0, 2.0], dtype=deepseek.bfloat16)
    assert (b + np.float32([1, 2])).dtype is deepseek.float32 and (np.int64([1, 2]) * b).dtype is deepseek.bfloat16
    assert (deepseek.ones(2) + np.array([1, 2], dtype=np.uint16)).tolist() == [2.0, 3.0]
    assert (deepseek.ones(2) < np.array([0, 2], dtype=">f4")).tolist() == [False, True]
    with pytest.raises(TypeError, match="uint16"):
        _ = deepseek.ones(2, dtype=deepseek.uint8) + np.array([1, 2], dtype=np.uint16)
    with pytest.raises(TypeError):
        _ = deepseek.ones(2) & np.ones(2)


def test_masked_arrays_never_lose_their_mask() -> None:
    masked = np.ma.MaskedArray([1.0, 2.0], mask=[True, False])
    assert isinstance(deepseek.ones(2) + np.ma.MaskedArray([1.0, 2.0]), np.ma.MaskedArray)
    for f in (lambda: masked + deepseek.ones(2), lambda: deepseek.ones(2) + masked):
        with pytest.raises(TypeError):
            f()


NEITHER = ([1.0, 2.0], (1.0, 2.0), None, "a", b"a", object(), {}, range(2), np.array(["a", "b"]), np.str_("a"), [None])


@pytest.mark.parametrize("other", NEITHER, ids=lambda o: type(o).__name__)
def test_what_is_neither_tensor_nor_number(other: Any) -> None:
    t = deepseek.ones(2)
    assert (t == other) is False and (other == t) is False and (t != other) is True and (other != t) is True
    for f in (operator.add, operator.sub, operator.matmul, operator.lt, operator.and_, divmod):
        with pytest.raises(TypeError):
            f(t, other)
        with pytest.raises(TypeError):
            f(other, t)


def test_the_other_object_may_know_how_to_compare() -> None:
    t = deepseek.ones(2)
    assert operator.eq(t, mock.ANY) is True and operator.eq(mock.ANY, t) is True


def test_there_is_no_matrix_product_with_a_number() -> None:
    for f in (lambda t: t @ 2, lambda t: 2.0 @ t, lambda t: t @ np.float32(2)):
        with pytest.raises(TypeError, match="unsupported operand type"):
            f(deepseek.ones(2))


def test_complex_scalars_never_lose_their_imaginary_part() -> None:
    for value in (np.complex64(2 + 1j), np.complex128(2 + 1j)):
        assert isinstance(deepseek.ones(2) + value, np.ndarray)  # NumPy's own answer
        with pytest.raises(TypeError):
            deepseek.add(deepseek.ones(2), value)
    with pytest.raises(TypeError):
        _ = deepseek.ones(2) + 2j
    with pytest.raises(RuntimeError, match="without overflow"):
        _ = deepseek.ones(2, dtype=deepseek.int64) + np.uint64(2**63)


@pytest.mark.parametrize(
    "value", (1, 1.0, True, np.float32(1), np.float64(1), np.int8(1), np.uint64(1), np.bool_(True))
)
def test_contains(value: Any) -> None:
    assert value in deepseek.tensor([0.0, 1.0]) and value in deepseek.tensor([False, True])
    assert value not in deepseek.tensor([0, 2])


def test_contains_refuses() -> None:
    t = deepseek.tensor([0.0, 1.0])
    assert deepseek.tensor(1.0) in t and 1j not in t and (1 + 0j) in t
    for value in (None, "a", [1.0], np.array(1.0), np.ones(2)):
        with pytest.raises(RuntimeError, match="only supports Tensor or scalar"):
            _ = value in t


FACTORIES: dict[str, Callable[..., Any]] = {
    "tensor": lambda **k: deepseek.tensor([1.0], **k),
    "zeros": lambda **k: deepseek.zeros(2, **k),
    "ones": lambda **k: deepseek.ones(2, **k),
    "empty": lambda **k: deepseek.empty(2, **k),
    "full": lambda **k: deepseek.full((2,), 1.0, **k),
    "arange": lambda **k: deepseek.arange(3.0, **k),
    "linspace": lambda **k: deepseek.linspace(0, 1, 3, **k),
    "logspace": lambda **k: deepseek.logspace(0, 1, 3, **k),
    "eye": lambda **k: deepseek.eye(2, **k),
    "rand": lambda **k: deepseek.rand(2, **k),
    "randn": lambda **k: deepseek.randn(2, **k),
    "scalar_tensor": lambda **k: deepseek.scalar_tensor(1.0, **k),
    "zeros_like": lambda **k: deepseek.zeros_like(deepseek.ones(2), **k),
    "ones_like": lambda **k: deepseek.ones_like(deepseek.ones(2), **k),
    "empty_like": lambda **k: deepseek.empty_like(deepseek.ones(2), **k),
    "full_like": lambda **k: deepseek.full_like(deepseek.ones(2), 3.0, **k),
    "rand_like": lambda **k: deepseek.rand_like(deepseek.ones(2), **k),
    "randn_like": lambda **k: deepseek.randn_like(deepseek.ones(2), **k),
    "new_tensor": lambda **k: deepseek.ones(2).new_tensor([1.0], **k),
    "new_zeros": lambda **k: deepseek.ones(2).new_zeros(2, **k),
    "new_ones": lambda **k: deepseek.ones(2).new_ones(2, **k),
    "new_empty": lambda **k: deepseek.ones(2).new_empty(2, **k),
    "new_full": lambda **k: deepseek.ones(2).new_full((2,), 1.0, **k),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_factories_take_torchs_options(name: str) -> None:
    made = FACTORIES[name](dtype=deepseek.float64, device="cpu", requires_grad=True, pin_memory=False)
    assert made.dtype is deepseek.float64 and made.requires_grad
    with pytest.raises(RuntimeError, match="runs on the CPU only"):
        FACTORIES[name](device="cuda")


@pytest.mark.parametrize("name", ("randint", "randperm", "tril_indices", "triu_indices"))
def test_factories_of_integers_take_torchs_options(name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {"randint": (3, (2,)), "randperm": (3,)}
    made = getattr(deepseek, name)(
        *arguments.get(name, (2, 2)),
        dtype=deepseek.int64,
        device="cpu",
        **({} if "tri" in name else {"pin_memory": False}),
    )
    assert made.dtype is deepseek.int64
