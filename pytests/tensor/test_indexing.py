"""x[...] and x[...] = v against numpy, and the places where the rules are PyTorch's."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
import pytest

# Evaluated with `t` making an index array: deepseek.tensor for the tensor, np.array for the reference.
BASIC = """
0 | -1 | 2 | ... | None | slice(None) | slice(1, 3) | slice(None, None, 2) | slice(-2, None) | slice(5, 2)
slice(0, 100) | slice(-100, 2) | (0, 1) | (0, ...) | (..., 0) | (slice(None), 1) | (0, slice(1, 3), 2)
(..., slice(None, None, 3)) | (None, 0) | (0, None) | (slice(None), None, 1) | (None, ..., None) | (1, 2, 3)
(-1, -1, -1) | (slice(0, 0),) | (0, ..., 1) | () | (slice(1, 2), slice(1, 2), slice(1, 2)) | (..., None, 0)
"""
ADVANCED = """
t([0, 2]) | t([2, 2, 0]) | t([[0, 1], [2, 0]]) | t([-1, 0]) | t(1) | [0, 2] | (t([0, 2]), t([1, 3]))
(t([0, 2]), 1) | (slice(None), t([0, 2])) | (slice(None), t([0, 2]), slice(1, 3)) | (..., t([0, 1]))
(t([0, 1]), ..., t([0, 1])) | (0, t([1, 2])) | (t([0, 1]), slice(None), t([1, 2]))
(slice(None), t([0, 1]), t([1, 2])) | (t([[0], [2]]), t([1, 3])) | (None, t([0, 1])) | (t([0, 1]), None)
(slice(0, 2), t([0, 1]), 0) | (t([0, 1]), None, t([1, 0])) | (slice(None), [0, 2], [1, 1])
([0, 1], [1, 2], [0, 4]) | (t([0, 1]), slice(None), slice(None, None, 2))
"""
BOOLEAN = """
t([True, False, True]) | [True, False, True] | (slice(None), t([True, False, False, True])) | x > 0 | x[:, :, 0] > 0
(t([True, True, False]), 0) | (t([True, False, True]), t([0, 1])) | (..., t([True, False, True, False, True]))
True | False | (t([True, False, True]), slice(1, 3)) | x > 1000 | (t([False, False, False]),)
(None, t([True, False, True])) | (0, x[0] > 0)
"""


def cases(text: str) -> list[str]:
    return [case.strip() for line in text.strip().splitlines() for case in line.split(" | ")]


ALL = cases(BASIC) + cases(ADVANCED) + cases(BOOLEAN)
ARRAY = (np.arange(60.0) * 7 % 61 - 20).reshape(3, 4, 5)


def index_of(case: str, x: Any, make: Any) -> Any:
    return eval(case, {"x": x, "t": make})


@pytest.mark.parametrize("case", ALL)
def test_getitem(case: str) -> None:
    x = deepseek.from_numpy(ARRAY.copy())
    np.testing.assert_array_equal(x[index_of(case, x, deepseek.tensor)].numpy(), ARRAY[index_of(case, ARRAY, np.array)])


@pytest.mark.parametrize("case", ALL)
def test_getitem_of_a_non_contiguous_tensor(case: str) -> None:
    storage = np.ascontiguousarray(ARRAY.transpose(2, 0, 1))
    x = deepseek.from_numpy(storage.copy()).permute(1, 2, 0)
    np.testing.assert_array_equal(x[index_of(case, x, deepseek.tensor)].numpy(), ARRAY[index_of(case, ARRAY, np.array)])


def unique_targets(case: str) -> bool:
    places = np.arange(60).reshape(3, 4, 5)[index_of(case, ARRAY, np.array)]
    return np.unique(places).size == places.size


@pytest.mark.parametrize("case", [case for case in ALL if unique_targets(case)])
@pytest.mark.parametrize("what", ["number", "tensor", "broadcast"])
def test_setitem(case: str, what: str) -> None:
    x, want = deepseek.from_numpy(ARRAY.copy()), ARRAY.copy()
    where, expected = index_of(case, x, deepseek.tensor), index_of(case, want, np.array)
    shape = want[expected].shape
    if what == "number":
        x[where] = 9
        want[expected] = 9
    else:
        value = (
            np.arange(100.0, 100.0 + np.prod(shape)).reshape(shape)
            if what == "tensor"
            else np.full((1,) * min(1, len(shape)), 5.5)
        )
        x[where] = deepseek.from_numpy(np.array(value))
        want[expected] = value
    np.testing.assert_array_equal(x.numpy(), want)


@pytest.mark.parametrize("case", ALL)
def test_gradient_of_getitem(case: str) -> None:
    x = deepseek.from_numpy(ARRAY.copy()).requires_grad_(True)
    picked = x[index_of(case, x.detach(), deepseek.tensor)]
    weights = np.arange(1.0, 1.0 + picked.numel()).reshape(tuple(picked.shape))
    picked.backward(deepseek.from_numpy(np.array(weights)))
    want = np.zeros_like(ARRAY)
    np.add.at(want, index_of(case, ARRAY, np.array), weights)
    np.testing.assert_array_equal(x.grad.numpy(), want)


@pytest.mark.parametrize("case", cases(BASIC))
def test_basic_indexing_is_a_view(case: str) -> None:
    x = deepseek.from_numpy(ARRAY.copy())
    part = x[index_of(case, x, deepseek.tensor)]
    part.fill_(1000.0)
    assert (x == 1000.0).sum().item() == part.numel()


@pytest.mark.parametrize("case", cases(ADVANCED) + cases(BOOLEAN))
def test_advanced_indexing_is_a_copy(case: str) -> None:
    if case in ("True",):
        pytest.skip("adds a dim of size 1: PyTorch leaves open whether it copies")
    x = deepseek.from_numpy(ARRAY.copy())
    part = x[index_of(case, x, deepseek.tensor)]
    if case in ("t(1)",):  # a 0-d integer tensor is an integer: a view in PyTorch
        return
    part.fill_(1000.0)
    assert not (x == 1000.0).any()


ERRORS = [
    ("x[3]", IndexError, "out of (range|bounds)"),
    ("x[-4]", IndexError, "out of (range|bounds)"),
    ("x[0, 0, 0, 0]", IndexError, "too many indices"),
    ("x[0, 9]", IndexError, "out of (range|bounds)"),
    ("x[t([0, 3])]", IndexError, "out of (range|bounds)"),
    ("x[t([0, -4])]", IndexError, "out of (range|bounds)"),
    ("x[t([0, 1]), t([0, 1, 2])]", IndexError, "broadcast|shape"),
    ("x[1.5]", IndexError, "integer|indices|valid"),
    ("x[t([0.5])]", IndexError, "long|int|bool"),
    ("x[t([True, False])]", IndexError, "mask|shape|match"),
    ("x[::-1]", ValueError, "step|greater"),
    ("x[::0]", (ValueError, RuntimeError), "step"),
    ("x['a']", (IndexError, TypeError), "indices|index|str"),
    ("s[0]", IndexError, "0-dim|scalar|too many"),
    ("x.__setitem__(0, t([1.0, 2.0, 3.0]))", RuntimeError, "shape|size|expand"),
    ("x.__setitem__(5, 1.0)", IndexError, "out of (range|bounds)"),
    ("x.__setitem__(0, 'a')", TypeError, "assign|str"),
    ("x.__delitem__(0)", (TypeError, AttributeError), "delet|delitem"),
]


@pytest.mark.parametrize(("text", "error", "match"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors(text: str, error: Any, match: str) -> None:
    with pytest.raises(error, match=f"(?i){match}"):
        eval(text, {"x": deepseek.zeros(3, 4, 5), "s": deepseek.tensor(1.0), "t": deepseek.tensor})


def test_uint8_masks_and_other_integer_types_index() -> None:
    x = deepseek.arange(10, 15)
    for name in ("int64", "int32"):
        assert x[deepseek.tensor([0, 4], dtype=getattr(deepseek, name))].tolist() == [10, 14]
    with pytest.warns(UserWarning, match="uint8|byte|bool"):
        assert x[deepseek.tensor([1, 0, 0, 0, 1], dtype=deepseek.uint8)].tolist() == [10, 14]


def test_an_integer_beside_an_index_tensor_is_a_select() -> None:
    """numpy would move the indexed dim to the front here."""
    x = deepseek.from_numpy(ARRAY.copy())
    np.testing.assert_array_equal(x[1, ..., deepseek.tensor([0, 3])].numpy(), ARRAY[1][..., [0, 3]])


def test_setitem_converts_dtype() -> None:
    x = deepseek.zeros(3, dtype=deepseek.int64)
    x[0] = 2.9
    x[1:] = deepseek.tensor([1.5, -1.5])
    assert x.tolist() == [2, 1, -1]


def test_iteration_len_and_contains() -> None:
    x = deepseek.arange(6).view(3, 2)
    assert len(x) == 3 and [row.tolist() for row in x] == [[0, 1], [2, 3], [4, 5]]
    assert 5 in x and 7 not in x
    *_, c = x
    assert c.tolist() == [4, 5]
    with pytest.raises(TypeError, match="0-d"):
        len(deepseek.tensor(1))
    with pytest.raises(TypeError, match="0-d"):
        iter(deepseek.tensor(1))


def test_an_index_from_an_item() -> None:
    x = deepseek.arange(5)
    assert (
        x[deepseek.tensor(2)].item() == 2
        and [10, 11, 12][deepseek.tensor(1)] == 11
        and x[x[1] : x[3]].tolist() == [1, 2]
    )


def test_index_add_multiplies_by_numbers_of_its_dtype() -> None:
    x, at = deepseek.zeros(2, dtype=deepseek.int8), deepseek.tensor([0])
    with pytest.raises(RuntimeError, match="300 cannot be converted to type int8 without overflow"):
        x.index_add(0, at, deepseek.ones(1, dtype=deepseek.int8), alpha=300)
    large = deepseek.zeros(1, dtype=deepseek.int64).index_add(0, at, deepseek.tensor([1]), alpha=2**53 + 1)
    assert large.item() == 2**53 + 1


def test_bincount_has_the_dtype_of_its_weights() -> None:
    x, none = deepseek.tensor([0, 2, 2]), deepseek.tensor([], dtype=deepseek.int64)
    for dtype, result in ((deepseek.float32, deepseek.float32), (deepseek.float16, deepseek.float64)):
        counts = x.bincount(deepseek.ones(3, dtype=dtype), minlength=4)
        assert counts.dtype == result and counts.tolist() == [1, 0, 2, 0]
    assert none.bincount(deepseek.ones(0), minlength=3).dtype == deepseek.int64
