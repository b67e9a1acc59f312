"""The norm of all gradients: value and dtype, for every order and mix of dtypes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import deepseek
import pytest
from torch_bridge import DTYPES

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parity

FLOATS = ("float32", "bfloat16", "float16", "float64")


def total(library: Any, dtypes: tuple[str, ...], order: float) -> Any:
    values = [library.tensor([3.0, -4.0, i + 0.5]).to(getattr(library, name)) for i, name in enumerate(dtypes)]
    return library.nn.utils.get_total_norm(values, order)


@pytest.mark.parametrize("order", (2.0, 1.0, math.inf, -math.inf, 3.0, 0.5, 0.0, -1.0))
def test_total_norm(order: float) -> None:
    for dtypes in itertools.chain(itertools.product(FLOATS), itertools.product(FLOATS, FLOATS)):
        ours, theirs = (total(library, dtypes, order) for library in (deepseek, torch))
        assert ours.dtype is DTYPES[theirs.dtype], f"{dtypes}: {ours.dtype} for torch's {theirs.dtype}"
        # torch rounds each norm to 16 bits before it takes the norm of them.
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6 if set(dtypes) <= {"float32", "float64"} else 1e-2)
