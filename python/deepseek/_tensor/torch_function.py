"""``__torch_function__``: what ops do with objects of Tensor's subclasses.

A class that does not define it gets results of its own class. One that does is asked first, about every op of the core
that is called with such an object (a function composed in Python is seen as the ops that it calls).
"""

from __future__ import annotations

from deepseek import _C
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def usual(cls: type[Tensor], func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """``func(*args, **kwargs)`` with objects of subclasses taken for plain tensors, and its result as ``cls``.

    PyTorch asks this too when one of its functions is given our tensor; calling that again would not end.
    """
    if not _is_ours(func) or not all(issubclass(cls, kind) for kind in types):
        return NotImplemented
    with _C.DisableTorchFunctionSubclass():
        return _converted(func(*args, **kwargs or {}), cls)


def _is_ours(func: Any) -> bool:
    """Whether it is one of the core's ops, a special method of Tensor, or a function or class made in this package."""
    owner = getattr(func, "__objclass__", func)  # of a special method, the class that defines it
    return str(getattr(owner, "__module__", None)).partition(".")[0] == "deepseek"


def _converted(result: Any, cls: type[Tensor]) -> Any:
    if isinstance(result, Tensor):
        return result if isinstance(result, cls) else _C._as_subclass(result, cls)
    if isinstance(result, (list, tuple)) and not isinstance(result, _C.Size):
        return type(result)([_converted(entry, cls) for entry in result])
    return result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def call_hooks(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the first class that implements ``func`` for these arguments returns; derived classes are asked first.

    Raises:
        TypeError: none does.
    """
    types: list[type[Tensor]] = []
    for tensor in _tensors((*args, *kwargs.values())):
        kind = type(tensor)
        plain = kind is Tensor or kind.__torch_function__ is _C._disabled_torch_function_impl
        if plain or kind in types:
            continue
        at = next((i for i, other in enumerate(types) if issubclass(kind, other)), len(types))
        types.insert(at, kind)
    for kind in types:
        result = kind.__torch_function__(func, tuple(types), args, kwargs)
        if result is not NotImplemented:
            return result
    name = getattr(func, "__name__", func)
    raise TypeError(f"no implementation found for {name!r} on types that implement __torch_function__: {types}")
