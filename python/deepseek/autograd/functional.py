"""Whole derivatives of functions of tensors: Jacobians, Hessians and their products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._C import Tensor
from deepseek.autograd import grad
from deepseek.autograd.grad_mode import enable_grad

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vjp"]

Tensors = Tensor | Sequence[Tensor]


def _tuple(value: Any, what: str) -> tuple[tuple[Tensor, ...], bool]:
    single = isinstance(value, Tensor)
    found = (value,) if single else tuple(value)
    for i, t in enumerate(found):
        if not isinstance(t, Tensor):
            raise TypeError(f"The {what} must be Tensors, but the value at index {i} has type {_C._type_name(t)}")
    return found, single


def _prepared(inputs: tuple[Tensor, ...], create_graph: bool) -> tuple[Tensor, ...]:
    """Inputs to differentiate: still attached to the caller's graph with ``create_graph``, else fresh leaves."""
    if create_graph:
        return tuple(t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in inputs)
    return tuple(t.detach().requires_grad_() for t in inputs)


def _run(func: Callable[..., Any], inputs: Tensors, create_graph: bool) -> tuple[Any, ...]:
    """(inputs to differentiate, single input?, outputs, single output?)"""
    given, single_input = _tuple(inputs, "inputs")
    leaves = _prepared(given, create_graph)
    outputs, single_output = _tuple(func(*leaves), "outputs of the function")
    return leaves, single_input, outputs, single_output


def _shaped(rows: Any, single: bool) -> Any:
    return rows[0] if single else tuple(rows)


def _grad(outputs: Any, inputs: Any, weights: Any, retain: bool, create_graph: bool, strict: bool) -> list[Tensor]:
    """Gradients with zeros for inputs that have no part in the outputs, or an error with ``strict``."""
    used = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if used:
        found = grad(
            [o for o, _ in used],
            inputs,
            [w for _, w in used],
            retain_graph=retain or create_graph,
            create_graph=create_graph,
            allow_unused=True,
        )
    if strict and any(g is None for g in found):
        raise RuntimeError(f"strict mode: the output is independent of input {list(found).index(None)}")
    return [_C.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def jacobian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False, vectorize: bool = False
) -> Any:
    """d func(inputs) / d inputs.

    Args:
        func: takes the tensors, returns a tensor or a tuple of them.
        inputs: a tensor or a tuple of them.
        create_graph: the result can itself be differentiated.
        strict: an output that does not depend on an input is an error instead of zeros.
        vectorize: not supported; one backward pass runs for each output element.

    Returns:
        Shape ``output.shape + input.shape``; nested as ``[output][input]`` where there are tuples.
    """
    if vectorize:
        raise NotImplementedError("jacobian(vectorize=True) is not supported")
    with enable_grad():
        leaves, single_input, outputs, single_output = _run(func, inputs, create_graph)
        result = []
        for out in outputs:
            rows: list[list[Tensor]] = [[] for _ in leaves]
            for i in range(out.numel()):
                weight = _C.zeros_like(out).reshape(-1)
                weight[i] = 1
                found = _grad((out,), leaves, (weight.reshape(out.shape),), True, create_graph, strict)
                for row, g in zip(rows, found, strict=True):
                    row.append(g)
            parts = [
                _C.stack(row).reshape(out.shape + x.shape) if row else _C.zeros(out.shape + x.shape, dtype=x.dtype)
                for row, x in zip(rows, leaves, strict=True)
            ]
            result.append(_shaped(parts, single_input))
    return _shaped(result, single_output)


def hessian(
    func: Callable[..., Tensor],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
) -> Any:
    """Second derivatives of a function with one output element.

    Returns:
        Shape ``input.shape + input.shape``; nested as ``[input][input]`` for a tuple of inputs.

    Raises:
        RuntimeError: the function's result has more than one element.
    """
    single_input = isinstance(inputs, Tensor)

    def gradient(*xs: Tensor) -> Any:
        out = func(*xs)
        if not isinstance(out, Tensor) or out.numel() != 1:
            raise RuntimeError("The Tensor returned by the function given to hessian should contain a single element")
        found = _grad((out,), xs, (_C.ones_like(out),), True, True, strict)
        return _shaped(found, single_input)

    return jacobian(gradient, inputs, create_graph=create_graph, strict=strict, vectorize=vectorize)


def vjp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(inputs), v^T J): the vector-Jacobian product. ``v`` has the outputs' shapes; None for one element."""
    with enable_grad():
        leaves, single_input, outputs, single_output = _run(func, inputs, create_graph)
        weights = tuple(_C.ones_like(o) for o in outputs) if v is None else _tuple(v, "v")[0]
        if v is None and any(o.numel() != 1 for o in outputs):
            raise RuntimeError("The vector v can only be None if the user-provided function returns a single element.")
        found = _grad(outputs, leaves, weights, create_graph, create_graph, strict)
    kept = outputs if create_graph else tuple(o.detach() for o in outputs)
    return _shaped(kept, single_output), _shaped(found, single_input)


def jvp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(inputs), J v): the Jacobian-vector product, by differentiating the vjp in its weight."""
    with enable_grad():
        leaves, _, outputs, single_output = _run(func, inputs, create_graph)
        tangents = tuple(_C.ones_like(x) for x in leaves) if v is None else _tuple(v, "v")[0]
        if v is None and any(x.numel() != 1 for x in leaves):
            raise RuntimeError("The vector v can only be None if the input is a single element.")
        weights = tuple(_C.zeros_like(o).requires_grad_() for o in outputs)
        transposed = _grad(outputs, leaves, weights, True, True, strict)
        found = _grad(transposed, weights, tangents, create_graph, create_graph, False)
    kept = outputs if create_graph else tuple(o.detach() for o in outputs)
    return _shaped(kept, single_output), _shaped(found, single_output)


def hvp(
    func: Callable[..., Tensor], inputs: Tensors, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(inputs), H v): the Hessian-vector product of a function with one output element."""
    single_input = isinstance(inputs, Tensor)
    with enable_grad():
        leaves, _, outputs, _ = _run(func, inputs, create_graph)
        first = _grad(outputs, leaves, tuple(_C.ones_like(o) for o in outputs), True, True, strict)
        vectors = tuple(_C.ones_like(x) for x in leaves) if v is None else _tuple(v, "v")[0]
        found = _grad(first, leaves, vectors, create_graph, create_graph, strict)
    kept = outputs if create_graph else tuple(o.detach() for o in outputs)
    return kept[0], _shaped(found, single_input)


guard(__name__)
