"""Changing the dtype of a whole module (and refusing devices that do not exist here)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import deepseek
from deepseek import Tensor

_NO_DEVICE = "deepseek runs on CPUs only: device '{device}' does not exist here, keep modules and tensors on 'cpu'"


def check_device(device: Any) -> None:
    """Accept None and 'cpu' (also 'cpu:0' and device objects of the same name); refuse every other device.

    Raises:
        RuntimeError: one sentence that names the device.
    """
    if device is not None and str(device).split(":", 1)[0] != "cpu":
        raise RuntimeError(_NO_DEVICE.format(device=device))


def _parse_to(args: tuple[Any, ...], dtype: Any, device: Any) -> Any:
    """The dtype that ``Module.to``'s arguments ask for, or None; the device is checked on the way."""
    for value in args:
        if isinstance(value, Tensor):
            dtype = value.dtype
        elif isinstance(value, deepseek.dtype):
            dtype = value
        elif value is not None and not isinstance(value, bool):  # a bool here is non_blocking
            device = value
    check_device(device)
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}")
    return dtype


class ConvertMixin:
    """The converting side of :class:`Module`."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    children: Callable[[], Iterator[Any]]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
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

    def to(self, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False) -> Any:
        """Convert the floating-point parameters and buffers in place.

        Called as ``to(dtype)``, ``to(device)``, ``to(device, dtype)`` or ``to(tensor)``; the only device is "cpu".

        Raises:
            TypeError: ``dtype`` is not a floating-point dtype.
            RuntimeError: a device other than "cpu".
        """
        target = _parse_to(args, dtype, device)
        if target is None:
            return self
        return self._apply(lambda t: t.to(target) if t.is_floating_point() else t)

    def float(self) -> Any:
        """Convert the floating-point parameters and buffers to float32."""
        return self.to(deepseek.float32)

    def double(self) -> Any:
        """Convert the floating-point parameters and buffers to float64."""
        return self.to(deepseek.float64)

    def half(self) -> Any:
        """Convert the floating-point parameters and buffers to float16."""
        return self.to(deepseek.float16)

    def bfloat16(self) -> Any:
        """Convert the floating-point parameters and buffers to bfloat16."""
        return self.to(deepseek.bfloat16)

    def type(self, dst_type: Any) -> Any:
        """Convert all parameters and buffers (integer ones too) to ``dst_type``."""
        return self._apply(lambda t: t.to(dst_type))

    def cpu(self) -> Any:
        """Nothing to do: everything lives on the CPU."""
        return self

    def cuda(self, device: Any = None) -> Any:
        """There is no GPU here.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(_NO_DEVICE.format(device="cuda" if device is None else device))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Any:
        """Give every parameter and buffer fresh, uninitialised memory of the same shape and dtype."""
        check_device(device)
        return self._apply(deepseek.empty_like, recurse=recurse)
