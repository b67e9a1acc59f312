"""What every ``load_state_dict`` refuses alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def check_state_dict(state_dict: Any) -> None:
    """TypeError for what is no dict, with the way out where it is what people pass by mistake."""
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
