"""NumPy and DLPack exchange: geometry of every kind, lifetimes, capsules, refusals.

Made to run under AddressSanitizer too (`make asan`): what is wrong here reads freed memory sooner than it fails.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import deepseek
import dlpack_capsules as capsules
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

NUMPY = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
EXTENDED = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]


def live_bytes() -> int:
    gc.collect()
    return deepseek.memory_stats()["allocated_bytes"]


def filled(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return (np.arange(math.prod(shape)) % (2 if dtype == "bool" else 100)).reshape(shape).astype(dtype)


# --- geometry ---------------------------------------------------------------------------------------------------------
@st.composite
def strided_arrays(draw: Any, negative: bool) -> np.ndarray:
    """A view of a fresh array: offsets, steps, permuted and broadcast dims, no dims, no elements."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    a = filled(shape, draw(st.sampled_from(NUMPY)))
    a = a.transpose(draw(st.permutations(range(a.ndim))))
    steps = st.sampled_from([1, 2, 3, -1, -2] if negative else [1, 2, 3])
    for axis in range(a.ndim):
        step, start = draw(steps), draw(st.integers(0, 2))
        a = np.moveaxis(np.moveaxis(a, axis, 0)[start:][::step], 0, axis)
    if draw(st.booleans()):
        a = np.lib.stride_tricks.as_strided(a, (3, *a.shape), (0, *a.strides))
    return a


@given(strided_arrays(negative=False))
def test_from_numpy_and_back(a: np.ndarray) -> None:
    x = deepseek.from_numpy(a)
    assert tuple(x.shape) == a.shape and str(x.dtype) == f"deepseek.{a.dtype}"
    assert x.tolist() == a.tolist()
    back = x.numpy()
    assert back.dtype == a.dtype and back.shape == a.shape
    if a.size:
        assert x.data_ptr() == a.ctypes.data == back.ctypes.data
        assert [s * a.itemsize for s in x.stride()] == list(a.strides) == list(back.strides)


@given(strided_arrays(negative=True))
def test_from_dlpack_and_back(a: np.ndarray) -> None:
    for x in (deepseek.from_dlpack(a), deepseek.from_dlpack(deepseek.from_dlpack(a))):
        assert tuple(x.shape) == a.shape and str(x.dtype) == f"deepseek.{a.dtype}"
        assert x.tolist() == a.tolist()
        for back in (x.numpy(), np.from_dlpack(x)):
            np.testing.assert_array_equal(back, a)
            assert not a.size or back.ctypes.data == a.ctypes.data


OPS: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = {
    "contiguous": (lambda x: x.contiguous(), lambda a: a),
    "clone": (lambda x: x.clone(), lambda a: a),
    "cast": (lambda x: x.to(deepseek.float64), lambda a: a),
    "reshape": (lambda x: x.reshape(-1), lambda a: a.reshape(-1)),
    "transpose": (lambda x: x.mT, lambda a: a.swapaxes(-1, -2)),
    "slice": (lambda x: x[..., 1:], lambda a: a[..., 1:]),
    "step": (lambda x: x[::2], lambda a: a[::2]),
    "index": (lambda x: x[[1, 0]], lambda a: a[[1, 0]]),
    "flip": (lambda x: x.flip(0), lambda a: a[::-1]),
    "add": (lambda x: x + x.clone(), lambda a: a + a),
    "sum": (lambda x: x.sum(0), lambda a: a.sum(0)),
    "sum of the last dim": (lambda x: x.sum(-1), lambda a: a.sum(-1)),
    "max": (lambda x: x.amax(-1), lambda a: a.max(-1)),
    "argmax": (lambda x: x.argmax(1), lambda a: a.argmax(1)),
    "cumsum": (lambda x: x.cumsum(0), lambda a: a.cumsum(0)),
    "sort": (lambda x: x.sort(-1)[0], lambda a: np.sort(a, -1)),
    "matmul": (lambda x: x @ x.mT, lambda a: a @ a.swapaxes(-1, -2)),
    "matmul on the right": (lambda x: x.clone().mT @ x, lambda a: a.swapaxes(-1, -2) @ a),
    "cat": (lambda x: deepseek.cat([x, x], 1), lambda a: np.concatenate([a, a], 1)),
    "where": (lambda x: deepseek.where(x > 4, x, -x), lambda a: np.where(a > 4, a, -a)),
    "written through": (lambda x: x.clone().copy_(x * 2), lambda a: a * 2),
    "as numpy": (lambda x: x.numpy(), lambda a: a),
}


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("steps", [(-1, 1), (1, -1), (-1, -1), (-2, -1)])
def test_ops_on_negative_strides(name: str, steps: tuple[int, int]) -> None:
    """Only DLPack brings them in; from_numpy refuses them, as PyTorch does."""
    a = filled((4, 5), "float32")[:: steps[0], :: steps[1]]
    ours, numpy = OPS[name]
    x = deepseek.from_dlpack(a)
    assert min(x.stride()) < 0
    np.testing.assert_array_equal(np.asarray(ours(x)), numpy(a))


