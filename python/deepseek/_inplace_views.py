"""Methods that change a tensor's own shape and strides: ``squeeze_``, ``transpose_``, ``resize_`` and their like."""

from __future__ import annotations

import math

from deepseek import _C, _composites
from deepseek._C import Tensor
from deepseek._composites import float_power

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def _in_place(name: str) -> Callable[..., Tensor]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.requires_grad:
            raise NotImplementedError(
                f"{name}_() of a tensor that requires a gradient is not supported; write x = x.{name}(…) instead"
            )
        self.data = getattr(self.detach(), name)(*args, **kwargs)
        return self

    method.__name__ = method.__qualname__ = name + "_"
    # inspect shows the signature of what is wrapped.
    method.__wrapped__ = getattr(_composites, name, None) or getattr(Tensor, name)  # type: ignore[attr-defined]
    method.__doc__ = f":meth:`{name}` of this very tensor: other tensors on its memory stay as they are."
    return method


def _size(size: Sequence[Any]) -> list[int]:
    return list(size[0]) if len(size) == 1 and not isinstance(size[0], int) else list(size)


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


def resize_as_(self: Tensor, other: Tensor, memory_format: Any = None) -> Tensor:
    """:meth:`resize_` to ``other``'s size."""
    return resize_(self, other.shape)


def float_power_(self: Tensor, exponent: Any) -> Tensor:
    """:func:`float_power` into this tensor, which has to be float64.

    Raises:
        RuntimeError: another dtype.
    """
    if self.dtype is not _C.float64:
        raise RuntimeError(
            f"the base given to float_power_ has dtype {self.dtype} but the operation's result requires dtype float64"
        )
    return self.copy_(float_power(self, exponent))


METHODS: dict[str, Any] = {
    f"{name}_": _in_place(name)
    for name in ("as_strided", "squeeze", "swapaxes", "swapdims", "t", "transpose", "unsqueeze")
} | {f.__name__: f for f in (resize_, resize_as_, float_power_)}
