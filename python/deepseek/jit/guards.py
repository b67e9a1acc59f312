"""The state of the program a captured function can see: globals, closure variables, attributes of modules.

Everything found is turned into checks ``(kind, container, key, expected)`` that C++ compares before a replay. A value
is the same when it is the same object, or an equal number, string or tuple.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import deepseek
from deepseek import Tensor

__all__ = ["Guards", "describe", "state_guards"]

# Kinds, as in csrc/python/jit.cc.
_DICT_ITEM, _DICT_SIZE, _LIST_SIZE, _LIST_ITEM, _CELL, _ATTRIBUTE = range(6)
_MAX_CHECKS = 20_000
_MAX_ITEMS = 1_000  # of one container

_ATOMS = (type(None), bool, int, float, str, bytes, complex, type(deepseek.float32))
_PLAIN = frozenset((*_ATOMS, Tensor))  # nothing to look into; most of what a walk meets

# What a check is about, put into words only where a message asks for it: a text, (container, key) for an item or
# (owner, ".", name) for an attribute.
Name = Any


def _words(name: Name) -> str:
    if isinstance(name, str):
        return name
    if len(name) == 2:
        return f"{_words(name[0])}[{name[1]!r}]"
    return f"{_words(name[0])}.{name[2]}"


class Guards:
    """Checks, and what each is about for messages."""

    def __init__(self) -> None:
        self.checks: list[tuple[int, Any, Any, Any]] = []
        self.names: list[Name] = []
        self.refusal = ""  # why no replay can be trusted

    def add(self, kind: int, container: Any, key: Any, expected: Any, name: Name) -> None:
        self.checks.append((kind, container, key, expected))
        self.names.append(name)


def describe(guards: Guards, check: tuple[int, Any, Any, Any]) -> str:
    """Says what changed."""
    place = next(i for i, c in enumerate(guards.checks) if c is check)
    kind, container, key, expected = check
    now: Any
    if kind == _DICT_ITEM:
        now = container.get(key, "<missing>")
    elif kind == _LIST_ITEM:
        now = container[key] if key < len(container) else "<missing>"
    elif kind == _CELL:
        now = container.cell_contents
    elif kind == _ATTRIBUTE:
        now = getattr(container, key, "<missing>")
    else:
        return f"the length of {_words(guards.names[place])} changed from {expected} to {len(container)}"
    return f"{_words(guards.names[place])} changed from {_short(expected)} to {_short(now)}"


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of size {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def state_guards(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Guards:
    """Checks of all state that ``function(*args, **kwargs)`` can reach by name."""
    walk = _Walk()
    walk.value(function, getattr(function, "__name__", type(function).__name__))
    for i, value in enumerate(args):
        walk.value(value, f"argument {i}")
    for key, value in kwargs.items():
        walk.value(value, f"argument {key}")
    return walk.guards


@functools.cache
def _library_folders() -> tuple[str, ...]:
    names = ("stdlib", "purelib", "platlib")
    return tuple({str(Path(sysconfig.get_path(name)).resolve()) for name in names})


@functools.cache
def _is_library(module_name: str) -> bool:
    """Code of deepseek, the standard library or an installed package: its globals are not watched."""
    if module_name.partition(".")[0] in ("deepseek", "builtins"):
        return True
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if file is None:
        return module_name in sys.builtin_module_names
    return str(Path(file).resolve()).startswith(_library_folders())


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in ("__call__", "__init__")


def _is_library_type(kind: type) -> bool:
    module = kind.__module__
    return not isinstance(module, str) or _is_library(module)  # some types written in C have no module


class _Walk:
    def __init__(self) -> None:
        self.guards = Guards()
        self.seen: dict[int, Any] = {}  # keeps objects alive, so that an id means one object

    def value(self, value: Any, name: Name) -> None:
        """Adds checks of the state inside ``value``."""
        if (
            type(value) in _PLAIN
            or isinstance(value, (*_ATOMS, Tensor))
            or id(value) in self.seen
            or len(self.guards.checks) > _MAX_CHECKS
        ):
            return
        self.seen[id(value)] = value
        if isinstance(value, (dict, list, tuple, set, frozenset)):  # most often
            self.items(value, name, watch=True)
        elif isinstance(value, types.FunctionType):
            self.function(value, name)
        elif isinstance(value, types.MethodType):
            self.value(value.__self__, name)
            self.value(value.__func__, name)
        elif isinstance(value, functools.partial):
            self.value(value.func, name)
            self.items(list(value.args), (name, ".", "args"), watch=False)
            self.items(dict(value.keywords), (name, ".", "keywords"), watch=False)
        elif isinstance(value, deepseek.jit.Compiled):
            self.value(value._function, name)
        elif isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            return
        elif hasattr(type(value), "__next__"):
            self.guards.refusal = f"it can reach the iterator {_words(name)}, whose position cannot be watched"
        elif isinstance(value, deepseek.nn.Module):
            self.module(value, name)
        elif not _is_library_type(type(value)):
            self.object(value, name)

    def items(self, container: Any, name: Name, watch: bool) -> None:
        if isinstance(container, dict):
            if watch:
                self.guards.add(_DICT_SIZE, container, None, len(container), name)
            if not container or len(container) > _MAX_ITEMS:
                return
            for key, item in container.items():
                if watch:
                    self.guards.add(_DICT_ITEM, container, key, item, (name, key))
                self.value(item, (name, key))
        elif isinstance(container, list):
            if watch:
                self.guards.add(_LIST_SIZE, container, None, len(container), name)
            if len(container) > _MAX_ITEMS:
                return
            for i, item in enumerate(container):
                if watch:
                    self.guards.add(_LIST_ITEM, container, i, item, (name, i))
                self.value(item, (name, i))
        elif isinstance(container, tuple):
            for i, item in enumerate(container[:_MAX_ITEMS]):
                self.value(item, (name, i))

    def function(self, function: types.FunctionType, name: Name) -> None:
        function = getattr(function, "__wrapped__", function) if _is_library(function.__module__ or "") else function
        if not isinstance(function, types.FunctionType) or _is_library(function.__module__ or ""):
            return
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                continue  # not assigned yet
            self.guards.add(_CELL, cell, None, content, f"closure variable {variable}")
            self.value(content, variable)
        if vars(function):
            self.attributes(vars(function), name)
        for i, default in enumerate(function.__defaults__ or ()):
            self.value(default, f"default {i} of {function.__name__}")
        for key, default in (function.__kwdefaults__ or {}).items():
            self.value(default, f"default {key} of {function.__name__}")
        self.names_of(function.__code__, function.__globals__)

    def names_of(self, code: types.CodeType, namespace: dict[str, Any]) -> None:
        """Globals by name, and names looked up in modules that are globals."""
        for name in code.co_names:
            if name in namespace:
                content = namespace[name]
                self.guards.add(_DICT_ITEM, namespace, name, content, f"global {name}")
                if isinstance(content, types.ModuleType) and not _is_library(content.__name__):
                    self.names_of_module(code, content)
                else:
                    self.value(content, name)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.names_of(constant, namespace)

    def names_of_module(self, code: types.CodeType, module: types.ModuleType) -> None:
        for name in code.co_names:
            if name in module.__dict__:
                content = module.__dict__[name]
                self.guards.add(_DICT_ITEM, module.__dict__, name, content, f"{module.__name__}.{name}")
                self.value(content, f"{module.__name__}.{name}")

    def module(self, module: Any, name: Name) -> None:
        """All attributes of a module: numbers and flags, parameters, buffers, hooks and submodules."""
        self.attributes(vars(module), name)
        self.classes(type(module))

    def object(self, value: Any, name: Name) -> None:
        if isinstance(getattr(value, "__dict__", None), dict):
            self.attributes(vars(value), name)
        self.classes(type(value))

    def classes(self, kind: type) -> None:
        """Methods and constants of user classes."""
        for base in kind.__mro__:
            if _is_library_type(base) or id(base) in self.seen:
                continue
            self.seen[id(base)] = base
            for key, item in vars(base).items():
                name = f"{base.__name__}.{key}"
                if isinstance(item, (*_ATOMS, tuple, list, dict, types.FunctionType)) and not _is_special(key):
                    self.guards.add(_ATTRIBUTE, base, key, item, name)
                self.value(item, name)

    def attributes(self, attributes: dict[str, Any], name: Name) -> None:
        self.guards.add(_DICT_SIZE, attributes, None, len(attributes), (name, ".", "__dict__"))
        for key, item in attributes.items():
            self.guards.add(_DICT_ITEM, attributes, key, item, (name, ".", key))
            if type(item) not in _PLAIN:
                self.value(item, (name, ".", key))
