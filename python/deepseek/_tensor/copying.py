"""``copy.copy``, ``copy.deepcopy`` and pickling of tensors, between processes as well."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import method
from deepseek._C import Tensor
from deepseek._tensor.storage import address_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import dtype


def _renewed(self: Tensor, data: Tensor) -> Tensor:
    """``data`` as a leaf of the same class, requires_grad and attributes as ``self``."""
    kind = type(self)
    if kind is not Tensor:
        return Tensor._make_subclass(kind, data, self.requires_grad)
    return data.requires_grad_(self.requires_grad) if self.requires_grad else data


@method
def __copy__(self: Tensor) -> Tensor:
    new = _renewed(self, self.detach())
    new.__dict__.update(self.__dict__)
    return new


@method
def __deepcopy__(self: Tensor, memo: dict[Any, Any]) -> Tensor:
    import copy

    if id(self) in memo:
        found: Tensor = memo[id(self)]
        return found
    if not self.is_leaf:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment; "
            "use .detach() first"
        )
    # Tensors that share memory still do afterwards: the whole storage is copied once.
    key = ("deepseek storage", self._storage_ptr())
    source = self.detach()
    if self.numel() == 0:
        data = source.clone()
    else:
        whole = memo.get(key)
        if whole is None or whole.dtype is not self.dtype:
            elements = self._storage_nbytes() // self.element_size()
            whole = memo[key] = source.as_strided((elements,), (1,), 0).clone()
        data = whole.as_strided(self.shape, self.stride(), self.storage_offset()).detach()
    new = _renewed(self, data)
    memo[id(self)] = new
    if self.grad is not None:
        new.grad = copy.deepcopy(self.grad, memo)
    new.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return new


def _rebuild(kind: type[Tensor], raw: bytes, dtype: dtype, shape: tuple[int, ...], requires_grad: bool) -> Tensor:
    import ctypes

    data = _C.empty(shape, dtype=dtype)
    ctypes.memmove(address_of(data), raw, len(raw))
    if kind is not Tensor:
        return Tensor._make_subclass(kind, data, requires_grad)
    return data.requires_grad_(requires_grad)


@method
def __reduce_ex__(self: Tensor, protocol: Any) -> tuple[Any, ...]:
    """Values, dtype, shape and requires_grad: enough to send a tensor to another process."""
    import ctypes

    data = self.detach().contiguous()
    raw = ctypes.string_at(address_of(data), data.nbytes) if data.nbytes else b""
    arguments = (type(self), raw, self.dtype, tuple(self.shape), self.requires_grad)
    return (_rebuild, arguments, self.__dict__ or None)