@pytest.mark.parametrize("make", [deepseek.from_numpy, deepseek.from_dlpack])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)])
def test_there_is_nothing_to_read_in_no_elements(make: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    x = make(np.zeros(shape))
    assert x.shape == shape and x.numpy().shape == shape and x.sum().item() == 0
    with pytest.raises(RuntimeError, match="out of bounds"):
        x.as_strided((1,), (1,))


def test_the_memory_of_a_view_ends_where_the_view_ends() -> None:
    x = deepseek.from_numpy(np.arange(10.0)[2:9:3])
    assert x.as_strided((7,), (1,)).tolist() == list(range(2, 9))
    with pytest.raises(RuntimeError, match="out of bounds"):
        x.as_strided((8,), (1,))


@pytest.mark.parametrize("make", [deepseek.from_numpy, deepseek.from_dlpack, np.asarray, np.from_dlpack])
def test_writes_are_seen_on_both_sides(make: Callable[[Any], Any]) -> None:
    source = np.zeros((3, 4)) if make in (deepseek.from_numpy, deepseek.from_dlpack) else deepseek.zeros(3, 4)
    target = make(source)
    source[1, ::2] = 5
    target[..., 3] = 7
    want = [[0, 0, 0, 7], [5, 0, 5, 7], [0, 0, 0, 7]]
    assert source.tolist() == want and target.tolist() == want


# --- dtypes -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", EXTENDED)
def test_dtypes_that_numpy_has_only_with_ml_dtypes(name: str) -> None:
    x = deepseek.tensor([[1.0, -2.0, 0.5]] * 2, dtype=getattr(deepseek, name))[:, 1:]
    array = x.numpy()
    assert array.dtype.name == name and array.astype(float).tolist() == [[-2.0, 0.5]] * 2
    back = deepseek.from_numpy(array)
    assert back.dtype == x.dtype and back.data_ptr() == x.data_ptr() and back.stride() == x.stride()
    again = deepseek.from_dlpack(x)
    assert again.dtype == x.dtype and again.data_ptr() == x.data_ptr()
    with pytest.raises((BufferError, RuntimeError, TypeError)):
        np.from_dlpack(x)  # NumPy refuses what it has no type for; the unused capsule frees itself


STRUCTURED = np.zeros(2, [("a", "f4"), ("b", "i4")])
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (np.zeros(2, ">f4"), ValueError, "byte order"),
    (np.zeros(2, ">i8"), ValueError, "byte order"),
    (STRUCTURED, TypeError, "supported types"),
    (np.array([None, 1]), TypeError, "supported types"),
    (np.array(["text"]), TypeError, "supported types"),
    (np.array([b"text"]), TypeError, "supported types"),
    (np.zeros(2, "datetime64[s]"), TypeError, "supported types"),
    (np.zeros(2, "complex64"), TypeError, "supported types"),
    (np.zeros(2, "uint16"), TypeError, "supported types"),
    (np.zeros(2, "longdouble"), TypeError, "supported types"),
    (np.zeros(2, "V4"), TypeError, "supported types"),
    (STRUCTURED["b"][:1].repeat(3)[::-1], ValueError, "negative"),
    (np.zeros(3, [("a", "i1"), ("b", "f4")])["b"], ValueError, "strides"),
    (np.zeros((1,) * 9), RuntimeError, "dim"),
    ([1.0, 2.0], TypeError, "np.ndarray"),
    (np.float32(1), TypeError, "np.ndarray"),
    (memoryview(b"1234"), TypeError, "np.ndarray"),
    (None, TypeError, "np.ndarray"),
]


