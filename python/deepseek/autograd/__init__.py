"""Derivatives: ``backward``, ``grad``, user-defined ``Function`` and the modes that switch recording."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._C import Tensor
from deepseek.autograd.function import Function
from deepseek.autograd.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from deepseek.autograd import functional as functional
    from deepseek.autograd import graph as graph
    from deepseek.autograd.anomaly_mode import detect_anomaly as detect_anomaly
    from deepseek.autograd.anomaly_mode import set_detect_anomaly as set_detect_anomaly
    from deepseek.testing._gradcheck import gradcheck as gradcheck
    from deepseek.testing._gradcheck import gradgradcheck as gradgradcheck

    Tensors = Tensor | Sequence[Tensor]
    OptionalTensors = Tensor | Sequence[Tensor | None] | None

__all__ = [
    "Function",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


def _entries(value: Any) -> list[Any]:
    """Of a sequence; another library's tensor is one thing, as ours is."""
    return list(value) if hasattr(value, "__iter__") and not hasattr(value, "__dlpack__") else [value]


def _as_list(what: str, value: Any) -> list[Tensor]:
    found = _entries(value)
    for t in found:
        if not isinstance(t, Tensor):
            raise TypeError(f"{what} must be Tensors, got {_C._given_for_tensor(t)}")
    return found


def _gradients(roots: list[Tensor], given: Any) -> list[Tensor | None]:
    """One gradient (or None for a scalar root) for each root."""
    if given is None:
        return [None] * len(roots)
    grads = _entries(given)
    for g in grads:
        if g is not None and not isinstance(g, Tensor):
            raise TypeError(f"gradients can be either Tensors or None, but got {_C._given_for_tensor(g)}")
    if len(grads) != len(roots):
        raise RuntimeError(f"got {len(roots)} tensors and {len(grads)} gradients")
    return grads


def backward(
    tensors: Tensors,
    grad_tensors: OptionalTensors = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: OptionalTensors = None,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradients of ``tensors`` to ``.grad`` of the leaves they depend on.

    Args:
        tensors: what to differentiate.
        grad_tensors: a weight of each tensor's shape; may be None for tensors of one element.
        retain_graph: keep saved values so that the graph can be run again (default: ``create_graph``).
        create_graph: record the backward pass itself, for higher derivatives.
        grad_variables: old name of ``grad_tensors``.
        inputs: only these leaves get gradients.

    Raises:
        RuntimeError: no graph, a missing weight, a freed graph, an empty ``inputs``.
    """
    if grad_variables is not None:
        if grad_tensors is not None:
            raise RuntimeError("backward(): give `grad_tensors` or its old name `grad_variables`, not both")
        grad_tensors = grad_variables
    roots = _as_list("tensors", tensors)
    wanted: list[Tensor] = []
    if inputs is not None:
        wanted = _as_list("inputs", inputs)
        if not wanted:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    retain = create_graph if retain_graph is None else retain_graph
    _C._backward(roots, _gradients(roots, grad_tensors), wanted, retain, create_graph)


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: OptionalTensors = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]:
    """Gradients of ``outputs`` with respect to ``inputs``, leaving every ``.grad`` alone.

    Args:
        outputs: what to differentiate.
        inputs: with respect to what; also non-leaf tensors.
        grad_outputs: a weight of each output's shape; may be None for outputs of one element.
        retain_graph: keep saved values so that the graph can be run again (default: ``create_graph``).
        create_graph: record the backward pass itself, for higher derivatives.
        only_inputs: always True.
        allow_unused: None as the gradient of an input that was not used, instead of an error.
        is_grads_batched: not supported.
        materialize_grads: zeros instead of None for unused inputs.

    Returns:
        One gradient of each input's shape.

    Raises:
        RuntimeError: no graph, a freed graph, an unused input.
        ValueError: ``materialize_grads`` with ``allow_unused=False``.
    """
    if is_grads_batched:
        raise NotImplementedError("grad(is_grads_batched=True) is not supported; call grad() for each row")
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True")
    roots, wanted = _as_list("outputs", outputs), _as_list("inputs", inputs)
    if not wanted:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    retain = create_graph if retain_graph is None else retain_graph
    found = _C._grad(roots, _gradients(roots, grad_outputs), wanted, retain, create_graph)
    if materialize_grads:
        pairs = zip(found, wanted, strict=True)
        return tuple(_C.zeros_like(x, requires_grad=create_graph) if g is None else g for g, x in pairs)
    if not allow_unused and any(g is None for g in found):
        raise RuntimeError(
            "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if "
            "this is the desired behavior."
        )
    return tuple(found)  # type: ignore[arg-type]  # None only with allow_unused; PyTorch's type is this one too


guard(
    __name__,
    lazy=("functional", "anomaly_mode", "graph"),
    elsewhere={
        "detect_anomaly": "anomaly_mode",
        "set_detect_anomaly": "anomaly_mode",
        "gradcheck": "deepseek.testing",
        "gradgradcheck": "deepseek.testing",
    },
)
