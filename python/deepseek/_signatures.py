"""``inspect.signature`` of ops, from the op table: what ``help()`` and notebooks show."""

from __future__ import annotations

import ast
from inspect import Parameter, Signature
from typing import Any

from deepseek import _C


def _parameters(op: Any) -> list[Parameter]:
    found: list[Parameter] = []
    for name, kind, default, keyword_only, varargs in op.arguments:
        where = Parameter.KEYWORD_ONLY if keyword_only else Parameter.POSITIONAL_OR_KEYWORD
        if found and found[-1].kind in (Parameter.VAR_POSITIONAL, Parameter.KEYWORD_ONLY):
            where = Parameter.KEYWORD_ONLY
        if varargs:  # loose integers, or one sequence of them
            found.append(Parameter(name, Parameter.VAR_POSITIONAL))
            continue
        value: Any = Parameter.empty
        if default is not None:
            value = ast.literal_eval(default)
        elif kind == "Generator?":
            value = None
        found.append(Parameter(f"{name}_" if name == "from" else name, where, default=value))
    return found


class _Omitted:
    """Stands for the default of a parameter that only some overloads have."""

    def __repr__(self) -> str:
        return "<omitted>"


_OMITTED = _Omitted()


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
        default = defaults[0] if defaults else _OMITTED if len(same) < len(overloads) else Parameter.empty
        merged.append(Parameter(name, kind, default=Parameter.empty if kind is Parameter.VAR_POSITIONAL else default))
    return sorted(merged, key=lambda p: p.kind)


def signature_of(name: str) -> Signature:
    """The signature of an op's function or method; an in-place name ends in ``_``."""
    table = _C.op_table()
    base = name if name in table else name.removesuffix("_")
    group = [op for full, op in sorted(table.items()) if full.partition(".")[0] == base]
    if name != base:
        group = [op for op in group if op.inplace]
    overloads = [_parameters(op) for op in group]
    if len(overloads) == 1:
        return Signature(overloads[0])
    # arange(end) and arange(start, end) make `start` optional before a required `end`, which the check would refuse.
    return Signature(_merged(overloads), __validate_parameters__=False)
