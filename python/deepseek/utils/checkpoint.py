"""Memory for time: what a part of a model saves for its gradient is computed again in the backward pass.

(Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.)
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.missing import guard
from deepseek.amp import autocast
from deepseek.autograd.graph import saved_tensors_hooks
from deepseek.nn.parameter import Parameter

__all__ = ["checkpoint", "checkpoint_sequential", "computed_again"]

_CHECKS = ("default", "none")


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, of which only the arguments are kept for the backward pass.

    What the ops in it saved is computed again, by a second call under the same autocast and with the same random
    numbers of the default generator, when the backward pass first asks for it. Gradients are the same bits. Checkpoints
    may be nested.

    Args:
        function: Must compute the same when called again. It may use parameters and other tensors from outside, but
            not write what it saves; counters it keeps, such as those of a router, count both calls.
        use_reentrant: Either way gradients reach everything that ``function`` uses, as PyTorch's with False.
        context_fn: Returns two context managers: for the first call and for the second.
        determinism_check: ``"default"`` compares shapes and dtypes of what both calls save, ``"none"`` does not.
        debug: Not implemented.
        early_stop: The second call ends when all that was saved is there.
        preserve_rng_state: False lets the second call draw other random numbers.

    Raises:
        RuntimeError: in the backward pass, when the second call saves something else than the first, or a tensor that
            ``function`` uses was written in between.
        ValueError: another determinism check.
    """
    if debug:
        raise NotImplementedError("checkpoint(debug=True) is not implemented; the error of a second call names the op")
    if determinism_check not in _CHECKS:
        raise ValueError(f"determinism_check must be one of {_CHECKS}, got {determinism_check!r}")
    first, second = (contextlib.nullcontext(), contextlib.nullcontext()) if context_fn is None else context_fn()
    if not _C._records():
        with first:
            return function(*args, **kwargs)
    frame = _Frame(function, args, kwargs, second, preserve_rng_state, determinism_check == "default", early_stop)
    with first, saved_tensors_hooks(frame.pack, frame.unpack):
        result = function(*args, **kwargs)
    frame.is_complete = True
    return result


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Runs a list of functions (or ``Sequential``) one after another, in ``segments`` parts, each a :func:`checkpoint`.

    The last part is not one: its backward pass comes first.

    Args:
        functions: A sequence of functions of one argument, or a module with children.
        segments: How many parts, at most one a function.
        input: For the first function.
        kwargs: ``preserve_rng_state``.

    Raises:
        ValueError: ``segments`` is not from 1 to the number of functions, or an option is not known.
    """
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    steps = list(functions.children() if isinstance(functions, deepseek.nn.Module) else functions)
    if not 1 <= segments <= max(len(steps), 1):
        raise ValueError(f"segments must be from 1 to the number of functions, {len(steps)}; got {segments}")
    size = len(steps) // segments
    ends = [size * i for i in range(1, segments)]
    for begin, end in itertools.pairwise([0, *ends]):
        input = checkpoint(_run(steps[begin:end]), input, preserve_rng_state=preserve)
    return _run(steps[ends[-1] if ends else 0 :])(input)


def _run(steps: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return run


class Surroundings:
    """What a call depends on beside its arguments: autocast, and the state of the random numbers."""

    def __init__(self, random: bool = True) -> None:
        self._autocast = deepseek.is_autocast_enabled("cpu"), deepseek.get_autocast_dtype("cpu")
        self._state = deepseek.get_rng_state() if random else None

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Within it they are as when this was made."""
        enabled, dtype = self._autocast
        now = None if self._state is None else deepseek.get_rng_state()
        try:
            if self._state is not None:
                deepseek.set_rng_state(self._state)
            with autocast("cpu", dtype=dtype, enabled=enabled):
                yield
        finally:
            if now is not None:
                deepseek.set_rng_state(now)


class _Enough(BaseException):
    """All that the first call saved is there."""


class _Saved:
    """What a first call saved: what it looked like, and the memory and version by which a later write shows."""

    def __init__(self, t: Tensor) -> None:
        self.shape, self.dtype = t.shape, t.dtype
        self.memory, _, self.version = _C._memory(t)

    def check(self, t: Tensor, number: int) -> None:
        if (t.shape, t.dtype) != (self.shape, self.dtype):
            raise RuntimeError(
                f"checkpoint: the second call saved {t.dtype} {list(t.shape)} as tensor {number} where the first saved "
                f"{self.dtype} {list(self.shape)}; the function must compute the same when it is called again"
            )
        memory, _, version = _C._memory(t)
        if memory == self.memory and version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"{t.dtype} {list(t.shape)}, used by a checkpointed function, is at version {version}; expected "
                f"version {self.version} instead. Write to a clone() of it, or after backward()"
            )


