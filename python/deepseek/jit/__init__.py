"""``deepseek.jit``: capture a function on its first call and replay it without Python.

``deepseek.jit(f)`` (or ``@deepseek.jit``; ``deepseek.compile`` is the same) runs ``f`` eagerly the first time and
writes down every op, write, gradient and optimizer step it makes. Later calls with the same kind of arguments replay
that graph from C++: the same calls on the same kernels, so results are equal bit for bit. What a replay relies on is
checked first: dtypes, sizes, strides and flags of tensors, all other arguments by value, and the globals, closure
variables and module attributes the function can see. When something differs the function is recorded again (the eight
most recent recordings are kept); :meth:`Compiled.explain` says why.

A function that cannot be replayed, for example one that converts a tensor to NumPy or changes an attribute, runs
eagerly every time, and :meth:`Compiled.explain` says so.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from deepseek._binding.missing import guard
from deepseek.jit.capture import Compiled, P, R, compile, disable, is_recording

__all__ = ["Compiled", "compile", "disable", "is_recording", "is_scripting", "is_tracing"]


def is_scripting() -> bool:
    """False: there is no TorchScript; see :func:`is_recording`."""
    return False


def is_tracing() -> bool:
    """False: there is no TorchScript; see :func:`is_recording`."""
    return False


_Compiled = Compiled  # the class below has an attribute of that name
if TYPE_CHECKING:
    _Module = object  # whose attributes are those below, and not any
else:
    _Module = types.ModuleType


class CallableModule(_Module):
    """Lets ``deepseek.jit`` be both the decorator and the module; for type checkers, all that it holds."""

    Compiled = Compiled
    compile = staticmethod(compile)
    disable = staticmethod(disable)
    is_recording = staticmethod(is_recording)
    is_scripting = staticmethod(is_scripting)
    is_tracing = staticmethod(is_tracing)
    if TYPE_CHECKING:
        capture: types.ModuleType
        guards: types.ModuleType

    @overload
    def __call__(self, function: Callable[P, R], **options: Any) -> _Compiled[P, R]: ...
    @overload
    def __call__(self, function: None = None, **options: Any) -> Callable[[Callable[P, R]], _Compiled[P, R]]: ...
    def __call__(self, function: Any = None, **options: Any) -> Any:
        return compile(function, **options)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(compile)


sys.modules[__name__].__class__ = CallableModule  # type: ignore[assignment]

guard(__name__)
