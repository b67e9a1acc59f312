"""Modes that switch recording on and off. Each is a context manager and a decorator, and belongs to its thread."""

from __future__ import annotations

import functools

from deepseek import _C
from deepseek._binding.missing import guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled"]

_GENERATOR_FLAG = 0x20  # inspect.CO_GENERATOR, without importing inspect


class _Mode:
    """What the modes share: ``with mode(): …``, ``@mode()`` and, where the class allows it, ``@mode``."""

    def __enter__(self) -> None:
        raise NotImplementedError

    def __exit__(self, *exc: object) -> None:
        raise NotImplementedError

    def _again(self) -> _Mode:
        """A fresh context of the same setting, so that decorated functions may call themselves."""
        return type(self)()

    def __call__(self, orig_func: F) -> F:
        code = getattr(orig_func, "__code__", None)
        if code is not None and code.co_flags & _GENERATOR_FLAG:
            return self._wrap_generator(orig_func)

        @functools.wraps(orig_func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return orig_func(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    def _wrap_generator(self, func: F) -> F:
        """The mode holds while the generator's own code runs, not while its caller's does."""

        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with self._again():
                inner = func(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, inner)
            try:
                while True:
                    try:
                        with self._again():
                            value = step()
                    except StopIteration as stop:
                        return stop.value
                    try:
                        sent = yield value
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(inner.throw, error)
                    else:
                        step = functools.partial(inner.send, sent)
            finally:
                with self._again():
                    inner.close()

        return wrapper  # type: ignore[return-value]


class _PlainMode(_Mode):
    """A mode without arguments, which may decorate without parentheses."""

    _value: bool

    def __new__(cls, orig_func: Any = None) -> Any:
        mode = super().__new__(cls)
        return mode if orig_func is None else mode(orig_func)

    def __init__(self, orig_func: Any = None) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_C._is_grad_enabled())
        _C._set_grad_enabled(self._value)

    def __exit__(self, *exc: object) -> None:
        _C._set_grad_enabled(self._before.pop())


class no_grad(_PlainMode):
    """Nothing inside is recorded: results have ``requires_grad=False``."""

    _value = False


class enable_grad(_PlainMode):
    """Recording is on inside, also within ``no_grad``."""

    _value = True


class set_grad_enabled(_Mode):
    """Recording on or off: at once when called, and until the end of the block as a context manager.

    Raises:
        TypeError: ``mode`` is not a bool.
    """

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise TypeError(f"set_grad_enabled(): argument 'mode' must be bool, not {_C._type_name(mode)}")
        self.mode = mode
        self._before = _C._is_grad_enabled()
        _C._set_grad_enabled(mode)

    def _again(self) -> _Mode:
        return set_grad_enabled(self.mode)

    def __call__(self, orig_func: F) -> F:
        _C._set_grad_enabled(self._before)  # as a decorator it changes nothing until the function runs
        return super().__call__(orig_func)

    def __enter__(self) -> None:
        _C._set_grad_enabled(self.mode)

    def __exit__(self, *exc: object) -> None:
        _C._set_grad_enabled(self._before)


class inference_mode(_Mode):
    """Like ``no_grad``, and results can never enter a graph, which saves their version counting.

    Args:
        mode: False switches it off inside another ``inference_mode``; a function makes this a plain decorator.
    """

    def __new__(cls, mode: Any = True) -> Any:
        new = super().__new__(cls)
        if isinstance(mode, bool):
            return new
        new.__init__(True)  # type: ignore[misc]
        return new(mode)

    def __init__(self, mode: Any = True) -> None:
        self.mode: bool = mode
        self._before: list[tuple[bool, bool]] = []

    def _again(self) -> _Mode:
        again: _Mode = inference_mode(self.mode)
        return again

    def __enter__(self) -> None:
        self._before.append((_C._is_grad_enabled(), _C._is_inference_mode()))
        _C._set_grad_enabled(not self.mode)
        _C._set_inference_mode(self.mode)

    def __exit__(self, *exc: object) -> None:
        grad, inference = self._before.pop()
        _C._set_grad_enabled(grad)
        _C._set_inference_mode(inference)


guard(__name__)
