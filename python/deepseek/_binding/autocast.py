"""What autocast does to functions that are composed in Python. Ops of the core say it in their ``info``."""

from __future__ import annotations

import functools

from deepseek import _C
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])


def _float32(value: Any) -> Any:
    narrow = isinstance(value, Tensor) and value.is_floating_point() and value.dtype is not _C.float64
    return _C._to_dtype(value, _C.float32) if narrow and value.dtype is not _C.float32 else value


def autocast_float32(value: Any) -> Any:
    """``value``, which is float32 instead of a 16-bit dtype while autocast is on."""
    return _float32(value) if _C._autocast_enabled() else value


def runs_without_autocast(function: F) -> F:
    """The ops that ``function`` calls are not cast, whatever it is called under."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not _C._autocast_enabled():
            return function(*args, **kwargs)
        before = _C._autocast_state()
        _C._set_autocast(False, before[1])
        try:
            return function(*args, **kwargs)
        finally:
            _C._set_autocast(*before)

    return wrapper  # type: ignore[return-value]


def runs_in_float32(function: F) -> F:
    """Under autocast ``function`` gets float32 for its tensors of 16 bits, and the ops that it calls are not cast."""
    inner = runs_without_autocast(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not _C._autocast_enabled():
            return function(*args, **kwargs)
        return inner(*map(_float32, args), **{name: _float32(value) for name, value in kwargs.items()})

    return wrapper  # type: ignore[return-value]
