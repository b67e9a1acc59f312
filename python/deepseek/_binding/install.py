"""Attaches to Tensor what Python adds to it: methods, properties, and second names."""

from __future__ import annotations

import sys

from deepseek import _C
from deepseek._binding import missing
from deepseek._binding.public import CONSTANTS, METHODS, PROPERTIES, SECOND_NAMES
from deepseek._binding.torch_tensor import TENSOR_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any


def _signature(op: Any) -> Any:
    from deepseek._binding.signatures import signature_of  # needs inspect

    return signature_of(op.__name__)


class _Documentation:
    """``__doc__`` of ops and their methods."""

    def __get__(self, op: Any, owner: Any) -> str:
        if op is None:
            return "An op of the table, as a function or a method."
        from deepseek._binding.signatures import documentation_of

        return documentation_of(op.__name__)


class _TensorSignature:
    """``inspect.signature(Tensor)``, and not that of its subclasses."""

    def __get__(self, instance: object, owner: Any) -> Any:
        if owner is not _C.Tensor:
            raise AttributeError("__signature__")
        import inspect

        data = inspect.Parameter("data", inspect.Parameter.POSITIONAL_ONLY, default=())
        return inspect.Signature([data])


def install(functions: Collection[str], torch_function: Any) -> None:
    """Called once, by the package, when all of ``@method`` has been met.

    Args:
        functions: names that are functions in Python, of which the package does not show the op.
        torch_function: what ``Tensor.__torch_function__`` does.
    """
    if missing.ModuleFinder not in sys.meta_path:  # not again when the package is reloaded
        sys.meta_path.append(missing.ModuleFinder)
    _C.__all__ = sorted(name for name in _C._functions if name not in functions)
    kind: Any = _C.Tensor
    for name, value in {**METHODS, **CONSTANTS}.items():
        setattr(kind, name, value)
    for name, getter in PROPERTIES.items():
        setattr(kind, name, property(getter))
    for second, first in SECOND_NAMES.items():
        setattr(kind, second, getattr(kind, first))
    kind.__torch_function__ = classmethod(torch_function)
    function: Any = type(_C.add)
    # inspect and help() take what has __get__ for a function; as a class attribute it stays unbound, as built-ins do.
    function.__get__ = lambda op, instance, owner=None: op
    for op_type in (function, type(kind.add)):
        op_type.__signature__ = property(_signature)
        op_type.__doc__ = _Documentation()
    kind.__signature__ = _TensorSignature()
    present, names = vars(kind), kind.__base__
    for name in TENSOR_NAMES.split():
        if name not in present:
            setattr(names, name, missing.NotYet("Tensor", name))
    metatype: Any = _C._TensorType
    metatype.__dir__ = missing.without_missing