@pytest.mark.parametrize("case", REFUSED, ids=[f"{type(v).__name__} {getattr(v, 'dtype', '')}" for v, _, _ in REFUSED])
def test_arrays_that_are_refused(case: tuple[Any, type[Exception], str]) -> None:
    value, error, text = case
    with pytest.raises(error, match=text):
        deepseek.from_numpy(value)


def test_fields_of_structured_arrays_share_memory_where_aligned() -> None:
    a = STRUCTURED.copy()
    x = deepseek.from_numpy(a["b"])
    x.add_(3)
    assert x.stride() == (2,) and a["b"].tolist() == [3, 3] and a["a"].tolist() == [0, 0]


def test_unaligned_memory_is_copied_or_refused() -> None:
    a = np.frombuffer(b"\0" + np.arange(3, dtype=np.float32).tobytes(), np.float32, offset=1)
    assert not a.flags.aligned
    with pytest.raises(ValueError, match="aligned.*Copy"):
        deepseek.from_numpy(a)
    for make in (deepseek.tensor, deepseek.as_tensor, lambda v: deepseek.tensor([v, v])[0]):
        assert make(a).tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(BufferError, match="aligned|unaligned"):
        deepseek.from_dlpack(capsules.Producer(a).capsule)


def test_numpy_scalars_are_values() -> None:
    for value, dtype in ((np.float32(2.5), deepseek.float32), (np.int64(3), deepseek.int64), (np.bool_(True), None)):
        x = deepseek.tensor(value)
        assert x.shape == () and x.item() == value.item() and (dtype is None or x.dtype == dtype)
    assert deepseek.tensor([np.float64(1), np.float64(2)]).tolist() == [1.0, 2.0]
    assert deepseek.as_tensor(np.float64(7)).item() == 7.0


# --- lifetimes --------------------------------------------------------------------------------------------------------
LINKS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda t: deepseek.from_numpy(t.numpy()),
    "dlpack": deepseek.from_dlpack,
    "numpy's dlpack": lambda t: deepseek.from_dlpack(np.from_dlpack(t)),
    "capsule": lambda t: deepseek.from_dlpack(t.__dlpack__()),
    "new capsule": lambda t: deepseek.from_dlpack(t.__dlpack__(max_version=(1, 0))),
    "asarray": lambda t: deepseek.as_tensor(np.asarray(t)),
    "view": lambda t: t[1:],
    "transpose": lambda t: t.mT,
    "detach": lambda t: t.detach(),
}


@settings(max_examples=50)
@given(st.lists(st.sampled_from(sorted(LINKS)), min_size=1, max_size=8), st.randoms())
def test_the_last_holder_keeps_the_memory(names: list[str], random: Any) -> None:
    before = live_bytes()
    holders = [deepseek.arange(10_000.0).reshape(100, 100)]
    want = holders[0].numpy().copy()
    for name in names:
        holders.append(LINKS[name](holders[-1]))
        want = want[1:] if name == "view" else want.T if name == "transpose" else want
    last = holders.pop()
    random.shuffle(holders)
    while holders:
        holders.pop()
    assert live_bytes() >= before + 40_000
    np.testing.assert_array_equal(last.numpy(), want)
    del last
    assert live_bytes() == before


@pytest.mark.parametrize("make", [deepseek.from_numpy, deepseek.from_dlpack])
def test_an_array_lives_as_long_as_a_tensor_on_it(make: Callable[[Any], Any]) -> None:
    a = np.arange(100.0)
    gone = weakref.ref(a)
    x = make(a)
    del a
    part = x[90:]
    del x
    assert gone() is not None and part.tolist() == list(range(90, 100))
    w = deepseek.ones(10, dtype=deepseek.float64, requires_grad=True)
    loss = (w * part).sum()
    del part
    assert gone() is not None  # the graph has saved it
    loss.backward()
    assert w.grad.tolist() == list(range(90, 100)) and gone() is None


def test_a_tensor_and_its_array_are_no_cycle() -> None:
    before = live_bytes()
    x = deepseek.ones(1000)
    x.array = x.numpy()
    x.shared = np.from_dlpack(x)
    del x
    assert live_bytes() == before


