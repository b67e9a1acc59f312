"""Writes ``_C.pyi``, the types of the C++ module: ops from the op table, the rest by hand in ``stub_head.pyi.txt``.

``python -m deepseek._tools.stubgen`` rewrites the file, ``--check`` only says whether it is up to date (exit code 1 if
not).
"""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from pathlib import Path
from typing import Any

from deepseek import _C
from deepseek._binding.overload import OVERLOADS
from deepseek._binding.public import CONSTANTS, METHODS, SECOND_NAMES
from deepseek._binding.signatures import TYPES, overloads_of

HERE = Path(__file__).parent
STUB = HERE.parent / "_C.pyi"
HEAD = HERE / "stub_head.pyi.txt"
# Builtins and names that members of Tensor or of the module hide inside the stub.
RENAMED = {name: f"_{name}" for name in ("bool", "int", "float", "str", "type", "dtype", "device")}


def _result(schema: str, named: dict[str, list[str]], base: str) -> str:
    """Python type of an op's result; remembers the fields of named results."""
    text = schema.rpartition("-> ")[2]
    if text.startswith("(Tensor"):
        named[base] = re.findall(r"Tensor (\w+)", text)
        return f"_{base}_result"
    return {"Tensor[]": "tuple[Tensor, ...]", "()": "None"}.get(text, "Tensor")


def _parameters(op: Any, method: bool) -> str:
    parts: list[str] = []
    keyword_only = False
    for i, (name, kind, default, is_keyword, varargs) in enumerate(op.arguments):
        if keyword.iskeyword(name):
            name += "_"
        if i == 0 and method:
            parts.append(name)
            continue
        if varargs:
            parts.append(f"*{name}: _int | Sequence[_int]")
            keyword_only = True
            continue
        if is_keyword and not keyword_only:
            parts.append("*")
            keyword_only = True
        text = default
        if kind == "Generator?" and text is None:
            text = "None"
        parts.append(f"{name}: {_spelled(TYPES[kind])}" + ("" if text is None else f" = {text}"))
    return ", ".join(parts)


def _definitions(name: str, ops: list[Any], method: bool, named: dict[str, list[str]]) -> list[str]:
    base = name.removesuffix("_") if name not in _C.op_table() else name
    lines = []
    for op in ops:
        result = "Tensor" if name != base else _result(op.schema, named, base)
        if len(ops) > 1:
            lines.append("@overload")
        lines.append(f"def {name}({_parameters(op, method)}) -> {result}: ...")
    return lines


def _python_method(name: str, function: Any) -> list[str]:
    """A method written in Python: its overloads, or the one signature it has."""
    shown = getattr(function, "__wrapped__", function)
    if type(shown) is type(_C.Tensor.exp):
        return [
            re.sub(r"^def \w+", f"def {name}", line)
            for line in _definitions(shown.__name__, overloads_of(shown.__name__), True, {})
        ]
    overloads = OVERLOADS.get((function.__globals__["__name__"], function.__code__.co_name), [])
    if not overloads:
        return [_python_signature(name, function)]
    return [line for f in overloads for line in ("@overload", _python_signature(name, f))]


def _python_signature(name: str, function: Any) -> str:
    """The signature of a function written in Python, its annotations spelled for the stub."""
    parts: list[str] = []
    keyword_only = False
    before = None
    for i, p in enumerate(inspect.signature(function).parameters.values()):
        if before is p.POSITIONAL_ONLY is not p.kind:
            parts.append("/")
        before = p.kind
        if i == 0:
            parts.append(p.name)
            continue
        if p.kind is p.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
        keyword_only |= p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        stars = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        default = "" if p.default is p.empty else f" = {p.default!r}"
        parts.append(f"{stars}{p.name}: {_spelled(p.annotation)}{default}")
    return f"def {name}({', '.join(parts)}) -> {_spelled(function.__annotations__['return'])}: ..."


def _spelled(annotation: str) -> str:
    return re.sub(r"(?<![\w.])(\w+)(?![\w.])", lambda m: RENAMED.get(m[1], m[1]), annotation)


def _tensor_members(named: dict[str, list[str]]) -> list[str]:
    method_type = type(_C.Tensor.exp)
    lines: list[str] = []
    own: dict[str, list[str]] = {}
    for name in dir(_C.Tensor):
        method = getattr(_C.Tensor, name)
        if type(method) is method_type and method.__name__ == name:  # not a second name
            ops = [op for op in overloads_of(name) if op.arguments[0][1].startswith("Tensor")]
            own[name] = _definitions(name, ops, True, named)
    for name, function in METHODS.items():
        own[name] = _python_method(name, function)
    for alias, name in SECOND_NAMES.items():
        own[alias] = [re.sub(rf"^def {name}\(", f"def {alias}(", line) for line in own[name]]
    for name in sorted(own):
        lines += own[name]
    lines += [f"{name}: {'_int' if isinstance(v, int) and v > 1 else '_bool'}" for name, v in CONSTANTS.items()]
    return lines


def generate() -> str:
    """The text of ``_C.pyi``."""
    named: dict[str, list[str]] = {}
    functions: list[str] = []
    for name in sorted(n for n in dir(_C) if type(getattr(_C, n)) is type(_C.add)):
        ops = overloads_of(name)
        functions += _definitions(name, ops, False, named)
    members = _tensor_members(named)
    results = [
        line
        for base, fields in sorted(named.items())
        for line in (f"class _{base}_result(NamedTuple):", *(f"    {field}: Tensor" for field in fields), "")
    ]
    head, _, tail = HEAD.read_text(encoding="utf-8").partition("# >>> Tensor members of the op table and of Python\n")
    parts = [
        "# Written by `python -m deepseek._tools.stubgen`; do not edit.",
        head.rstrip("\n"),
        *("    " + line for line in members),
        tail.rstrip("\n"),
        "",
        *results,
        *functions,
        "",
        "__all__ = [",
        *(f'    "{n}",' for n in _C.__all__),
        "]",
    ]
    return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    text = generate()
    if arguments == ["--check"]:
        if STUB.exists() and STUB.read_text(encoding="utf-8") == text:
            return 0
        print(f"{STUB} is out of date: run `python -m deepseek._tools.stubgen`", file=sys.stderr)
        return 1
    if arguments:
        print("usage: python -m deepseek._tools.stubgen [--check]", file=sys.stderr)
        return 2
    STUB.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
