"""Writes ``csrc/api/functions.h`` and ``.cc``: every op as a C++ function, from the op table.

What ``csrc/ops/ops.h`` declares, and the rows of the pointwise list, are functions already. Where an op has more
arguments than its function there, it gets another one with all of them, which asks for one more than the shorter takes.
``python -m deepseek._tools.cppgen`` rewrites the files, ``--check`` only says whether they are up to date (exit code 1
if not).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepseek import _C

CSRC = Path(__file__).resolve().parents[3] / "csrc"
HEADER, SOURCE = CSRC / "api" / "functions.h", CSRC / "api" / "functions.cc"

# Type of a schema -> of a parameter.
TYPES = {
    "Tensor": "const Tensor&",
    "Tensor?": "const Tensor&",
    "Tensor[]": "Inputs",
    "int": "int64_t",
    "float": "double",
    "bool": "bool",
    "Scalar": "Scalar",
    "int[]": "const Dims&",
    "str": "Str",
    "int?": "Opt<int64_t>",
    "float?": "Opt<double>",
    "bool?": "Opt<bool>",
    "Scalar?": "Opt<Scalar>",
    "int[]?": "const Opt<Dims>&",
    "str?": "Opt<Str>",
    "dtype?": "Opt<DType>",
}
# The device is the CPU, generators are Python's, and requires_grad is set_requires_grad().
LEFT_OUT = ("device?", "Generator?")

NOTE = "// Written by `python -m deepseek._tools.cppgen`; do not edit.\n// clang-format off\n"
OPEN, CLOSE = "\nnamespace deepseek {\n\n", "\n}  // namespace deepseek\n"


@dataclass
class Parameter:
    name: str
    type: str
    default: str | None  # in C++

    def text(self, with_default: bool) -> str:
        default = f" = {self.default}" if with_default and self.default is not None else ""
        return f"{self.type} {self.name}{default}"


@dataclass
class Function:
    name: str
    parameters: list[Parameter]
    required: int  # how many of them have to be given
    result: str
    body: str

    def types(self) -> tuple[str, ...]:
        return (self.name, *(p.type for p in self.parameters))

    def declaration(self) -> str:
        shown = [p.text(with_default=i >= self.required) for i, p in enumerate(self.parameters)]
        return f"{self.result} {self.name}({', '.join(shown)});"

    def definition(self) -> str:
        shown = ", ".join(p.text(with_default=False) for p in self.parameters)
        return f"{self.result} {self.name}({shown}) {{\n{self.body}}}"


def _default(kind: str, text: str | None) -> str | None:
    if text is None:
        return "{}" if kind == "dtype?" else None
    if text == "None":
        return "{}"
    if kind.startswith("Tensor"):
        return f"scalar({text})"
    if text.startswith("["):
        return "{" + text[1:-1] + "}"
    if text in ("True", "False"):
        text = text.lower()
    text = text.replace("'", '"').replace("inf", "INFINITY")
    return f"{TYPES[kind]}({text})" if kind.endswith("?") else text


def _split(parameters: str) -> list[str]:
    """`a, b<c, d>` is two."""
    parts, depth = [""], 0
    for c in parameters:
        depth += (c in "<({") - (c in ">)}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p for p in parts if p.strip()]


def written_by_hand() -> dict[str, int]:
    """The functions of ops.h, and how many parameters the longest of a name has; of pointwise ops, more than any."""
    text = re.sub(r"//[^\n]*", "", (CSRC / "ops" / "ops.h").read_text("utf-8"))
    found: dict[str, int] = {}
    for name, parameters in re.findall(r"^(?:Tensor|TensorList|void) (\w+)\(([^;]*)\);", text, re.MULTILINE):
        found[name] = max(found.get(name, 0), len(_split(parameters)))
    for path in (CSRC / "kernels" / "pointwise" / "families").glob("*.def"):
        for name in re.findall(r"^DS_\w+\(\w+, (\w+),", path.read_text("utf-8"), re.MULTILINE):
            found[name] = 99
    return found


def _function(op: Any, inplace: bool, by_hand: int, number: str = "") -> Function:
    """`number`: the tensor that a number is given for."""
    name = op.name.split(".")[0] + ("_" if inplace else "")
    parameters, steps = [], ""
    for arg, kind, default, *_ in op.arguments:
        if arg == number:
            parameters.append(Parameter(arg, "Scalar", None))
            steps += f".in(scalar({arg}))"
            continue
        kind = re.sub(r"\|\w+", "", kind)  # Tensor|Number
        if kind == "Generator?":
            steps += ".in(Tensor())"
        if kind in LEFT_OUT or arg == "requires_grad":
            continue
        parameters.append(Parameter(arg, TYPES[kind], _default(kind, default)))
        steps += f".in({arg})" if kind.startswith("Tensor") else f".set({arg})"
    required = by_hand + 1 if by_hand else 0
    for i, p in enumerate(parameters):
        if p.default is None:
            required = max(required, i + 1)
    result, last = "Tensor", "in_place()" if inplace else "one()"
    if op.num_outputs < 0:
        result, last = "TensorList", "list()"
    elif op.num_outputs > 1:
        result, last = f"std::array<Tensor, {op.num_outputs}>", f"several<{op.num_outputs}>()"
    body = f'  static const OpDef& def = *find_op("{op.name}");\n  return OpCall(def){steps}.{last};\n'
    return Function(name, parameters, required, result, body)


def functions() -> Iterator[Function]:
    by_hand, taken = written_by_hand(), set()
    for _, op in sorted(_C.op_table().items()):
        if op.hidden or op.name.startswith("_"):
            continue
        for inplace in (False, True):
            if inplace and not op.inplace:
                continue
            name = op.name.split(".")[0] + ("_" if inplace else "")
            function = _function(op, inplace, by_hand.get(name, 0))
            if function.types() in taken:  # scatter.value, whose `value` is a number in a tensor
                last = [arg for arg, kind, *_ in op.arguments if kind.startswith("Tensor")][-1]
                function = _function(op, inplace, by_hand.get(name, 0), number=last)
            if by_hand.get(name, 0) < len(function.parameters) or name not in by_hand:
                taken.add(function.types())
                yield function


def generate() -> dict[Path, str]:
    made = list(functions())
    head = (
        NOTE
        + "// Ops that ops.h does not declare, and those that have more arguments than there: with all of them.\n"
        + '#pragma once\n\n#include <array>\n#include <cmath>\n\n#include "ops/ops.h"\n'
    )
    source = NOTE + '#include "api/functions.h"\n\n#include "api/op_call.h"\n'
    return {
        HEADER: head + OPEN + "".join(f.declaration() + "\n" for f in made) + CLOSE,
        SOURCE: source + OPEN + "\n".join(f.definition() + "\n" for f in made) + CLOSE,
    }


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python -m deepseek._tools.cppgen [--check]", file=sys.stderr)
        return 2
    for path, text in generate().items():
        if not arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            print(f"{path} is out of date: run `python -m deepseek._tools.cppgen`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
