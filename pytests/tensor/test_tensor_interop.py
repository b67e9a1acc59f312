"""numpy and DLPack, both ways, with shared memory."""

from __future__ import annotations

import gc
import sys

import deepseek
import numpy as np
import pytest

NUMPY = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_both_ways_shares_memory(name: str) -> None:
    a = np.array([[0, 1, 1], [1, 0, 1]], dtype=name)
    x = deepseek.from_numpy(a)
    assert x.dtype == getattr(deepseek, name) and x.shape == (2, 3)
    back = x.numpy()
    assert back.dtype == a.dtype
    a[0, 0] = 1
    assert bool(x[0, 0]) and back[0, 0] == 1
    x[1, 1] = 1
    assert a[1, 1] == 1


def test_numpy_keeps_strides_and_lifetimes() -> None:
    a = np.arange(12.0).reshape(3, 4)
    assert deepseek.from_numpy(a.T).stride() == (1, 4) and deepseek.from_numpy(a[:, ::2]).tolist() == a[:, ::2].tolist()
    view = deepseek.arange(5.0)[1:].numpy()
    gc.collect()
    assert view.tolist() == [1.0, 2.0, 3.0, 4.0]
    x = deepseek.from_numpy(np.arange(1000.0))
    gc.collect()
    assert x[-1].item() == 999.0


def test_numpy_refusals() -> None:
    with pytest.raises(ValueError, match="negative|stride"):
        deepseek.from_numpy(np.arange(3.0)[::-1])
    with pytest.raises(TypeError, match="complex|object|dtype|support"):
        deepseek.from_numpy(np.array(["a"]))
    with pytest.raises(TypeError, match="ndarray"):
        deepseek.from_numpy([1, 2])
    with pytest.raises(RuntimeError, match="requires grad|detach"):
        deepseek.ones(2, requires_grad=True).numpy()


def test_numpy_of_bfloat16_needs_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # as if it were not installed
    with pytest.raises(TypeError, match="(?i)bfloat16.*ml_dtypes"):
        deepseek.ones(2, dtype=deepseek.bfloat16).numpy()


def test_numpy_functions_take_tensors() -> None:
    x = deepseek.tensor([1.0, 4.0])
    assert (
        np.asarray(x).tolist() == [1.0, 4.0]
        and np.array(x, dtype=np.int32).dtype == np.int32
        and np.sqrt(x).tolist() == [1.0, 2.0]
    )
    assert isinstance(x * np.float32(2), deepseek.Tensor) and isinstance(x + np.ones(2, np.float32), deepseek.Tensor)


@pytest.mark.parametrize("name", NUMPY)
def test_dlpack(name: str) -> None:
    a = np.array([0, 1, 1], dtype=name)
    x = deepseek.from_dlpack(a.copy())
    assert x.dtype == getattr(deepseek, name) and x.tolist() == a.tolist()
    y = deepseek.tensor(a)
    shared = np.from_dlpack(y)
    y[0] = 1
    assert shared[0] == 1
    again = deepseek.from_dlpack(y)
    assert again.data_ptr() == y.data_ptr() and again.dtype == y.dtype


def test_dlpack_keeps_memory_alive() -> None:
    shared = np.from_dlpack(deepseek.arange(1000))
    gc.collect()
    assert shared[-1] == 999
    assert deepseek.tensor(1.0).__dlpack_device__() == (1, 0)


def test_numpy_functions_that_call_the_method() -> None:
    """NumPy passes out=None to it."""
    x = deepseek.arange(6.0).view(2, 3)
    assert float(np.sum(x)) == 15.0 and np.sum(x, axis=1).tolist() == [3.0, 12.0]
