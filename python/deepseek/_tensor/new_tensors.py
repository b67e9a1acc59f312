"""Methods of Tensor that make new tensors of its dtype and class."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import method
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from deepseek import device, dtype


def _of_class(self: Tensor, fresh: Tensor) -> Tensor:
    """``fresh`` as an object of the class that ops on ``self`` return."""
    cls = _C._result_class(self)
    return fresh if cls is Tensor else _C._as_subclass(fresh, cls)


@method
def new_tensor(
    self: Tensor,
    data: Any,
    *,
    dtype: dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A fresh tensor with ``data``'s values, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


@method
def new_zeros(
    self: Tensor,
    size: int | Sequence[int],
    *more: int,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Zeros of the given size, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.zeros(size, *more, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


@method
def new_ones(
    self: Tensor,
    size: int | Sequence[int],
    *more: int,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Ones of the given size, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.ones(size, *more, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


@method
def new_empty(
    self: Tensor,
    size: int | Sequence[int],
    *more: int,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Uninitialised memory of the given size, in this tensor's dtype unless one is given."""
    return _of_class(self, _C.empty(size, *more, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad))


@method
def new_full(
    self: Tensor,
    size: Sequence[int],
    fill_value: float,
    *,
    dtype: dtype | None = None,
    device: device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """``fill_value`` repeated to the given size, in this tensor's dtype unless one is given."""
    return _of_class(
        self, _C.full(size, fill_value, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)
    )


@method
def as_subclass(self: Tensor, cls: type[Tensor]) -> Tensor:
    """A ``cls`` object on the same memory and in the same graph.

    Raises:
        TypeError: ``cls`` is not a subclass of Tensor.
    """
    if not isinstance(cls, type) or not issubclass(cls, Tensor):
        raise TypeError(f"as_subclass(): cls must be a subclass of Tensor, got {cls!r}")
    return _C._as_subclass(self, cls)
