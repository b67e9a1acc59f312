"""Attention with arguments of all sorts against its formula: dims, masks, dtypes, layouts, queries that see nothing."""

from __future__ import annotations

import deepseek
import numpy as np
from cases import cases
from deepseek.nn import functional as F
from generators.attention_cases import AttentionCase, call, formula, random_case, tolerance

USUAL = 400


def check(case: AttentionCase) -> None:
    out, leaves = call(case, deepseek, F.scaled_dot_product_attention)
    assert out.dtype is getattr(deepseek, case.dtype)
    for name, ours, want in zip(
        ("out", "dq", "dk", "dv"), [out.detach(), *(leaf.grad for leaf in leaves)], formula(case), strict=True
    ):
        got = ours.double().numpy()
        assert got.shape == want.shape, name
        allowed = tolerance(case) * max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=0, atol=allowed, err_msg=name)


def test_random_attention() -> None:
    for number in cases(USUAL):
        case = random_case(number)
        try:
            check(case)
        except Exception as e:
            raise AssertionError(str(case)) from e
