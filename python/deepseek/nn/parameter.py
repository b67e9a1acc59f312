"""Tensors that a module knows about: ``Parameter`` (trained) and ``Buffer`` (state that is not trained)."""

from __future__ import annotations

from typing import Any

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.missing import guard

__all__ = ["Buffer", "Parameter"]


def _require_tensor(kind: str, data: Any) -> Tensor:
    if not isinstance(data, Tensor):
        name = _C._type_name(data)
        raise TypeError(f"{kind} expects a Tensor, but got {name}; make one with deepseek.tensor(...) first")
    return data


def _rebuild(cls: type, data: Tensor, requires_grad: bool, attributes: dict[str, Any]) -> Tensor:
    tensor: Tensor = Tensor._make_subclass(cls, data, requires_grad)
    tensor.__dict__.update(attributes)
    return tensor


class _ModuleTensor(Tensor):
    """What Parameter and Buffer share: copying and pickling keep the class and the instance's attributes.

    Ops on them give plain tensors, not parameters.
    """

    __torch_function__ = _C._disabled_torch_function_impl  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        copied = _rebuild(type(self), self.detach().clone(), self.requires_grad, dict(self.__dict__))
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.detach(), self.requires_grad, dict(self.__dict__))


class Parameter(_ModuleTensor):
    """A tensor that a :class:`Module` registers as its parameter when it is assigned as an attribute.

    Args:
        data: the tensor whose storage the parameter shares; an empty one when omitted.
        requires_grad: whether gradients are recorded (True, as a parameter is there to be trained).

    Raises:
        TypeError: ``data`` is not a tensor.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        source = deepseek.empty(0) if data is None else _require_tensor("Parameter", data)
        parameter: Parameter = Tensor._make_subclass(cls, source, requires_grad)
        return parameter

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Everything happens in ``__new__``; this only states the signature."""

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(_ModuleTensor):
    """A tensor that a :class:`Module` registers as its buffer when it is assigned as an attribute.

    Args:
        data: the tensor whose storage the buffer shares; an empty one when omitted.
        persistent: whether ``state_dict()`` contains it.

    Raises:
        TypeError: ``data`` is not a tensor.
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        source = deepseek.empty(0) if data is None else _require_tensor("Buffer", data)
        buffer: Buffer = Tensor._make_subclass(cls, source, source.requires_grad)
        buffer.persistent = persistent
        return buffer

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        """Everything happens in ``__new__``; this only states the signature."""

    def __repr__(self) -> str:
        return "Buffer containing:\n" + super().__repr__()


guard(__name__)
