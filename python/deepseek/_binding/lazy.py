"""Names of the package that load on first use."""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any

from deepseek._binding.missing import missing_in_module

SUBMODULES = (
    "accelerator", "amp", "attention", "autograd", "backends", "cli", "cpu", "cuda", "io", "jit", "linalg", "models",
    "moe", "nn", "optim", "quantization", "random", "return_types", "testing", "train", "utils", "version", "xpu",
)  # fmt: skip
AUTOCAST = (
    "clear_autocast_cache",
    "get_autocast_dtype",
    "is_autocast_cache_enabled",
    "set_autocast_cache_enabled",
    "set_autocast_dtype",
    "set_autocast_enabled",
)
# name: (module, its name there)
ATTRIBUTES = {
    "GradScaler": ("deepseek.amp", "GradScaler"),
    "autocast": ("deepseek.amp", "autocast"),
    "load": ("deepseek.io._saving", "load"),
    "save": ("deepseek.io._saving", "save"),
    "__version__": ("deepseek.version", "__version__"),
    "compile": ("deepseek.jit", "compile"),
    **{name: ("deepseek.amp.autocast_state", name) for name in AUTOCAST},
}
LEGACY = (
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "ShortTensor",
)  # fmt: skip


def load(name: str, present: dict[str, Any]) -> Any:
    """The value of ``deepseek.<name>``, for the package's ``__getattr__``.

    Raises:
        AttributeError: no such name; the text says whether PyTorch has it, or which existing name is near.
        ImportError: the same, for ``from deepseek import name``.
    """
    if name in SUBMODULES:
        return importlib.import_module(f"deepseek.{name}")
    if name in ATTRIBUTES:
        module, attribute = ATTRIBUTES[name]
        return getattr(importlib.import_module(module), attribute)
    if name in LEGACY:
        from deepseek._tensor.legacy_types import legacy_type

        return legacy_type(name)
    if name == "__all__":
        return [n for n in names(present) if n[:2] != "__" and n not in SUBMODULES and not _is_builtin_type(n)]
    raise missing_in_module("deepseek", name, lambda: names(present), sys._getframe(2))


def _is_builtin_type(name: str) -> bool:
    """``from deepseek import *`` leaves Python's float, int and bool alone."""
    return isinstance(getattr(builtins, name, None), type)


def names(present: dict[str, Any]) -> list[str]:
    """Every public name of the package, loaded or not, and the module's own ``__name__`` and their like."""
    helpers = {"annotations", "TYPE_CHECKING"}
    shown = (n for n in present if n not in helpers and (n.startswith("__") or not n.startswith("_")))
    return sorted({*shown, *SUBMODULES, *ATTRIBUTES, *LEGACY})
