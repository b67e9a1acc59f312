"""Methods of Tensor about gradients: ``backward``, hooks, and what the tape knows."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import PROPERTIES, method
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


@method
def backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradient of this tensor to ``.grad`` of the leaves it depends on.

    Args:
        gradient: weight of this tensor's shape; may be None for one element.
        retain_graph: keep saved values so that the graph can be run again (default: ``create_graph``).
        create_graph: record the backward pass itself, for higher derivatives.
        inputs: only these leaves get gradients.

    Raises:
        RuntimeError: no graph, a missing ``gradient``, a freed graph.
    """
    from deepseek import autograd

    autograd.backward(self, gradient, retain_graph, create_graph, inputs=inputs)


class RemovableHandle:
    """What ``register_hook`` returns: ``remove()`` takes the hook off; also a context manager."""

    def __init__(self, tensor: Tensor, hook: _Hook, identity: int) -> None:
        import weakref

        self._tensor = weakref.ref(tensor)
        self._hook = hook
        self._identity = identity

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        self._hook.function = None  # also when the tensor is gone and only its graph is left
        tensor = self._tensor()
        if tensor is not None:
            _C._remove_hook(tensor, self._identity)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class _Hook:
    """The function the engine calls; without one it does nothing."""

    def __init__(self, function: Callable[[Tensor], Any], keep_result: bool) -> None:
        self.function: Callable[[Tensor], Any] | None = function
        self._keep_result = keep_result

    def __call__(self, value: Tensor) -> Any:
        result = None if self.function is None else self.function(value)
        if result is not None and not self._keep_result:
            raise RuntimeError("post accumulate grad hooks should return None.")
        return result


@method
def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call ``hook(grad)`` whenever this tensor's gradient is computed; what it returns (unless None) replaces it.

    Raises:
        RuntimeError: the tensor does not require a gradient.
    """
    entry = _Hook(hook, keep_result=True)
    return RemovableHandle(self, entry, _C._register_hook(self, entry))


@method
def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call ``hook(self)`` after a gradient was added to ``.grad``, for leaves.

    Raises:
        RuntimeError: not a leaf that requires a gradient.
    """
    if not self.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    entry = _Hook(hook, keep_result=False)
    return RemovableHandle(self, entry, _C._register_post_accumulate_grad_hook(self, entry))


@method
def is_inference(self: Tensor) -> bool:
    """True for tensors made in ``inference_mode``."""
    return self._is_inference


@method
def _is_view(self: Tensor) -> bool:
    """True for a differentiable view of another tensor."""
    return self._base is not None


PROPERTIES["grad_fn"] = _C._grad_fn
PROPERTIES["output_nr"] = _C._output_nr
