"""view(dtype): the same bytes as other numbers."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest

NUMPY = {
    "float32": np.float32,
    "float64": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "float16": np.float16,
}


@pytest.mark.parametrize("source", NUMPY)
@pytest.mark.parametrize("target", NUMPY)
def test_bytes_as_numpy_reads_them(source: str, target: str) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 16), np.uint8).view(NUMPY[source])
    x = deepseek.tensor(array)
    view = x.view(getattr(deepseek, target))
    assert view.dtype is getattr(deepseek, target)
    np.testing.assert_array_equal(view.numpy(), array.view(NUMPY[target]), strict=True)
    assert view.data_ptr() == x.data_ptr()
    np.testing.assert_array_equal(view.view(x.dtype).numpy(), array)


def test_parts_of_a_tensor() -> None:
    x = deepseek.arange(8.0).reshape(2, 4)
    array = x.numpy()
    assert x[:, 2:].view(deepseek.float64).numpy().tolist() == array[:, 2:].copy().view(np.float64).tolist()
    assert x.t().view(deepseek.int32).stride() == (1, 4)
    assert x.view(dtype=deepseek.int16).shape == (2, 8)
    assert x.expand(3, 2, 4).view(deepseek.int16).stride() == (0, 8, 1)
    assert deepseek.tensor(1.0).view(deepseek.int32).item() == 0x3F800000
    assert deepseek.zeros(2, 0).view(deepseek.int16).shape == (2, 0)
    assert x.view(deepseek.bfloat16).view(deepseek.float32).equal(x)


def test_writes_are_seen_through_both() -> None:
    x = deepseek.ones(2, 4)
    x.view(deepseek.int32)[0] = 0
    assert x.tolist() == [[0.0] * 4, [1.0] * 4]
    x[1] = -0.0
    assert (x.view(deepseek.int32)[1] == -(2**31)).all()


def test_no_gradient_flows_through() -> None:
    x = deepseek.ones(4, requires_grad=True)
    for dtype in (deepseek.float32, deepseek.float64, deepseek.int32):
        view = x.view(dtype)
        assert not view.requires_grad
        assert view.grad_fn is None


def test_a_write_through_it_is_noticed_by_backward() -> None:
    x = deepseek.ones(4, requires_grad=True)
    y = x * 2
    z = y * y
    y.view(deepseek.int32).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_in_a_captured_function() -> None:
    f = deepseek.jit(lambda x: x.view(deepseek.int32) + 1)
    for _ in range(3):
        x = deepseek.rand(3, 4)
        assert f(x).equal(x.view(deepseek.int32) + 1)


@pytest.mark.parametrize(
    ("x", "dtype", "match"),
    [
        (deepseek.ones(2, 4).t(), deepseek.int16, r"stride\(-1\) must be 1"),
        (deepseek.ones(2, 4)[:, ::2], deepseek.int16, r"stride\(-1\) must be 1"),
        (deepseek.ones(2, 4)[:, :3], deepseek.float64, r"size\(-1\) must be divisible by 2"),
        (deepseek.ones(2, 4)[:, 1:3], deepseek.float64, r"storage_offset\(\) must be divisible by 2"),
        (deepseek.zeros(3, 10, dtype=deepseek.uint8)[:, :8], deepseek.float32, r"stride\(0\) must be divisible by 4"),
        (deepseek.tensor(1.0), deepseek.float64, r"dim\(\) cannot be 0"),
    ],
)
def test_what_cannot_be_shown_is_refused(x: deepseek.Tensor, dtype: deepseek.dtype, match: str) -> None:
    with pytest.raises(RuntimeError, match=match):
        x.view(dtype)
