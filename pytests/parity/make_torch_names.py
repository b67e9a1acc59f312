"""Writes ``torch_names.py`` and ``torch_tensor.py`` of ``python/deepseek/_binding/``: the public names of PyTorch, so
that errors can tell a name that is not implemented yet from a mistyped one. Those of Tensor are by themselves because
they are needed at import.

``python pytests/parity/make_torch_names.py`` rewrites the files; a test compares them with the torch that is installed.
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
import types
import warnings
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parents[2] / "python" / "deepseek" / "_binding"
CLASSES = ("nn.Module", "optim.Optimizer")
HEAD = """\"\"\"Public names of torch {version}{what}. Written by pytests/parity/make_torch_names.py.\"\"\"

from __future__ import annotations

"""


def owners() -> dict[str, Any]:
    """Modules of deepseek that torch has too, and the classes, by their names without the package's."""
    import deepseek
    import torch

    found: dict[str, Any] = {"": torch}
    for module in pkgutil.walk_packages(deepseek.__path__, "deepseek."):
        path = module.name.removeprefix("deepseek.")
        if any(part.startswith("_") for part in path.split(".")):
            continue
        try:
            found[path] = importlib.import_module(f"torch.{path}")
        except ImportError:
            continue
    for path in CLASSES:
        owner: Any = torch
        for part in path.split("."):
            owner = getattr(owner, part)
        found[path] = owner
    return dict(sorted(found.items()))


def _is_torchs(value: Any) -> bool:
    """Not a module or helper that torch merely imports, and none of TorchScript's inner classes."""
    if isinstance(value, types.ModuleType):
        return value.__name__.startswith("torch")
    if type(value).__name__ == "pybind11_type":
        return False
    if callable(value):
        module = getattr(value, "__module__", None)
        return module is None or module.startswith("torch")
    return value is None or isinstance(value, (bool, float)) or type(value).__module__.startswith("torch")


def public_names(owner: Any) -> list[str]:
    """What a user may write after the owner's name and a dot."""
    source = owner.__dict__.get("m", owner)  # torch.backends.cudnn and others wrap the module that has the functions
    shown = sorted(name for name in {*dir(owner), *dir(source)} - {"m"} if not name.startswith("_"))
    if source is not owner:
        shown = sorted({*shown, *(name for name in vars(type(owner)) if not name.startswith("_"))})
    if isinstance(owner, type):
        return shown
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {name for name in shown if _is_torchs(getattr(owner, name, None))}
    inside = list(pkgutil.iter_modules(getattr(owner, "__path__", [])))
    # Scripts use torch._dynamo and other inner packages too, so those at the top are known.
    packages = {module.name for module in inside if module.ispkg and owner.__name__ == "torch"}
    return sorted(names | packages | {module.name for module in inside if not module.name.startswith("_")})


def _paragraph(names: list[str]) -> str:
    lines = textwrap.wrap(" ".join(names), 118, break_long_words=False, break_on_hyphens=False)
    return '"""\n' + "\n".join(lines) + '\n"""'


def generate() -> dict[str, str]:
    """The text of each file."""
    import torch

    version = torch.__version__.partition("+")[0]
    parts = [f'    "{path}": {_paragraph(public_names(owner))},\n' for path, owner in owners().items()]
    return {
        "torch_names.py": HEAD.format(version=version, what=", by module or class")
        + f"NAMES = {{\n{''.join(parts)}}}\n",
        "torch_tensor.py": HEAD.format(version=version, what="'s Tensor")
        + f"TENSOR_NAMES = {_paragraph(public_names(torch.Tensor))}\n",
    }


if __name__ == "__main__":
    for name, text in generate().items():
        (TABLES / name).write_text(text, encoding="utf-8")
