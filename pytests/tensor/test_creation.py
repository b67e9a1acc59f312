"""Ranges of numbers up to the limits of their types."""

from __future__ import annotations

import math

import deepseek
import pytest

MAX, MIN = 2**63 - 1, -(2**63)


@pytest.mark.parametrize(
    "args",
    [
        (0, MAX, 2**62),
        (MIN, MAX, 2**62),
        (MAX, MIN, -(2**62)),
        (0, MIN, -(2**62)),
        (MIN, MIN + 3, 1),
        (MAX - 3, MAX, 1),
        (MIN, 0, MAX),
        (MAX, MIN, MIN),
        (2**53, 2**53 + 5, 2),
        (5, 5, -1),
    ],
)
def test_integers_are_counted_exactly(args: tuple[int, int, int]) -> None:
    assert deepseek.arange(*args).tolist() == list(range(*args))


@pytest.mark.parametrize(
    "args", [(MIN, MAX, 1), (MIN, MAX), (0.0, 1e30), (0, 1e19, 1), (0, 1, 2**-70), (0.0, 1.0, 5e-324)]
)
def test_more_than_can_be_counted_is_refused(args: tuple[float, ...]) -> None:
    with pytest.raises(RuntimeError, match="more elements than an int64 can count"):
        deepseek.arange(*args)


@pytest.mark.parametrize("args", [(0, 5, math.nan), (math.nan, 5), (0, math.inf), (3, 0, 1), (0, 3, -1), (0, 5, 0)])
def test_ranges_that_make_no_sense_are_refused(args: tuple[float, ...]) -> None:
    with pytest.raises(RuntimeError, match="arange: "):
        deepseek.arange(*args)


def test_bounds_beyond_the_dtype_are_refused() -> None:
    with pytest.raises(RuntimeError, match="without overflow"):
        deepseek.arange(0.0, 1e30, 1e29, dtype=deepseek.int64)
    with pytest.raises(RuntimeError, match="without overflow"):
        deepseek.linspace(0, 300, 3, dtype=deepseek.uint8)


def test_linspace_at_the_limits() -> None:
    assert deepseek.linspace(0, MAX, 3, dtype=deepseek.int64).tolist() == [0, MAX // 2, MAX]
    assert deepseek.linspace(MIN, MAX, 2, dtype=deepseek.int64).tolist() == [MIN, MAX]
    near = 2**53 + 1
    assert deepseek.linspace(near, near + 4, 5, dtype=deepseek.int64).tolist() == list(range(near, near + 5))
    assert deepseek.linspace(0, 10, 5, dtype=deepseek.int32).tolist() == [0, 2, 5, 7, 10]
    most = float(deepseek.finfo(deepseek.float64).max)
    assert deepseek.linspace(-most, most, 3, dtype=deepseek.float64).tolist() == [-most, 0.0, most]


def test_triangles_of_huge_matrices_are_counted_exactly() -> None:
    far = 2**62
    assert deepseek.tril_indices(far, 0).shape == deepseek.triu_indices(0, far).shape == (2, 0)
    assert deepseek.tril_indices(far, far, -(2**63)).shape == deepseek.triu_indices(far, far, 2**63 - 1).shape == (2, 0)
    assert deepseek.tril_indices(far, far, 1 - far).tolist() == [[far - 1], [0]]
    assert deepseek.triu_indices(far, far, far - 1).tolist() == [[0], [far - 1]]
    assert deepseek.tril_indices(2, 2, 2**63 - 1).shape == deepseek.triu_indices(2, 2, -(2**63)).shape == (2, 4)
