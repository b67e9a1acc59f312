"""Names that do not exist: what modules, objects and imports say about them, and what ``dir()`` shows of a module.

The text of an error is made when it is read, so ``hasattr`` and ``try`` stay cheap; PyTorch's names load for it only.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from types import FrameType
    from typing import Any


class _Text:
    """The argument of an error: becomes text when it is shown."""

    __slots__ = ("_known", "_name", "_owner", "_subject")

    def __init__(self, owner: str, name: str, known: Callable[[], Iterable[str]], subject: str) -> None:
        self._owner, self._name, self._known, self._subject = owner, name, known, subject

    def __str__(self) -> str:
        from deepseek._binding.nearest import describe

        return describe(self._owner, self._name, self._known(), self._subject)

    def __repr__(self) -> str:
        return repr(str(self))

    def __reduce__(self) -> Any:
        return str, (str(self),)


class _MemberText(_Text):
    """The same for an attribute of an object; with as little work as can be, because modules ask themselves often."""

    __slots__ = ("_instance",)

    def __init__(self, owner: str, name: str, instance: object) -> None:
        self._owner, self._name, self._instance = owner, name, instance

    def __str__(self) -> str:
        instance = self._instance
        subject = f"'{type(instance).__name__}' object has no attribute '{self._name}'"
        return str(_Text(self._owner, self._name, lambda: dir(instance), subject))


def missing_member(instance: object, name: str, owner: str) -> AttributeError:
    """The error for an attribute that an object has not; ``owner`` is the class, such as ``"nn.Module"``."""
    # Without the object, so that Python's own traceback adds no second suggestion.
    return AttributeError(_MemberText(owner, name, instance), name=name)


class NotYet:
    """Stands in a class for a name that PyTorch's class has: asking for it raises AttributeError.

    Tensor is told about its missing names in this way because a ``__getattr__`` would slow down all the others.
    """

    __slots__ = ("_name", "_owner")

    def __init__(self, owner: str, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        subject = f"'{self._owner}' has no attribute '{self._name}'"
        raise AttributeError(_Text(self._owner, self._name, tuple, subject), name=self._name)


def without_missing(cls: type) -> list[str]:
    """``dir()`` of a class, without the names that only say that they do not exist."""
    found: dict[str, object] = {}
    for kind in reversed(cls.__mro__):
        found.update(vars(kind))
    return [name for name in type.__dir__(cls) if not isinstance(found.get(name), NotYet)]


def missing_in_module(module: str, name: str, known: Callable[[], Iterable[str]], asker: FrameType) -> Exception:
    """The error for ``module.name``, or for ``from module import name`` if that is what ``asker`` is at."""
    owner = module.partition(".")[2]
    if not name.startswith("__") and _imports_from(asker):  # the import system itself asks for __path__ and others
        subject = f"cannot import name '{name}' from '{module}'"
        return ImportError(str(_Text(owner, name, known, subject)), name=module)
    return AttributeError(_Text(owner, name, known, f"module '{module}' has no attribute '{name}'"), name=name)


def _imports_from(frame: FrameType) -> bool:
    """Python makes an error of its own from an AttributeError here, which would lose the text."""
    from opcode import opmap

    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_FROM"]


def guard(module: str, *, lazy: Collection[str] = (), elsewhere: Mapping[str, str] | None = None) -> None:
    """Give a module that has an ``__all__`` its ``__getattr__`` and ``__dir__``.

    They are not written out in the module because type checkers would then take every name for granted.

    Args:
        module: its ``__name__``.
        lazy: sub-modules to load on first use.
        elsewhere: names to take from a sub-module on first use, or from another module if it is given in full.
    """
    namespace = sys.modules[module].__dict__

    def public() -> list[str]:
        return sorted({*namespace["__all__"], *(name for name in namespace if name.startswith("__"))})

    def find(name: str) -> object:
        if name in lazy:
            import importlib

            return importlib.import_module(f"{module}.{name}")
        if elsewhere and name in elsewhere:
            import importlib

            home = elsewhere[name] if "." in elsewhere[name] else f"{module}.{elsewhere[name]}"
            value: object = getattr(importlib.import_module(home), name)
            return value
        raise missing_in_module(module, name, public, sys._getframe(1))

    namespace["__getattr__"], namespace["__dir__"] = find, public


class ModuleFinder:
    """Asked last for a sub-module: one of a former name, or why there is none, which ``import`` statements are told."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> Any:
        if fullname.startswith("deepseek._"):
            from deepseek._binding.former_names import find

            if found := find(fullname):
                return found
        if fullname.startswith("deepseek.") and sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            module, _, name = fullname.rpartition(".")
            subject = f"No module named {fullname!r}"
            text = str(_Text(module.partition(".")[2], name, lambda: dir(sys.modules[module]), subject))
            raise ModuleNotFoundError(text, name=fullname)
        return None
