"""Formats and activations are rows of one table each: nothing else in the core or the package lists their names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import deepseek
import pytest
from deepseek import _C
from deepseek.quantization import FORMATS

CSRC = Path(__file__).resolve().parents[2] / "csrc"
PACKAGE = Path(deepseek.__file__).parent
LITERAL = re.compile(r'(?<!#include )"((?:[^"\\\n]|\\.)*)"')
# Words that mean something else where they stand.
OTHERS = {
    ("base/dtype.h", "int8"),  # a dtype
    ("ops/pointwise/arith.cc", "tanh"),  # gelu's argument, as PyTorch has it
}
TABLES = {"kernels/quant/quant_formats.cc", "kernels/pointwise/activations.h"}
WRITTEN = {"api/functions.cc", "api/functions.h"}  # by a program, from the op table


def literals(path: Path) -> set[str]:
    code = re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))
    return {word for text in LITERAL.findall(code) for word in (text, *re.findall(r"'(\w+)'", text))}


def test_names_stand_in_the_tables_alone() -> None:
    names = {*FORMATS, *_C._activations()}
    found = set()
    for path in sorted(p for p in CSRC.rglob("*") if p.suffix in {".h", ".cc", ".def", ".inc"}):
        name = path.relative_to(CSRC).as_posix()
        if name not in TABLES | WRITTEN:
            found |= {(name, word) for word in literals(path) & names}
    assert found == OTHERS | DEFAULTS


# An attribute's default is a choice, not a list.
DEFAULTS = {("ops/quant/quant.cc", "int4")}


@pytest.mark.parametrize("path", sorted((PACKAGE / "quantization").glob("*.py")), ids=lambda p: p.name)
def test_python_lists_no_formats(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defaults = {
        id(value)
        for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
        for value in (*node.args.defaults, *node.args.kw_defaults)
    }  # fmt: skip
    words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in defaults]
    assert not [word for word in words if word in FORMATS]
