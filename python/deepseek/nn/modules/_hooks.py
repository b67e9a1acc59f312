"""Calling a module: forward and backward hooks and the handles that remove them."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from deepseek import _C, Tensor
from deepseek.autograd import Function

if TYPE_CHECKING:
    from deepseek.nn.modules.module import Module

Hook = Callable[..., Any]

_ids = itertools.count()


class RemovableHandle:
    """What ``register_*_hook`` returns: ``remove()`` takes the hook off again; also a context manager."""

    def __init__(self, hooks: OrderedDict[int, Hook], flags: Iterable[dict[int, bool]] = ()) -> None:
        self.id = next(_ids)
        # Weak references: a handle that someone keeps must not keep the module's tables alive.
        tables: list[Any] = [hooks, *flags]
        self._tables = [weakref.ref(table) for table in tables]

    def remove(self) -> None:
        for reference in self._tables:
            table = reference()
            if table is not None:
                table.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class _Watch(Function):
    """Identity on tensors whose backward hands all their gradients to one callback."""

    @staticmethod
    def forward(ctx: Any, on_backward: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.on_backward = on_backward
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for value in inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, *ctx.on_backward(grads))


def _flatten(value: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """A module's result as a flat list, and the way back: a tensor, a tuple, a list or a dict of them."""
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return list(value), lambda items: type(value)(*items)
        return list(value), tuple
    if isinstance(value, list):
        return list(value), list
    if isinstance(value, dict):
        keys = list(value)
        return list(value.values()), lambda items: dict(zip(keys, items, strict=True))
    return [value], lambda items: items[0]


