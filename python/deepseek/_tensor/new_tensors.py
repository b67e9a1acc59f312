"""Methods of Tensor that make new tensors of its dtype and class."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import method, method_named
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


def _attach(op: Any, what: str) -> None:
    """Attach the method ``new_<op>``."""

    def make(
        self: Tensor,
        size: int | Sequence[int],
        *more: int,
        dtype: dtype | None = None,
        device: device | str | None = None,
        requires_grad: bool = False,
        layout: Any = None,
        pin_memory: bool = False,
    ) -> Tensor:
        fresh = op(size, *more, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)
        return _of_class(self, fresh)

    make.__doc__ = f"{what} of the given size, in this tensor's dtype unless one is given."
    method_named(f"new_{op.__name__}")(make)


_attach(_C.zeros, "Zeros")
_attach(_C.ones, "Ones")
_attach(_C.empty, "Uninitialised memory")


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
