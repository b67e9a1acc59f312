"""Names of the package that load on first use, and what is said about names that do not exist."""

from __future__ import annotations

import importlib
from typing import Any

SUBMODULES = (
    "amp", "autograd", "cli", "cuda", "io", "jit", "linalg", "models", "nn", "optim", "quantization", "random",
    "return_types", "testing", "train", "utils", "version",
)  # fmt: skip
# name: (module, its name there)
ATTRIBUTES = {
    "autocast": ("deepseek.amp", "autocast"),
    "get_autocast_dtype": ("deepseek.amp", "get_autocast_dtype"),
    "load": ("deepseek._serialization", "load"),
    "save": ("deepseek._serialization", "save"),
    "__version__": ("deepseek.version", "__version__"),
    "compile": ("deepseek.jit", "compile"),
    "UntypedStorage": ("deepseek._storage", "UntypedStorage"),
}
LEGACY = (
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "ShortTensor",
)  # fmt: skip


def load(name: str, present: dict[str, Any]) -> Any:
    """The value of ``deepseek.<name>``.

    Raises:
        AttributeError: no such name; the text says whether PyTorch has it, and the nearest name that exists.
    """
    if name in SUBMODULES:
        return importlib.import_module(f"deepseek.{name}")
    if name in ATTRIBUTES:
        module, attribute = ATTRIBUTES[name]
        return getattr(importlib.import_module(module), attribute)
    if name in LEGACY:
        from deepseek._legacy import legacy_type

        return legacy_type(name)
    from deepseek._torch_names import TORCH_NAMES
    from deepseek.utils._nearest import missing_attribute

    error = missing_attribute("deepseek", name, names(present))
    if name in TORCH_NAMES:
        text = f"PyTorch's torch.{name} does not exist in deepseek yet; {str(error).partition('; ')[2]}"
        error = AttributeError(f"module 'deepseek' has no attribute '{name}': {text}", name=name)
    raise error


def names(present: dict[str, Any]) -> list[str]:
    """Every name of the package, loaded or not."""
    hidden = {"annotations", "TYPE_CHECKING"}
    return sorted({*(n for n in present if n not in hidden), *SUBMODULES, *ATTRIBUTES, *LEGACY})