class _BackwardPass:
    """One forward call's share of backward: gathers grad_output, then grad_input, then runs the hooks once."""

    def __init__(self, module: Module, pre_hooks: list[Hook], hooks: list[Hook]) -> None:
        self.module = module
        self.pre_hooks = pre_hooks
        self.hooks = hooks
        self.input_count = 0
        self.input_places: list[int] = []
        self.grad_output: tuple[Any, ...] = ()

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.input_count = len(args)
        self.input_places = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
        if not self.input_places or not self.hooks:
            return args
        watched = _Watch.apply(self._on_input_grads, *(args[i] for i in self.input_places))
        out = list(args)
        for place, tensor in zip(self.input_places, watched, strict=True):
            out[place] = tensor
        return tuple(out)

    def watch_outputs(self, result: Any) -> Any:
        items, rebuild = _flatten(result)
        places = [i for i, item in enumerate(items) if isinstance(item, Tensor) and item.requires_grad]
        if not places:
            return result

        def on_output_grads(grads: tuple[Any, ...]) -> tuple[Any, ...]:
            full = [None] * len(items)
            for place, grad in zip(places, grads, strict=True):
                full[place] = grad
            self.grad_output = self._run_pre_hooks(tuple(full))
            if not self.input_places:  # nothing upstream wants a gradient: this is the last moment to call
                self._run_hooks((None,) * self.input_count)
            return tuple(self.grad_output[place] for place in places)

        watched = _Watch.apply(on_output_grads, *(items[place] for place in places))
        for place, tensor in zip(places, watched, strict=True):
            items[place] = tensor
        return rebuild(items)

    def _run_pre_hooks(self, grad_output: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.pre_hooks:
            grad_output = _replaced(grad_output, hook(self.module, grad_output), "pre-hook", "grad_output")
        return grad_output

    def _run_hooks(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.hooks:
            grad_input = _replaced(grad_input, hook(self.module, grad_input, self.grad_output), "hook", "grad_input")
        return grad_input

    def _on_input_grads(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        full = [None] * self.input_count
        for place, grad in zip(self.input_places, grads, strict=True):
            full[place] = grad
        result = self._run_hooks(tuple(full))
        return tuple(result[place] for place in self.input_places)


def _replaced(old: tuple[Any, ...], new: Any, kind: str, what: str) -> tuple[Any, ...]:
    if new is None:
        return old
    new = new if isinstance(new, tuple) else (new,)
    if len(new) != len(old):
        raise RuntimeError(f"full backward {kind} returned {len(new)} gradients for {what}, expected {len(old)}")
    return new


class HooksMixin:
    """The calling side of :class:`Module`. With no hook registered a call is one test and ``forward``."""

    _forward_pre_hooks: OrderedDict[int, Hook]
    _forward_pre_hooks_with_kwargs: OrderedDict[int, bool]
    _forward_hooks: OrderedDict[int, Hook]
    _forward_hooks_with_kwargs: OrderedDict[int, bool]
    _forward_hooks_always_called: OrderedDict[int, bool]
    _backward_pre_hooks: OrderedDict[int, Hook]
    _backward_hooks: OrderedDict[int, Hook]
    forward: Callable[..., Any]

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns, if not None, replaces the arguments.

        With ``with_kwargs`` the hook is ``hook(module, args, kwargs)`` and returns None or ``(args, kwargs)``.
        """
        flags = self._forward_pre_hooks_with_kwargs
        handle = _add(self._forward_pre_hooks, hook, prepend, (flags,))
        if with_kwargs:
            flags[handle.id] = True
        return handle

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns, if not None, replaces the output.

        With ``with_kwargs`` the hook is ``hook(module, args, kwargs, output)``. With ``always_call`` it also runs when
        ``forward`` raised (output None); its own errors are then swallowed in favour of the first one.
        """
        flags = (self._forward_hooks_with_kwargs, self._forward_hooks_always_called)
        handle = _add(self._forward_hooks, hook, prepend, flags)
        if with_kwargs:
            flags[0][handle.id] = True
        if always_call:
            flags[1][handle.id] = True
        return handle

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` when the gradients of the outputs are known; it may replace them."""
        return _add(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` once the gradients of all inputs are known.

        ``grad_input`` has one entry per positional argument (None where no gradient flows); returning a tuple of the
        same length replaces the gradients. Inputs and outputs of the module must not be changed in place.
        """
        return _add(self._backward_hooks, hook, prepend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks):
            return self.forward(*args, **kwargs)
        return self._call_with_hooks(args, kwargs)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result: Any = None
        called: set[int] = set()
        try:
            args, kwargs = self._run_forward_pre_hooks(args, kwargs)
            backward: _BackwardPass | None = None
            if self._backward_hooks or self._backward_pre_hooks:
                backward = _BackwardPass(
                    self,  # type: ignore[arg-type]
                    list(self._backward_pre_hooks.values()),
                    list(self._backward_hooks.values()),
                )
                args = backward.watch_inputs(args)
            result = self.forward(*args, **kwargs)
            for key, hook in list(self._forward_hooks.items()):
                called.add(key)
                result = self._run_forward_hook(key, hook, args, kwargs, result)
            return backward.watch_outputs(result) if backward is not None else result
        except Exception:
            for key, hook in list(self._forward_hooks.items()):
                if key in self._forward_hooks_always_called and key not in called:
                    try:
                        result = self._run_forward_hook(key, hook, args, kwargs, result)
                    except Exception:  # the error that is already on its way matters more
                        continue
            raise

    def _run_forward_pre_hooks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for key, hook in list(self._forward_pre_hooks.items()):
            if key in self._forward_pre_hooks_with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is None:
                    continue
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(f"forward pre-hook must return None or (new_args, new_kwargs), got {changed}")
                args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs

    def _run_forward_hook(self, key: int, hook: Hook, args: Any, kwargs: Any, result: Any) -> Any:
        if key in self._forward_hooks_with_kwargs:
            changed = hook(self, args, kwargs, result)
        else:
            changed = hook(self, args, result)
        return result if changed is None else changed


def _add(
    table: OrderedDict[int, Hook], hook: Hook, prepend: bool, flags: Iterable[dict[int, bool]] = ()
) -> RemovableHandle:
    if not callable(hook):
        raise TypeError(f"a hook must be callable, but got {_C._type_name(hook)}")
    handle = RemovableHandle(table, flags)
    table[handle.id] = hook
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle
