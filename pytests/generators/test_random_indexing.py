"""Indices of all sorts, mixed: reading, writing, and their gradients, against positions that NumPy works out."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
import pytest
from cases import cases
from generators.indexing_cases import IndexCase, numpy_agrees, positions, random_case

USUAL = 600


def tensor_of(array: np.ndarray) -> deepseek.Tensor:
    return deepseek.tensor(array)


def made(case: IndexCase) -> tuple[deepseek.Tensor, np.ndarray]:
    """The tensor and its array, both a permutation of contiguous memory."""
    array = case.array()
    back = np.argsort(case.order)
    return deepseek.tensor(array.transpose(back).copy()).permute(case.order), array


def summed_to(array: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    while array.ndim > len(sizes):
        array = array.sum(0)
    for d, s in enumerate(sizes):
        if s != array.shape[d]:
            array = array.sum(d, keepdims=True)
    return array


def check(case: IndexCase) -> None:
    x, array = made(case)
    index = case.index(tensor_of)
    try:
        at = positions(case)
    except (IndexError, ValueError):
        with pytest.raises(IndexError):
            x[index]
        with pytest.raises(IndexError):
            x[index] = 0.0
        return
    flat = array.reshape(-1)
    if numpy_agrees(case):
        with_numpy = array[tuple(e.value for e in case.entries)]
        np.testing.assert_array_equal(flat[at], with_numpy, strict=True)
    read = x[index]
    np.testing.assert_array_equal(read.numpy(), flat[at], strict=True)

    weights = np.random.default_rng(case.seed).normal(size=at.shape)
    leaf = x.detach().clone().requires_grad_()
    (leaf[index] * deepseek.tensor(weights)).sum().backward()
    want = np.bincount(at.reshape(-1), weights.reshape(-1), minlength=array.size).reshape(array.shape)
    np.testing.assert_allclose(gradient(leaf), want, rtol=1e-12, atol=1e-12)
    check_writing(case, x, array, at)


def gradient(leaf: deepseek.Tensor) -> Any:
    return np.zeros(tuple(leaf.shape)) if leaf.grad is None else leaf.grad.numpy()


def check_writing(case: IndexCase, x: deepseek.Tensor, array: np.ndarray, at: np.ndarray) -> None:
    index = case.index(tensor_of)
    unique = np.unique(at).size == at.size
    values = case.values(at.shape) if unique else np.array(1.5)
    want = array.reshape(-1).copy()
    leading = values
    while leading.ndim > at.ndim:
        leading = leading[0]
    want[at] = leading
    target = x.clone()
    target[index] = 1.5 if values.ndim == 0 and not unique else tensor_of(values)
    np.testing.assert_array_equal(target.numpy(), want.reshape(array.shape))
    through = x.clone()
    through.permute(tuple(range(x.dim())))[index] = values if values.ndim else float(values)  # an array, through a view
    np.testing.assert_array_equal(through.numpy(), want.reshape(array.shape))
    if not unique:
        return
    rng = np.random.default_rng(case.seed + 2)
    weights = rng.normal(size=array.shape)
    leaf, source = x.detach().clone().requires_grad_(), tensor_of(values).requires_grad_()
    written = leaf * 1.0
    written[index] = source
    (written * deepseek.tensor(weights)).sum().backward()
    kept = weights.reshape(-1).copy()
    kept[at] = 0
    np.testing.assert_array_equal(gradient(leaf), kept.reshape(array.shape))
    picked = weights.reshape(-1)[at]
    np.testing.assert_allclose(
        gradient(source).reshape(leading.shape), summed_to(picked, leading.shape), rtol=1e-12, atol=1e-12
    )


def test_random_indices() -> None:
    for number in cases(USUAL):
        case = random_case(number)
        try:
            check(case)
        except Exception as e:
            raise AssertionError(str(case)) from e