def test_a_cycle_through_an_attribute_is_collected() -> None:
    before = live_bytes()
    holder: dict[str, Any] = {"x": deepseek.ones(1000)}
    holder["x"].holder = holder
    holder["array"] = holder["x"].numpy()
    del holder
    assert live_bytes() == before


# --- capsules ---------------------------------------------------------------------------------------------------------
VERSIONS = [None, (1, 0)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_capsule_is_consumed_once(version: Any) -> None:
    before = live_bytes()
    x = deepseek.arange(1000)
    capsule = x.__dlpack__(max_version=version)
    y = deepseek.from_dlpack(capsule)
    assert capsules.name(capsule).startswith("used_dltensor")
    for _ in range(2):
        with pytest.raises(BufferError, match="consumed only once"):
            deepseek.from_dlpack(capsule)
    del x, capsule
    assert y.tolist() == list(range(1000))
    del y
    assert live_bytes() == before


@pytest.mark.parametrize("version", VERSIONS)
def test_a_capsule_nobody_consumes_frees_its_memory(version: Any) -> None:
    before = live_bytes()
    x = deepseek.ones(1000)
    capsule = x.__dlpack__(max_version=version)
    del x
    assert live_bytes() > before
    del capsule
    assert live_bytes() == before
    with pytest.raises(BufferError):
        deepseek.from_dlpack(deepseek.ones(1000, requires_grad=True).__dlpack__(max_version=version))
    assert live_bytes() == before


ARGUMENTS: list[tuple[dict[str, Any], str | None]] = [
    ({}, "dltensor"),
    ({"max_version": None}, "dltensor"),
    ({"max_version": (0, 8)}, "dltensor"),
    ({"max_version": (1, 0)}, "dltensor_versioned"),
    ({"max_version": (1, 9)}, "dltensor_versioned"),
    ({"max_version": (2, 0)}, "dltensor_versioned"),
    ({"stream": None, "dl_device": (1, 0), "copy": False}, "dltensor"),
    ({"stream": 5}, None),
    ({"dl_device": (2, 0)}, None),
]


@pytest.mark.parametrize(("arguments", "name"), ARGUMENTS)
def test_arguments_of_dlpack(arguments: dict[str, Any], name: str | None) -> None:
    x = deepseek.ones(2)
    if name is None:
        with pytest.raises(BufferError, match="__dlpack__"):
            x.__dlpack__(**arguments)
    else:
        assert capsules.name(x.__dlpack__(**arguments)) == name
    assert x.__dlpack_device__() == (1, 0)


def test_a_copy_is_one_and_says_so() -> None:
    x = deepseek.ones(2)
    copied, shared = x.__dlpack__(max_version=(1, 0), copy=True), x.__dlpack__(max_version=(1, 0))
    assert capsules.flags(copied) == 2 and capsules.flags(shared) == 0
    y = deepseek.from_dlpack(copied)
    y.add_(1)
    assert x.tolist() == [1.0, 1.0] and y.tolist() == [2.0, 2.0]
    assert np.from_dlpack(x, copy=True).ctypes.data != x.data_ptr()


A = np.arange(12, dtype=np.float32).reshape(3, 4)
FOREIGN: list[tuple[dict[str, Any], Any]] = [
    ({}, A.tolist()),
    ({"versioned": True}, A.tolist()),
    ({"without_strides": True}, A.tolist()),
    ({"without_deleter": True}, A.tolist()),
    ({"versioned": True, "without_deleter": True}, A.tolist()),
    ({"ndim": 0, "byte_offset": 16}, 4.0),
    ({"device_type": 2}, "device"),
    ({"lanes": 4}, "lanes"),
    ({"code": 5, "bits": 64}, "dtype"),
    ({"bits": 128}, "dtype"),
    ({"ndim": 9}, "dimensions"),
    ({"byte_offset": 2}, "aligned"),
    ({"versioned": True, "major": 2}, "version 2"),
]


@pytest.mark.parametrize(("fields", "want"), FOREIGN)
def test_capsules_of_other_producers(fields: dict[str, Any], want: Any) -> None:
    producer = capsules.Producer(A, **fields)
    if isinstance(want, str):
        with pytest.raises(BufferError, match=want):
            deepseek.from_dlpack(producer.capsule)
        assert capsules.name(producer.capsule).startswith("dltensor") and producer.deleted == 0
        return
    x = deepseek.from_dlpack(producer.capsule)
    assert capsules.name(producer.capsule).startswith("used_dltensor")
    part = x[...]
    assert x.tolist() == want and producer.deleted == 0
    del x
    assert producer.deleted == 0
    del part
    assert producer.deleted == (0 if "without_deleter" in fields else 1)


@pytest.mark.parametrize("value", [3, [1.0], "text", None])
def test_what_is_no_exporter(value: Any) -> None:
    with pytest.raises(TypeError, match="__dlpack__"):
        deepseek.from_dlpack(value)


# --- autograd ---------------------------------------------------------------------------------------------------------
def test_tensors_that_require_grad_are_detached_by_hand() -> None:
    x = deepseek.ones(2, requires_grad=True)
    for export in (x.numpy, lambda: np.asarray(x), lambda: np.sqrt(x), lambda: (x * 2).numpy()):
        with pytest.raises(RuntimeError, match="requires grad.*detach"):
            export()
    for version in VERSIONS:
        with pytest.raises(BufferError, match="require gradient.*detach"):
            x.__dlpack__(max_version=version)
    for export in (lambda: x.detach().numpy(), lambda: x.numpy(force=True), lambda: np.from_dlpack(x.detach())):
        assert export().ctypes.data == x.data_ptr()
    with deepseek.no_grad(), pytest.raises(RuntimeError, match="requires grad"):
        x.numpy()


def test_a_write_from_outside_is_not_counted() -> None:
    """As in PyTorch: nobody tells the tensor, so the derivative reads what is there by then."""
    a = np.array([1.0, 2.0])
    w = deepseek.ones(2, dtype=deepseek.float64, requires_grad=True)
    x = deepseek.from_numpy(a)
    loss = (w * x).sum()
    a[:] = 5
    assert x._version == 0
    loss.backward()
    assert w.grad.tolist() == [5.0, 5.0]
    loss = (w * x).sum()
    deepseek.from_numpy(a).add_(1)  # another storage on the same memory: its own counter
    assert x._version == 0
    deepseek.as_tensor(x).add_(1)  # the same tensor
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- numpy's own protocol ---------------------------------------------------------------------------------------------
def test_arguments_of_array() -> None:
    x = deepseek.tensor([1.5, 2.5])
    assert x.__array__().ctypes.data == x.data_ptr()
    assert np.array(x).ctypes.data != x.data_ptr() and np.asarray(x).ctypes.data == x.data_ptr()
    assert x.__array__(np.int64).tolist() == [1, 2] and np.asarray(x, dtype="f8").dtype == np.float64
    assert x.__array__(copy=True).ctypes.data != x.data_ptr()
    assert x.__array__(np.float32, copy=False).ctypes.data == x.data_ptr()
    with pytest.raises(ValueError, match="copy"):
        x.__array__(np.float64, copy=False)
    assert np.asarray(deepseek.tensor(3)).shape == () and np.asarray(deepseek.ones(0, 3)).shape == (0, 3)


def test_bytes_that_are_no_bools_are_refused() -> None:
    bytes_ = np.array([[0, 2], [255, 1]], np.uint8)
    for make in (
        lambda: deepseek.from_numpy(bytes_.view(bool)),
        lambda: deepseek.tensor(bytes_).view(deepseek.bool),
        lambda: deepseek.tensor(bytes_).t().view(deepseek.bool),
        lambda: deepseek.tensor(np.array([513], np.int16)).view(deepseek.bool),
    ):
        with pytest.raises(RuntimeError, match="bytes other than 0 and 1.*x != 0"):
            make()
    mask = deepseek.tensor(bytes_ // 128).view(deepseek.bool)
    np.testing.assert_array_equal(mask.numpy(), [[False, False], [True, False]])
    mask.view(deepseek.uint8).fill_(7)  # what is chosen stays what is not zero, and within its memory
    np.testing.assert_array_equal(deepseek.arange(4).reshape(2, 2)[mask].numpy(), [0, 1, 2, 3])
    assert mask.nonzero().shape == (4, 2)
