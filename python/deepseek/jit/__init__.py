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
from typing import Any

from deepseek.jit.capture import Compiled, compile, disable, is_recording

__all__ = ["Compiled", "compile", "disable", "is_recording"]


class _CallableModule(types.ModuleType):
    """Lets ``deepseek.jit`` be both the decorator and the module."""

    def __call__(self, function: Any = None, **options: Any) -> Any:
        return compile(function, **options)


sys.modules[__name__].__class__ = _CallableModule
