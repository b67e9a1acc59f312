"""Whose globals are watched (csrc/python/jit_walk.cc asks; it finds the state a captured function can see)."""

from __future__ import annotations

import functools
import sys
import sysconfig
from pathlib import Path

from deepseek._missing import guard

__all__ = ["is_library"]


@functools.cache
def _library_folders() -> tuple[str, ...]:
    names = ("stdlib", "purelib", "platlib")
    return tuple({str(Path(sysconfig.get_path(name)).resolve()) for name in names})


def is_library(module_name: str) -> bool:
    """Code of deepseek, the standard library or an installed package: its globals are not watched."""
    if module_name.partition(".")[0] in ("deepseek", "builtins"):
        return True
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if file is None:
        return module_name in sys.builtin_module_names
    return str(Path(file).resolve()).startswith(_library_folders())


guard(__name__)
