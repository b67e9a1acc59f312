"""What functions written in Python say about arguments of wrong types; the core says the same of its ops' arguments."""

from __future__ import annotations

from deepseek import _C

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def check_tensor(function: str, name: str, value: Any) -> None:
    """TypeError, in the core's words, unless ``value`` is a Tensor."""
    if not isinstance(value, _C.Tensor):
        raise TypeError(f"{function}(): argument '{name}' must be Tensor, not {_C._given_for_tensor(value)}")
