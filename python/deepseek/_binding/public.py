"""``@public`` and ``@method`` beside a function say where users find it. No list of names stands anywhere else."""

from __future__ import annotations

import sys

from deepseek import _C

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

# What install() attaches to Tensor.
METHODS: dict[str, Any] = {}
PROPERTIES: dict[str, Callable[[_C.Tensor], Any]] = {}
CONSTANTS: dict[str, Any] = {}
# Second name of a method -> the method's own name.
SECOND_NAMES: dict[str, str] = {}


def public(thing: F) -> F:
    """Put a function's or class's name into ``__all__`` of its module, and so into each package that imports all of it.

    Type checkers see the module without an ``__all__``, where all that it defines without a ``_`` is public.
    """
    home = thing.__module__
    vars(sys.modules[home]).setdefault("__all__", []).append(thing.__name__)
    if home.startswith("deepseek._functions.") and not isinstance(thing, type):
        thing.__module__ = "deepseek"  # pickles and help() name the place that stays
    return thing


def method(function: F) -> F:
    """Attach a function to Tensor, under its own name."""
    METHODS[function.__name__] = function
    return function


def method_named(name: str) -> Callable[[F], F]:
    """The same under a name that the function cannot have in its file: a builtin's, or one that is not public there."""

    def attach(function: F) -> F:
        function.__name__ = function.__qualname__ = name
        return method(function)

    return attach


def gather(package: str, *modules: str, elsewhere: Iterable[str] = ()) -> None:
    """Make ``__all__`` of a package from what it imported of its files: what is public in them.

    Args:
        package: its ``__name__``.
        modules: sub-modules that are public names themselves.
        elsewhere: names that load on first use.
    """
    namespace = vars(sys.modules[package])
    files = [value for value in namespace.values() if getattr(value, "__name__", "").rpartition(".")[0] == package]
    names = {
        name
        for file in files
        for name in getattr(file, "__all__", ())
        if name in namespace and namespace[name] is getattr(file, name)
    }
    namespace["__all__"] = sorted({*modules, *elsewhere, *names})


def second_names(namespace: dict[str, Any]) -> None:
    """Make ``__all__`` of a module of second names. Where the first one is a method, the second one is a method too."""
    own = {name: thing for name, thing in namespace.items() if name[0] != "_" and thing is not second_names}
    namespace["__all__"] = sorted(name for name, thing in own.items() if callable(thing))
    for name in namespace["__all__"]:
        first = own[name].__name__
        if first in METHODS or hasattr(_C.Tensor, first):
            SECOND_NAMES[name] = first


def documented(function: F) -> F:
    """Put an op's own documentation, which alternates with its overloads' signatures, before that of its wrapper."""
    about = getattr(_C, function.__name__).__doc__.split("\n\n")[1::2]
    function.__doc__ = "\n\n".join([*about, (function.__doc__ or "").lstrip("\n")])
    return function
