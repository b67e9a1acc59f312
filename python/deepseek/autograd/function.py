"""User-defined differentiable functions: ``Function``, its context, and ``once_differentiable``."""

from __future__ import annotations

import functools

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._C import Tensor
from deepseek.autograd.grad_mode import no_grad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Function", "FunctionCtx", "once_differentiable"]

_FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)


class FunctionCtx:
    """What ``forward`` hands to ``backward``. Other attributes may be set freely."""

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self, function: type[Function]) -> None:
        self._function = function
        self._to_save: tuple[Tensor | None, ...] = ()
        self._saved: tuple[Any, ...] | None = None  # _C.Saved objects once forward has returned
        self._freed = False
        self._not_differentiable: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._materialize = True
        self._input_shapes: tuple[Any, ...] = ()
        self._output_metas: tuple[Any, ...] = ()  # (position, shape, dtype) of each tensor output
        self._num_outputs = 0
        self._node: Any = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep inputs or outputs for ``backward``, which finds them in ``saved_tensors``.

        Raises:
            TypeError: an argument that is neither a tensor nor None.
        """
        for i, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument {i} is of type {_C._type_name(t)}"
                )
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors of ``save_for_backward``.

        Raises:
            RuntimeError: they were freed by a first backward, or were modified in place since.
        """
        if self._freed:
            raise RuntimeError(_FREED)
        if self._saved is None:
            return self._to_save
        return tuple(None if s is None else s.unpack(self._node) for s in self._saved)

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """These outputs never require a gradient."""
        self._not_differentiable = args

    def mark_dirty(self, *args: Tensor) -> None:
        """These inputs were modified in place; each must also be an output."""
        self._dirty = args

    def set_materialize_grads(self, value: bool) -> None:
        """False: gradients of outputs that were not used arrive as None instead of zeros."""
        self._materialize = value

    def _run_backward(self, grads: tuple[Tensor | None, ...], node: Any) -> tuple[Tensor | None, ...]:
        """Called by the engine with a gradient for each tensor output; returns one for each input.

        ``node`` is this context's tape node, kept only for the call: saved outputs get it back while unpacked.
        """
        if self._freed:
            raise RuntimeError(_FREED)
        full: list[Tensor | None] = [None] * self._num_outputs
        for grad, (position, shape, dtype) in zip(grads, self._output_metas, strict=True):
            full[position] = _C.zeros(shape, dtype=dtype) if grad is None and self._materialize else grad
        self._node = node
        try:
            result = self._function._backward_function()(self, *full)
        finally:
            self._node = None
        return self._checked(result if isinstance(result, tuple) else (result,))

    def _checked(self, grads: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
        expected, name = len(self._input_shapes), f"{self._function.__name__}Backward"
        if len(grads) > expected and all(g is None for g in grads[expected:]):
            grads = grads[:expected]
        if len(grads) != expected:
            raise RuntimeError(
                f"function {name} returned an incorrect number of gradients (expected {expected}, got {len(grads)})"
            )
        for i, (grad, shape) in enumerate(zip(grads, self._input_shapes, strict=True)):
            if grad is None:
                continue
            if not isinstance(grad, Tensor):
                raise TypeError(f"function {name}: expected Tensor or None at position {i} (got {_C._type_name(grad)})")
            if shape is None:
                raise RuntimeError(
                    f"function {name} returned a gradient different from None at position {i}, but the corresponding "
                    "forward input was not a Variable"
                )
            if grad.shape != shape and not _broadcasts_to(shape, grad.shape):
                raise RuntimeError(
                    f"Function {name} returned an invalid gradient at index {i} - got {list(grad.shape)} but expected "
                    f"shape compatible with {list(shape)}"
                )
        return grads

    def _release_saved(self) -> None:
        """Called by the engine after backward without ``retain_graph``."""
        if self._saved:
            self._freed = True
            self._saved = ()


def _broadcasts_to(shape: Any, wide: Any) -> bool:
    if len(shape) > len(wide):
        return False
    return all(n in (1, m) for n, m in zip(reversed(shape), reversed(wide), strict=False))


class Function:
    """Base class of functions with their own derivative (:meth:`apply` runs them).

    Write ``forward(ctx, *args)`` and ``backward(ctx, *grads)`` as static methods; or ``forward(*args)`` and
    ``setup_context(ctx, inputs, output)``. ``backward`` gets a gradient for each output and returns one for each
    argument of ``forward`` (None for those without).

    Example::

        class Square(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, grad):
                (x,) = ctx.saved_tensors
                return 2 * x * grad

        y = Square.apply(x)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The result of the function; runs without recording."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Fill ``ctx`` when ``forward`` does not take it."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of the arguments of ``forward``, from those of its outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    vjp = backward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = type(self).__name__
        raise RuntimeError(f"a Function is not called through an object: use {name}.apply(...) with static methods")

    @classmethod
    def _backward_function(cls) -> Callable[..., Any]:
        own, other = cls.backward, cls.vjp
        if other is not Function.vjp:
            if own is not Function.backward:
                raise RuntimeError("Implementing both 'backward' and 'vjp' for a custom Function is not allowed.")
            return other
        return own

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` on the arguments and record ``backward``.

        Tensors directly among the arguments are differentiated; tensors inside lists or dicts are constants.

        Raises:
            RuntimeError: an in-place write that was marked dirty to a leaf or a view, or that is not an output.
        """
        separate = cls.setup_context is not Function.setup_context
        if kwargs:
            args = _bound(cls, args, kwargs, separate)
        tensors = [a if isinstance(a, Tensor) else None for a in args]
        ctx = FunctionCtx(cls)
        recording = _C._records() and any(t is not None and t.requires_grad for t in tensors)
        node: Any = None
        if recording:
            node = _C.FunctionNode(ctx)
            node.name_ = f"{cls.__name__}Backward"
            ctx.needs_input_grad = node.set_inputs(tensors)
        else:
            ctx.needs_input_grad = tuple(t is not None and t.requires_grad for t in tensors)
        with no_grad():
            result = cls.forward(*args) if separate else cls.forward(ctx, *args)
            if separate:
                cls.setup_context(ctx, args, result)
            return _record(ctx, node, tensors, result) if recording else result


def _bound(cls: type[Function], args: Any, kwargs: Any, separate: bool) -> tuple[Any, ...]:
    """Positional arguments of ``forward``, defaults filled in."""
    import inspect  # seldom needed, and slow to import

    call = inspect.signature(cls.forward).bind(*(args if separate else (None, *args)), **kwargs)
    call.apply_defaults()
    if call.kwargs:
        raise TypeError(f"{cls.__name__}.apply(): keyword-only arguments are not supported: {', '.join(call.kwargs)}")
    return call.args if separate else call.args[1:]


def _check_dirty(ctx: FunctionCtx, outputs: tuple[Any, ...]) -> None:
    for t in ctx._dirty:
        if not any(o is t for o in outputs):
            raise RuntimeError(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that "
                "are modified inplace must all be outputs of the Function."
            )
        if t.is_leaf and t.requires_grad:
            raise RuntimeError("a leaf Variable that requires grad has been used in an in-place operation.")
        if t._base is not None:
            raise RuntimeError(
                f"{ctx._function.__name__}: mark_dirty() on a view is not supported, because its base would get a "
                "wrong gradient; apply the function to a clone() and copy_ the result into the view"
            )


def _record(ctx: FunctionCtx, node: Any, inputs: list[Tensor | None], result: Any) -> Any:
    """Makes ``node`` the producer of the outputs and takes snapshots of what was saved. Runs without recording."""
    single = not isinstance(result, tuple)
    outputs = (result,) if single else result
    _check_dirty(ctx, outputs)
    final: list[Any] = list(outputs)
    seen: list[Tensor] = []
    tensors: list[Tensor] = []
    differentiable: list[bool] = []
    metas = []
    for i, out in enumerate(outputs):
        if not isinstance(out, Tensor):
            continue
        constant = any(out is t for t in ctx._not_differentiable)
        if not constant:
            final[i] = _own_output(ctx, inputs, seen, out)
        seen.append(out)
        tensors.append(final[i])
        differentiable.append(not constant and (out.dtype.is_floating_point or out.dtype.is_complex))
        metas.append((i, out.shape, out.dtype))
    ctx._input_shapes = tuple(None if t is None else t.shape for t in inputs)
    ctx._output_metas, ctx._num_outputs = tuple(metas), len(outputs)
    node.set_outputs(tensors, differentiable)
    ctx._saved = tuple(None if t is None else _snapshot(t, tensors, differentiable) for t in ctx._to_save)
    ctx._to_save = ctx._not_differentiable = ctx._dirty = ()
    return final[0] if single else tuple(final)


def _own_output(ctx: FunctionCtx, inputs: list[Tensor | None], seen: list[Tensor], out: Tensor) -> Tensor:
    """The output itself when the node may become its producer, else a view on the same memory."""
    if any(out is t for t in ctx._dirty):
        return out
    if any(out is t for t in inputs) or any(out is t for t in seen):
        return out.view_as(out)
    # A tensor with a history of its own, such as a parameter that forward closes over.
    return out.detach() if out.requires_grad and out._base is None else out


def _snapshot(t: Tensor, outputs: list[Tensor], differentiable: list[bool]) -> Any:
    for i, out in enumerate(outputs):
        if t is out and differentiable[i]:
            return _C.Saved(t, i)
    return _C.Saved(t, -1)


class _Refusal(Function):
    """Identity on the results of a once-differentiable backward; its own backward refuses."""

    @staticmethod
    def forward(ctx: Any, results: tuple[Any, ...], *args: Any) -> tuple[Any, ...]:
        return tuple(r.detach() if isinstance(r, Tensor) else r for r in results)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for a ``backward`` written without recorded ops: a second derivative through it is an error.

    Raises:
        RuntimeError: from the second backward.
    """

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any) -> Any:
        with no_grad():
            results = fn(ctx, *args)
        if not _C._records() or not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return results
        if not isinstance(results, tuple):
            return _Refusal.apply((results,), *args)[0]
        return _Refusal.apply(results, *args)

    return wrapper


guard(__name__)
