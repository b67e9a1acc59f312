"""``inspect.signature`` and ``__doc__`` of ops, from the op table: what ``help()`` and notebooks show."""

from __future__ import annotations

import ast
import re
from inspect import Parameter, Signature
from typing import Any

from deepseek import _C

# Schema type -> Python type of an argument.
TYPES = {
    "Tensor": "Tensor",
    "Tensor?": "Tensor | None",
    "Tensor|Number": "Tensor | float",
    "Tensor|Number?": "Tensor | float | None",
    "Tensor|LeftNumber": "Tensor | float",
    "Tensor[]": "Sequence[Tensor]",
    "Tensor|Number[]": "Sequence[Tensor | float]",
    "Tensor?[]": "Sequence[Tensor | None]",
    "Generator?": "Generator | None",
    "device?": "device | str | None",
    "dtype?": "dtype | None",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "Scalar": "float",
    "int[]": "Sequence[int] | int",
    "int?": "int | None",
    "float?": "float | None",
    "bool?": "bool | None",
    "str?": "str | None",
    "Scalar?": "float | None",
    "int[]?": "Sequence[int] | int | None",
}


def overloads_of(name: str) -> list[Any]:
    """The ops behind a function or method; an in-place name ends in ``_``."""
    table = _C.op_table()
    base = name if name in table else name.removesuffix("_")
    group = [op for full, op in sorted(table.items()) if full.partition(".")[0] == base]
    return group if name == base else [op for op in group if op.inplace]


def _parameters(op: Any) -> list[Parameter]:
    found: list[Parameter] = []
    for name, kind, default, keyword_only, varargs in op.arguments:
        where = Parameter.KEYWORD_ONLY if keyword_only else Parameter.POSITIONAL_OR_KEYWORD
        if found and found[-1].kind in (Parameter.VAR_POSITIONAL, Parameter.KEYWORD_ONLY):
            where = Parameter.KEYWORD_ONLY
        if varargs:  # loose integers, or one sequence of them
            found.append(Parameter(name, Parameter.VAR_POSITIONAL, annotation=_Shown("int")))
            continue
        value: Any = Parameter.empty
        if default is not None:
            value = ast.literal_eval(default)
        elif kind == "Generator?":
            value = None
        shown = f"{name}_" if name == "from" else name
        found.append(Parameter(shown, where, default=value, annotation=_Shown(TYPES[kind])))
    return found


class _Shown:
    """What prints as the text itself."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


OMITTED = _Shown("...")  # the default of a parameter that only some overloads have


def _merged(overloads: list[list[Parameter]]) -> list[Parameter]:
    """One list that every overload fits: what only some of them have is optional."""
    place: dict[str, int] = {}
    for parameters in overloads:
        for i, p in enumerate(parameters):
            place[p.name] = max(place.get(p.name, 0), i)
    merged: list[Parameter] = []
    for name in sorted(place, key=lambda n: place[n]):
        same = [p for parameters in overloads for p in parameters if p.name == name]
        kind = max(p.kind for p in same)
        defaults = [p.default for p in same if p.default is not p.empty]
        default = defaults[0] if defaults else OMITTED if len(same) < len(overloads) else Parameter.empty
        merged.append(Parameter(name, kind, default=Parameter.empty if kind is Parameter.VAR_POSITIONAL else default))
    return sorted(merged, key=lambda p: p.kind)


def signature_of(name: str) -> Signature:
    """The signature of an op's function or method, without types: those are in its documentation and in the stub."""
    overloads = [_parameters(op) for op in overloads_of(name)]
    if len(overloads) == 1:
        return Signature([p.replace(annotation=Parameter.empty) for p in overloads[0]])
    # arange(end) and arange(start, end) make `start` optional before a required `end`, which the check would refuse.
    return Signature(_merged(overloads), __validate_parameters__=False)


def documentation_of(name: str) -> str:
    """The documentation of an op's function or method: each overload's call and what it gives."""
    parts = []
    for op in overloads_of(name):
        call = f"{name}{Signature(_parameters(op))} -> {_result(op.schema)}"
        parts.append(f"{call}\n\n{op.doc}")
    if name not in _C.op_table():
        parts.append("In place: the result is written into the first argument, which is returned.")
    return "\n\n".join(parts)


def _result(schema: str) -> str:
    text = schema.rpartition("-> ")[2]
    if text.startswith("(Tensor"):
        return f"({', '.join(re.findall('Tensor ([a-z_]+)', text))})"
    return {"Tensor[]": "tuple[Tensor, ...]", "()": "None"}.get(text, text)
