"""Compiled functions: recordings, and the choice between replaying and recording."""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._binding.once import warn_once

__all__ = ["Compiled", "compile", "disable", "is_recording"]

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

MAX_RECORDINGS = 8
_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # PyTorch's
_MAX_NOTES = 32


def is_recording() -> bool:
    """True while a function is being recorded."""
    return _C._jit_recording()


def _forget_dead(compiled: Compiled[..., Any]) -> Callable[[Any], None]:
    """A callback that drops the recordings an object was an argument of: the `self` of a method, most often."""
    alive = weakref.ref(compiled)

    def died(_: Any) -> None:
        if (owner := alive()) is not None:
            owner._entries[:] = [entry for entry in owner._entries if _C._jit_alive(entry[0])]

    return died


class Compiled(Generic[P, R]):
    """A function that is recorded on its first call and replayed afterwards (see :mod:`deepseek.jit`).

    Attribute access goes to the function or module it wraps.
    """

    def __init__(self, function: Callable[P, R], passes: tuple[str, ...], verify: bool) -> None:
        self._function = function
        self._passes = list(passes)
        self._verify = verify
        self._entries: list[tuple[Any, Any]] = []  # the recorded call, the state of the program it relies on
        self._notes: list[str] = []
        self._refused: list[str] = []
        self._eager = False  # it cannot be replayed
        self._in_vain = 0  # recordings made since one was last replayed
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._eager:
            return self._function(*args, **kwargs)
        result: Any = _C._jit_call(self._entries, args, kwargs)
        if result is NotImplemented:
            return self._record(args, kwargs)
        if result is ...:  # inside another recording: part of that
            return self._function(*args, **kwargs)
        self._in_vain = 0
        return result

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if "_function" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._function, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled[P, R]:
        """A copy starts without recordings."""
        return Compiled(copy.deepcopy(self._function, memo), tuple(self._passes), self._verify)

    def __reduce__(self) -> Any:
        return Compiled, (self._function, tuple(self._passes), self._verify)

    def __repr__(self) -> str:
        return f"deepseek.jit({self._function!r})"

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._entries:
            self._note(self._why(args, kwargs))
        result, entry, why = _C._jit_record(self._function, args, kwargs, self._passes, self._verify)
        if why:
            self._eager = True
            self._entries.clear()
            self._note(f"runs eagerly from now on: {why}")
            return result
        self._in_vain += 1
        if self._in_vain > 2 * MAX_RECORDINGS:
            self.reset()
            self._eager = True
            self._note(f"runs eagerly from now on: the last {2 * MAX_RECORDINGS} calls all had to be recorded again")
            return result
        _C._jit_watch(entry[0], _forget_dead(self))
        self._entries.insert(0, entry)
        del self._entries[MAX_RECORDINGS:]
        return result

    def _why(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """What the most recent recording had against the call."""
        entry, state = self._entries[0]
        why = _C._jit_why(entry, state, args, kwargs) or _C._jit_change(state) or "a value it read back was another one"
        return f"recorded again: {why}"

    def _note(self, text: str) -> None:
        self._notes.append(text)
        del self._notes[:-_MAX_NOTES]

    def graph(self, index: int = 0) -> str:
        """Text of a recording: the most recently used one by default.

        Raises:
            IndexError: there is no such recording.
        """
        if not 0 <= index < len(self._entries):
            raise IndexError(f"jit: there are {len(self._entries)} recordings of {self._name()}; got index {index}")
        return _C._jit_text(self._entries[index][0])

    def explain(self) -> str:
        """What is recorded, and why calls were recorded again or run eagerly."""
        lines = [f"{self._name()}: {len(self._entries)} of at most {MAX_RECORDINGS} recordings"]
        return "\n".join(lines + [f"  {note}" for note in self._notes])

    def reset(self) -> None:
        """Forget all recordings."""
        self._entries.clear()
        self._notes.clear()
        self._eager = False
        self._in_vain = 0

    def _name(self) -> str:
        return getattr(self._function, "__qualname__", type(self._function).__name__)


@overload
def compile(
    function: Callable[P, R],
    *,
    disabled_passes: Iterable[str] = (),
    verify: bool = False,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Compiled[P, R]: ...
@overload
def compile(
    function: None = None,
    *,
    disabled_passes: Iterable[str] = (),
    verify: bool = False,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...
def compile(
    function: Any = None,
    *,
    disabled_passes: Iterable[str] = (),
    verify: bool = False,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """Capture ``function`` (a function, method or module) on its first call and replay it afterwards.

    Args:
        function: what to capture; without it a decorator is returned.
        disabled_passes: names of graph passes to leave out: ``"drop_tape"``, ``"cse"``, ``"dce"``, ``"fuse"``,
            ``"infer"``, ``"release"``.
        verify: check the graph after every pass (for tests).
        fullgraph: accepted for PyTorch's sake; a capture is always one graph.
        dynamic, backend, mode, options: PyTorch's; they change nothing here, and a warning says so once.
        disable: return ``function`` as it is.

    Raises:
        RuntimeError: a ``mode`` that PyTorch does not have, or a mode and options together.
        TypeError: ``function`` cannot be called.
        ValueError: there is no pass of that name.

    Example::

        @deepseek.jit
        def step(x, y):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            return loss
    """
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified at the same time.")
    if mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(_MODES[1:])}")
    if function is None:
        return functools.partial(
            compile,
            disabled_passes=disabled_passes,
            verify=verify,
            fullgraph=fullgraph,
            dynamic=dynamic,
            backend=backend,
            mode=mode,
            options=options,
            disable=disable,
        )
    for option, value, usual in (
        ("dynamic", dynamic, (None, False)),
        ("backend", backend, ("inductor",)),
        ("mode", mode, (None, "default")),
        ("options", options, (None, {})),
    ):
        if value not in usual:
            warn_once(f"compile({option}=...)", "a capture is replayed with the kernels that eager calls use")
    if not callable(function):
        raise TypeError(f"deepseek.jit expects a function or a module, got {type(function).__name__}")
    known = _C._jit_passes()
    left_out = {disabled_passes} if isinstance(disabled_passes, str) else set(disabled_passes)
    if unknown := sorted(left_out - set(known)):
        raise ValueError(f"deepseek.jit: there is no pass {unknown[0]!r}; passes are {', '.join(known)}")
    if isinstance(function, Compiled):
        function = function._function
    if disable:
        return function
    return Compiled(function, tuple(name for name in known if name not in left_out), verify)


def run_on_replay(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call ``function`` now, unrecorded, and again on every replay of the recording under way."""
    return _C._jit_host(function, args, kwargs)


def disable(function: F) -> F:
    """A function whose body is never captured: while a caller is recorded, and on every replay, it runs for real.

    Optimizer and scheduler steps are such functions. Its arguments are kept; tensors among them are those of the
    replay.
    """

    @functools.wraps(function)
    def outside(*args: Any, **kwargs: Any) -> Any:
        if _C._jit_recording():
            return run_on_replay(function, args, kwargs)
        return function(*args, **kwargs)

    return outside  # type: ignore[return-value]


guard(__name__)
