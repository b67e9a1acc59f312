"""What a recording relies on outside the user's code: the C++ side (csrc/python/jit/walk.cc, observe.cc) asks.

A captured function may call whatever is listed here. Anything else that comes from outside the user's code could read
or change what no check before a replay sees, so a function that calls it runs eagerly.
"""

from __future__ import annotations

import bisect
import builtins
import cmath
import collections
import datetime
import decimal
import functools
import heapq
import itertools
import math
import operator
import re
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deepseek import _C
from deepseek._binding.missing import guard

__all__ = ["PURE_TYPES", "STATELESS", "attribute_functions", "is_numpy_constant", "owner", "pure_functions"]

USER, TRUSTED, LIBRARY = range(3)  # Owner in csrc/python/jit/types.h

# Modules in Python whose functions depend on their arguments alone.
_PURE_MODULES = frozenset(
    [
        "_collections_abc",
        "abc",
        "collections",
        "contextlib",
        "copy",
        "copyreg",
        "dataclasses",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
        "bisect",
        "inspect",
        "keyword",
        "math",
        "numbers",
        "operator",
        "re",
        "reprlib",
        "statistics",
        "string",
        "textwrap",
        "types",
        "typing",
        "weakref",
        "_weakrefset",
    ]
)

# Builtins that look at or change something outside their arguments, or say where an object lies in memory.
_IMPURE_BUILTINS = frozenset(
    [
        "__import__",
        "breakpoint",
        "compile",
        "delattr",
        "dir",
        "eval",
        "exec",
        "globals",
        "hash",
        "id",
        "input",
        "locals",
        "open",
        "print",
        "setattr",
        "vars",
    ]
)
# Methods that say what else there is in the program.
_IMPURE_METHODS = frozenset(["__dir__", "__reduce__", "__reduce_ex__", "__sizeof__", "__subclasses__"])

_TIMES = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone)

# Types whose objects are made of their arguments alone.
PURE_TYPES = frozenset(
    t
    for group in (
        vars(builtins).values(),
        vars(itertools).values(),
        vars(types).values(),
        (collections.deque, collections.OrderedDict, collections.defaultdict, functools.partial, decimal.Decimal),
        (operator.itemgetter, operator.methodcaller, re.Pattern, re.Match, *_TIMES),
    )
    for t in group
    if isinstance(t, type)
)

_NamedTuple: Any = collections.namedtuple("_NamedTuple", "field")
_binding: Any = _C.tensor

# Types made in C whose objects never change, or whose changes no result depends on.
STATELESS = frozenset(
    (
        *(int, float, complex, str, bytes, bool, range, slice, type(None), decimal.Decimal, *_TIMES),
        *(types.CodeType, types.GetSetDescriptorType, types.MemberDescriptorType, types.MethodDescriptorType),
        *(types.WrapperDescriptorType, types.MethodWrapperType, types.ClassMethodDescriptorType, types.CellType),
        *(types.GenericAlias, types.UnionType, types.SimpleNamespace, re.Pattern, operator.itemgetter),
        *(operator.methodcaller, operator.attrgetter, type(threading.Lock()), type(threading.RLock())),
        type(_NamedTuple.field),
        type(_binding.__self__),  # what the functions of deepseek are bound to
    )
)


def is_numpy_constant(o: Any) -> bool:
    """A NumPy scalar, a type of those, or a function of NumPy that looks at nothing but its arguments."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    kind = o if type(o) is type else type(o)
    if issubclass(kind, numpy.generic):
        return not issubclass(kind, (numpy.void, numpy.object_))
    # What a dispatcher calls is seen where it is Python, and looks at its arguments alone where it is C.
    called = (numpy.ufunc, type(numpy.concatenate))
    return kind in called and o is not kind and getattr(numpy, o.__name__, None) is o


@functools.cache
def _library_folders() -> tuple[str, ...]:
    return tuple({str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib")})


def owner(module_name: str) -> int:
    """Whose code a module is: the user's (installed packages too), trusted, or the rest of the standard library's."""
    if module_name.partition(".")[0] == "deepseek" or module_name in _PURE_MODULES:
        return TRUSTED
    if module_name.startswith("namedtuple_") and module_name not in sys.modules:
        return TRUSTED  # what collections made for a named tuple: its __new__, which makes a tuple of its arguments
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if file is None:
        return LIBRARY if module_name.partition(".")[0] in sys.stdlib_module_names else USER
    path = str(Path(file).resolve())
    is_package = "site-packages" in path or "dist-packages" in path
    return LIBRARY if path.startswith(_library_folders()) and not is_package else USER


def _methods(owners: Iterable[type]) -> Iterable[Any]:
    for owner_type in owners:
        for name, method in vars(owner_type).items():
            if name not in _IMPURE_METHODS:
                yield method.__func__ if isinstance(method, staticmethod) else method


def pure_functions() -> list[Callable[..., Any]]:
    """Functions in C that depend on nothing but their arguments, and those of deepseek, which tell the recorder."""
    found: list[Any] = [f for name, f in vars(builtins).items() if name not in _IMPURE_BUILTINS]
    for module in (math, cmath, operator, itertools, functools, collections, heapq, bisect, _C):
        found += vars(module).values()
    value_types = [t for t in vars(builtins).values() if isinstance(t, type) and t is not type]
    value_types += [collections.deque, collections.OrderedDict, collections.defaultdict, re.Pattern, re.Match]
    value_types += [type({}.keys()), type({}.values()), type({}.items()), types.GeneratorType]
    value_types += [types.MappingProxyType, types.SimpleNamespace, types.GenericAlias, datetime.timedelta]
    value_types += [t for t in vars(_C).values() if isinstance(t, type)]
    for lock in (threading.Lock(), threading.RLock()):
        found += [type(lock).__enter__, type(lock).__exit__]
    return found + list(_methods(value_types))


def attribute_functions() -> list[Callable[..., Any]]:
    """Those that look up an attribute by a name made at run time."""
    return [getattr, hasattr]


guard(__name__)
