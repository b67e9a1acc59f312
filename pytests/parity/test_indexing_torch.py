"""The generator's indices, given to PyTorch: results, writes and refusals are the same."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
import pytest
import torch
from generators.indexing_cases import IndexCase, random_case

pytestmark = pytest.mark.filterwarnings("ignore")


def outcome(case: IndexCase, library: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """What is read, and all elements after a number was written there; None for a refusal. PyTorch's slices with a huge
    step overflow, which is a RuntimeError."""
    x = library.tensor(case.array().transpose(np.argsort(case.order)).copy()).permute(case.order)
    try:
        read = x[case.index(library.tensor)]
        x[case.index(library.tensor)] = 2.5
        return read.numpy(), x.numpy()
    except (IndexError, ValueError):
        return None


def test_the_generators_indices_do_the_same_in_torch() -> None:
    for number in range(1500):
        case = random_case(number)
        for e in case.entries:  # PyTorch takes a NumPy mask for one dim when it looks for the place of an ellipsis
            e.form = "tensor" if isinstance(e.value, np.ndarray) and e.form == "as it is" else e.form
        ours = outcome(case, deepseek)
        try:
            theirs = outcome(case, torch)
        except RuntimeError as error:
            assert "Negative strides" in str(error) or "overflowed" in str(error), case
            continue
        if ours is None:  # PyTorch does not look for positions out of range where nothing is selected
            assert theirs is None or theirs[0].size == 0, case
            continue
        assert theirs is not None, case
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=str(case), strict=True)
