"""``out=``: where it is taken, and that a refusal writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
import pytest


@pytest.mark.parametrize(
    "call",
    [
        lambda out: deepseek.unbind(deepseek.empty(0, 3), out=out),
        lambda out: deepseek.unbind(deepseek.ones(2, 3), out=out),
        lambda out: deepseek.ones(3).add_(1, out=out),
    ],
)
def test_lists_and_calls_in_place_have_none(call: Callable[[Any], Any]) -> None:
    out = deepseek.zeros(3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'out'"):
        call(out)
    assert out.eq(0).all()


def test_an_inference_tensor_is_refused_before_it_changes() -> None:
    with deepseek.inference_mode():
        out = deepseek.full((2,), 7.0)
    with pytest.raises(RuntimeError, match="inference"):
        deepseek.add(deepseek.ones(3), 1, out=out)
    assert out.tolist() == [7.0, 7.0]


def test_of_several_all_are_checked_before_one_is_written() -> None:
    values, indices = deepseek.zeros(2), deepseek.zeros(2, dtype=deepseek.bool)
    with pytest.raises(RuntimeError, match="can't be cast"):
        deepseek.topk(deepseek.arange(5.0), 2, out=(values, indices))
    assert values.tolist() == [0.0, 0.0]