class _Frame:
    """One checkpointed call. Its first call saves numbers, which stand for the tensors that the second will save."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Any,
        random: bool,
        compare: bool,
        early_stop: bool,
    ) -> None:
        self._function, self._context, self._compare, self._early_stop = function, context, compare, early_stop
        self._surroundings = Surroundings(random)
        # Kept as ops keep their inputs: through the hooks of an outer checkpoint, and checked for writes.
        self._arguments = _map((args, kwargs), Tensor, _Argument)
        self.is_complete = False  # the first call has returned
        self._first: list[_Saved] = []
        self._again: list[tuple[Tensor, _Saved] | None] = []

    def pack(self, t: Tensor) -> int:
        self._first.append(_Saved(t))
        return len(self._first) - 1

    def unpack(self, number: int) -> Tensor:
        again = self._again
        found = again[number] if number < len(again) else None
        if found is None:  # the first that is asked for, or for another backward pass
            self._again = again = self._call_again()
            found = again[number]
            assert found is not None
        again[number] = None
        t, saved = found
        saved.check(t, number)  # the call may have gone on to write it
        return t

    def _call_again(self) -> list[tuple[Tensor, _Saved] | None]:
        again: list[tuple[Tensor, _Saved] | None] = []
        kept: list[Tensor] = []  # for derivatives that the function itself asks for
        wanted = len(self._first)
        stops = self._early_stop or not self.is_complete

        def keep(t: Tensor) -> int:
            if len(again) < wanted and self._compare:
                self._first[len(again)].check(t, len(again))
            again.append((t, _Saved(t)))
            kept.append(t)
            if stops and len(again) == wanted:
                raise _Enough
            return len(again) - 1

        args, kwargs = _map(self._arguments, _Argument, _Argument.tensor)
        hooks = saved_tensors_hooks(keep, kept.__getitem__)
        with contextlib.suppress(_Enough), self._surroundings.restored(), deepseek.enable_grad(), self._context, hooks:
            self._function(*args, **kwargs)
        if len(again) != wanted:
            raise RuntimeError(
                f"checkpoint: the second call saved {len(again)} tensors, the first {wanted}; the function must "
                "compute the same when it is called again"
            )
        return again


class _Argument:
    """A tensor among the arguments, kept as an op keeps its inputs."""

    def __init__(self, t: Tensor) -> None:
        self._saved, self._learns, self._is_parameter = _C.Saved(t, -1), t.requires_grad, isinstance(t, Parameter)

    def tensor(self) -> Tensor:
        t: Tensor = self._saved.unpack(None).detach()
        if self._is_parameter:
            return Parameter(t, requires_grad=self._learns)
        return t.requires_grad_() if self._learns else t


def _map(value: Any, kind: type, f: Callable[[Any], Any]) -> Any:
    """Applies ``f`` to the objects of a type in a structure of tuples, lists and dicts. Of other containers, and
    tuples with names, it changes nothing: they keep their type, and their tensors."""
    if isinstance(value, kind):
        return f(value)
    if type(value) is dict:
        return {k: _map(v, kind, f) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_map(v, kind, f) for v in value)
    return value


@contextlib.contextmanager
def computed_again(compute: Callable[[], Tensor], sources: Sequence[Tensor]) -> Iterator[Tensor]:
    """``compute()``, which ops within the context that save it for their gradient compute again in the backward pass.

    For a tensor that is large and cheap to compute, of which nothing but those ops needs the memory. Where no gradient
    is recorded, or :func:`deepseek.jit` captures the call, it is kept like any other::

        with computed_again(lambda: project(x), [x, project.weight]) as wide:
            out = attention(wide, key, value)

    Args:
        compute: Gives the same bits again: the second call records nothing and has the same autocast and random
            numbers.
        sources: The tensors it is computed from.

    Raises:
        RuntimeError: in the backward pass, when a source was written in between.
    """
    again = _C._records() and not _C._captures()
    surroundings, seen = (Surroundings(), [_Saved(t) for t in sources]) if again else (None, [])
    tensor = compute()
    if surroundings is None or not tensor.requires_grad:
        yield tensor
        return
    # With the version: once it is written it is no longer what can be computed.
    made = _C._memory(tensor), tensor.shape, tensor.stride()

    def pack(t: Tensor) -> tuple[Tensor, _Saved] | None:
        return None if (_C._memory(t), t.shape, t.stride()) == made else (t, _Saved(t))

    def unpack(kept: tuple[Tensor, _Saved] | None) -> Tensor:
        if kept is not None:
            kept[1].check(kept[0], 0)
            return kept[0]
        for was, source in zip(seen, sources, strict=True):
            was.check(source, 0)
        with surroundings.restored(), deepseek.no_grad():
            return compute()

    with saved_tensors_hooks(pack, unpack):
        yield tensor


guard(__name__)
