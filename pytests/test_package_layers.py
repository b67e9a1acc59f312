"""The layers of the Python package: a lower one never imports a higher one. Those of csrc/ are in test_layering.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "deepseek"

# Folders and single files of the package. Those on one line are siblings and do not import each other.
LAYERS = [
    ["_C"],
    ["_binding"],
    ["_tensor"],
    ["_functions"],
    ["autograd", "random"],
    ["deepseek"],  # __init__.py: who imports the package itself, or a tensor function from it, lies above this line
    ["accelerator", "backends", "io", "jit", "linalg", "return_types", "testing", "version", "xpu"],
    ["nn"],
    ["amp", "optim", "quantization"],
    ["cpu", "utils"],
    ["attention", "cuda", "moe"],
    ["models"],
    ["train"],
    ["cli"],
    ["__main__", "_tools"],
]
RANK = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}

# (file, what it imports) -> why. Inside functions only: when they run, the whole package is there.
UPWARD = {
    ("__init__.py", "*"): "names of sub-packages load on first use",
    ("_binding/lazy.py", "_tensor"): "FloatTensor and its like are made on first use",
    ("_tensor/gradients.py", "autograd"): "Tensor.backward() is autograd.backward()",
    ("autograd/__init__.py", "testing"): "PyTorch has gradcheck in autograd too",
    ("io/_saving.py", "nn"): "save() takes a module's StateDict for the dict it is",
}


def unit_of(file: Path) -> str:
    """The folder or file that has a rank."""
    return "deepseek" if file.name == "__init__.py" and len(file.parts) == 1 else file.parts[0].removesuffix(".py")


def targets(node: ast.AST, units: set[str]) -> list[str]:
    """The units that one node imports, or takes from the package as ``deepseek.nn``."""
    if isinstance(node, ast.Import):
        paths = [alias.name.split(".") for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        path = node.module.split(".")
        paths = [[*path, alias.name] for alias in node.names] if len(path) == 1 else [path]
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return [node.attr] if node.value.id == "deepseek" and node.attr in units else []
    elif isinstance(node, ast.keyword) and node.arg == "elsewhere":  # guard(): names from other modules on first use
        paths = [str(c.value).split(".") for c in ast.walk(node.value) if isinstance(c, ast.Constant)]
    else:
        return []
    return [next(iter(path[1:2] and units & {path[1]}), "deepseek") for path in paths if path[0] == "deepseek"]


def imports(node: ast.AST, units: set[str], lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """(unit, whether it is loaded on first use only) of everything below a node but imports for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        inside = lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        on_first_use = inside or isinstance(child, ast.keyword)
        yield from ((target, on_first_use) for target in targets(child, units))
        yield from imports(child, units, inside)


def violations(root: Path) -> list[str]:
    """Every import under ``root`` that breaks a rule, as "file: reason"."""
    found = []
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root)
        unit = unit_of(file)
        if unit not in RANK:
            found.append(f"{file}: {unit!r} is not a layer")
            continue
        for target, lazy in dict.fromkeys(imports(ast.parse(path.read_text(encoding="utf-8")), set(RANK))):
            if RANK[target] < RANK[unit] or target == unit:
                continue
            if lazy and ((str(file), target) in UPWARD or (str(file), "*") in UPWARD):
                continue
            place = "is a sibling of" if RANK[target] == RANK[unit] else "lies above"
            found.append(f"{file}: {target} {place} {unit}" + (", although on first use" if lazy else ""))
    return found


def test_layers_of_the_package() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) > 100, "the check would pass on nothing"
    assert violations(PACKAGE) == []


def test_every_layer_and_every_exception_is_there() -> None:
    units = {p.name.removesuffix(".pyi").removesuffix(".py") for p in PACKAGE.iterdir()} | {"deepseek"}
    assert RANK.keys() <= units
    for file, target in UPWARD:
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        assert target == "*" or (target, True) in set(imports(tree, set(RANK))), f"{file} does not import {target}"


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("_tensor/a.py", "from deepseek._functions.shapes import ravel", "_functions lies above _tensor"),
        ("_functions/a.py", "from deepseek import nn", "nn lies above _functions"),
        ("_functions/a.py", "import deepseek", "deepseek lies above _functions"),
        ("_binding/a.py", "from deepseek import Tensor", "deepseek lies above _binding"),
        ("optim/a.py", "import deepseek.amp.training", "amp is a sibling of optim"),
        ("nn/a.py", "import deepseek\ndeepseek.optim.SGD", "optim lies above nn"),
        ("nn/a.py", "def f():\n    from deepseek import optim", "optim lies above nn, although on first use"),
        ("nn/a.py", "import deepseek\ndef f():\n    deepseek.optim.SGD", "optim lies above nn, although"),
        ("io/_saving.py", "from deepseek.nn import Module", "nn lies above io"),
        ("jit/a.py", "guard(__name__, elsewhere={'a': 'deepseek.moe.layer'})", "moe lies above jit, although"),
        ("extra/a.py", "", "is not a layer"),
        ("extra.py", "", "is not a layer"),
    ],
)
def test_each_rule_catches_its_violation(tmp_path: Path, file: str, text: str, reason: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    (found,) = violations(tmp_path)
    assert reason in found


def test_allowed_imports_pass(tmp_path: Path) -> None:
    for file, text in [
        ("nn/a.py", "import deepseek\nfrom deepseek import Tensor, _C, autograd\nfrom deepseek.nn import b"),
        ("nn/b.py", "if TYPE_CHECKING:\n    from deepseek.optim import SGD\nelse:\n    x = deepseek.float32"),
        ("io/_saving.py", "def f():\n    from deepseek.nn.modules import StateDict"),
        ("__init__.py", "from deepseek._functions import *\ndef f():\n    from deepseek import cli"),
    ]:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    assert violations(tmp_path) == []
