"""Methods that change a tensor's own shape and strides: ``squeeze_``, ``transpose_``, ``resize_`` and their like."""

from __future__ import annotations

import math

from deepseek import _C
from deepseek._binding.public import METHODS, method
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def in_place(function: Callable[..., Tensor]) -> None:
    """Attach the method ``<name>_`` of a function or method that gives a view."""
    name = function.__name__

    def twin(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.requires_grad:
            raise NotImplementedError(
                f"{name}_() of a tensor that requires a gradient is not supported; write x = x.{name}(…) instead"
            )
        self.data = getattr(self.detach(), name)(*args, **kwargs)
        return self

    twin.__name__ = twin.__qualname__ = name + "_"
    twin.__wrapped__ = function  # type: ignore[attr-defined]  # inspect shows the signature of what is wrapped
    twin.__doc__ = f":meth:`{name}` of this very tensor: other tensors on its memory stay as they are."
    METHODS[twin.__name__] = twin


for _name in ("as_strided", "squeeze", "swapaxes", "swapdims", "t", "transpose", "unsqueeze"):
    in_place(getattr(Tensor, _name))


def _size(size: Sequence[Any]) -> list[int]:
    return list(size[0]) if len(size) == 1 and not isinstance(size[0], int) else list(size)


@method
def resize_(self: Tensor, *size: Any, memory_format: Any = None) -> Tensor:
    """This tensor with another size, contiguous, on its memory where that is large enough; new elements are undefined.

    Raises:
        RuntimeError: the tensor requires a gradient.
    """
    if self.requires_grad:
        raise RuntimeError("cannot resize variables that require grad")
    shape = _size(size)
    count, offset = math.prod(shape), self.storage_offset()
    held = self.untyped_storage().nbytes() // self.itemsize
    memory = self.detach()
    if offset + count > held:
        memory = _C.empty([offset + count], dtype=self.dtype)
        memory[:held] = self.detach().as_strided([held], [1], 0)
    strides = [math.prod(max(n, 1) for n in shape[i + 1 :]) for i in range(len(shape))]
    self.data = memory.as_strided(shape, strides, offset)
    return self


@method
def resize_as_(self: Tensor, other: Tensor, memory_format: Any = None) -> Tensor:
    """:meth:`resize_` to ``other``'s size."""
    return resize_(self, other.shape)
