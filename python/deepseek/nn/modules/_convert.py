"""Changing the dtype of a whole module (and refusing devices that do not exist here)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import deepseek
from deepseek import Tensor
from deepseek._tensor.device import no_device
from deepseek._tensor.layout import check_memory_format


def check_device(device: Any) -> None:
    """Accept None and 'cpu' (also 'cpu:0' and device objects of the same name); refuse every other device.

    Raises:
        RuntimeError: one sentence that names the device.
    """
    if device is not None:
        deepseek.device(device)


def _floating(dtype: Any) -> deepseek.dtype:
    if not isinstance(dtype, deepseek.dtype) or not dtype.is_floating_point:
        raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}")
    return dtype


class ConvertMixin:
    """The converting side of :class:`Module`."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    children: Callable[[], Iterator[Any]]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replace the data of every parameter, its gradient and every buffer by ``fn`` of it.

        Parameters keep their identity, so an optimizer made before the conversion still holds them.
        """
        if recurse:
            for child in self.children():
                child._apply(fn)
        for parameter in self._parameters.values():
            if parameter is None:
                continue
            grad = parameter.grad
            with deepseek.no_grad():
                if grad is not None:  # taken off first: a gradient must have its parameter's dtype
                    parameter.grad = None
                parameter.data = fn(parameter.detach())
                if grad is not None:
                    parameter.grad = fn(grad.detach()).requires_grad_(grad.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(
        self,
        device: Any = None,
        dtype: deepseek.dtype | None = None,
        non_blocking: bool = False,
        *,
        tensor: Tensor | None = None,
        memory_format: Any = None,
    ) -> Self:
        """Convert the floating-point parameters and buffers in place.

        Args:
            device: "cpu". A dtype or a tensor in its place is meant as ``dtype`` or ``tensor``.
            dtype: what they become; omitted, nothing changes.
            non_blocking: no effect, there is nothing to wait for.
            tensor: one with that dtype.
            memory_format: no effect, see ``deepseek.memory_format``.

        Raises:
            TypeError: ``dtype`` is not a floating-point dtype.
            RuntimeError: a device other than "cpu".
        """
        if isinstance(device, deepseek.dtype):  # to(dtype, non_blocking)
            device, dtype = None, device
        elif isinstance(device, Tensor):  # to(tensor, non_blocking)
            device, dtype = None, device.dtype
        elif isinstance(dtype, bool):  # to(device, non_blocking)
            dtype = None
        if tensor is not None:
            dtype = tensor.dtype
        check_device(device)
        if memory_format is not None:
            check_memory_format(memory_format)
        if dtype is None:
            return self
        target = _floating(dtype)
        return self._apply(lambda t: t.to(target) if t.is_floating_point() else t)

    def float(self) -> Self:
        """Convert the floating-point parameters and buffers to float32."""
        return self.to(deepseek.float32)

    def double(self) -> Self:
        """Convert the floating-point parameters and buffers to float64."""
        return self.to(deepseek.float64)

    def half(self) -> Self:
        """Convert the floating-point parameters and buffers to float16."""
        return self.to(deepseek.float16)

    def bfloat16(self) -> Self:
        """Convert the floating-point parameters and buffers to bfloat16."""
        return self.to(deepseek.bfloat16)

    def type(self, dst_type: Any) -> Self:
        """Convert all parameters and buffers (integer ones too) to ``dst_type``."""
        return self._apply(lambda t: t.to(dst_type))

    def cpu(self) -> Self:
        """Nothing to do: everything lives on the CPU."""
        return self

    def cuda(self, device: Any = None) -> Self:
        """There is no GPU here.

        Raises:
            RuntimeError: always.
        """
        raise no_device("cuda" if device is None else str(device))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Give every parameter and buffer fresh, uninitialised memory of the same shape and dtype."""
        check_device(device)
        return self._apply(deepseek.empty_like, recurse=recurse)
