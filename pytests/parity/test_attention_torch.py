"""The generator's attention calls, given to PyTorch: shapes, dtypes and values of the result; gradients too, where
PyTorch's own are right (its kernel loses the logarithm of a sum beside a mask of large numbers)."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
import torch
from generators.attention_cases import call, formula, random_case, tolerance

pytestmark = pytest.mark.filterwarnings("ignore")
LARGE = ("lowest", "lowest and more", "large")


def test_the_generators_attention_is_the_same_in_torch() -> None:
    for number in range(500):
        case = random_case(number)
        ours, our_leaves = call(case, deepseek, deepseek.nn.functional.scaled_dot_product_attention)
        theirs, their_leaves = call(case, torch, torch.nn.functional.scaled_dot_product_attention)
        assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1], case
        pairs = [(ours.detach(), theirs.detach())]
        if case.what not in LARGE:
            pairs += [(a.grad, b.grad) for a, b in zip(our_leaves, their_leaves, strict=True)]
        for (a, b), want in zip(pairs, formula(case), strict=False):
            allowed = 2 * tolerance(case) * max(1.0, float(np.abs(want).max(initial=0)))
            np.testing.assert_allclose(a.double().numpy(), b.double().numpy(), rtol=0, atol=allowed, err_msg=str(case))
