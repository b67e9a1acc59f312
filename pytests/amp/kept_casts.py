"""What tests of autocast's kept casts share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import deepseek
import pytest
from deepseek import _C, bfloat16, float16

LOW = (bfloat16, float16)


def kept() -> int:
    """Casts that are kept in this thread."""
    return _C._autocast_cache_size()


def weight(*size: int) -> Any:
    deepseek.manual_seed(3)
    return deepseek.randn(*(size or (4, 4))).requires_grad_()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    assert kept() == 0
    yield
    assert kept() == 0 and deepseek.is_autocast_cache_enabled()
