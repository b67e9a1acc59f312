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


def check_state_dict(state_dict: Any) -> None:
    """TypeError for what is no dict, with the way out where it is what people pass by mistake."""
    import os
    from collections.abc import Mapping

    if isinstance(state_dict, Mapping):
        return
    hint = ""
    if isinstance(state_dict, (str, os.PathLike)):
        safetensors = os.fspath(state_dict).endswith(".safetensors")
        reader = "deepseek.io.safetensors.load_file" if safetensors else "deepseek.load"
        hint = f" Read the file first: load_state_dict({reader}({os.fspath(state_dict)!r}))."
    elif callable(getattr(state_dict, "state_dict", None)):
        hint = " Pass its state: load_state_dict(other.state_dict())."
    raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.{hint}")
