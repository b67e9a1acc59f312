"""Mixed precision: ``autocast`` and ``GradScaler``, as ``torch.amp``."""

from __future__ import annotations

import functools
import math

import deepseek
from deepseek import _C
from deepseek._device import DEVICE_TYPES
from deepseek._missing import guard
from deepseek._top import is_autocast_enabled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from deepseek import Tensor, dtype
    from deepseek.optim import Optimizer

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["GradScaler", "autocast", "get_autocast_dtype", "is_autocast_enabled"]


def _check_device(device_type: str, enabled: bool = True) -> None:
    if device_type not in DEVICE_TYPES:
        raise RuntimeError(f"{device_type!r} is not the name of a device; deepseek runs on the CPU only, use 'cpu'")
    if enabled and device_type != "cpu":
        raise RuntimeError(
            f"mixed precision on {device_type!r} is not available: deepseek runs on the CPU only, use 'cpu' (or "
            "enabled=False)"
        )


class autocast:
    """Run matrix products in a 16-bit dtype and losses in float32. A context manager and a decorator.

    The table is PyTorch's for CPUs: docs/architecture.md, "Autocast". Ops in place and with ``out=`` are not cast.

    Args:
        device_type: ``"cpu"``; another device where ``enabled`` is False, which changes nothing on the CPU.
        dtype: ``bfloat16`` (default) or ``float16``; any other switches autocast off with a warning, as in PyTorch.
        enabled: False switches it off inside another autocast.
        cache_enabled: accepted; casts are not cached.

    Raises:
        RuntimeError: another device.
    """

    def __init__(
        self,
        device_type: str = "cpu",
        dtype: dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        _check_device(device_type, enabled)
        self.device = device_type
        self.fast_dtype = _C.bfloat16 if dtype is None else dtype
        if enabled and self.fast_dtype not in (_C.bfloat16, _C.float16):
            import warnings

            warnings.warn(
                f"In CPU autocast, but the target dtype {self.fast_dtype} is not supported. Disabling autocast. CPU "
                "Autocast only supports dtype of deepseek.bfloat16, deepseek.float16 currently.",
                stacklevel=2,
            )
            enabled, self.fast_dtype = False, _C.bfloat16
        self._enabled = enabled
        self._before: list[tuple[bool, _C.dtype]] = []

    def __enter__(self) -> autocast:
        self._before.append(_C._autocast_state())
        if self.device == "cpu":
            _C._set_autocast(self._enabled, self.fast_dtype)
        return self

    def __exit__(self, *exc: object) -> None:
        _C._set_autocast(*self._before.pop())

    def __call__(self, func: F) -> F:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with autocast(self.device, self.fast_dtype, self._enabled):
                return func(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


def get_autocast_dtype(device_type: str = "cpu") -> dtype:
    """The dtype that ``autocast`` computes in here."""
    _check_device(device_type)
    chosen: dtype = _C._autocast_state()[1]
    return chosen


class GradScaler:
    """Scales a float16 loss so that small gradients do not become zero, and skips steps that overflowed.

    ``scale(loss).backward()``, optionally ``unscale_(optimizer)``, ``step(optimizer)``, ``update()``. bfloat16 has
    float32's range and needs none of this.

    Args:
        device: ``"cpu"``; any where ``enabled`` is False.
        init_scale: first factor.
        growth_factor: the factor grows by this after ``growth_interval`` good steps.
        backoff_factor: the factor shrinks by this after an overflow.
        growth_interval: good steps in a row before the factor grows.
        enabled: False makes every method pass its argument through.
    """

    def __init__(
        self,
        device: str = "cpu",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        _check_device(device, enabled)
        if growth_factor <= 1.0:
            raise ValueError(f"The growth factor must be > 1.0, got {growth_factor}")
        if not backoff_factor < 1.0:
            raise ValueError(f"The backoff factor must be < 1.0, got {backoff_factor}")
        self._enabled = enabled
        self._scale = float(init_scale)
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval, self._growth_tracker = growth_interval, 0
        # Optimizers whose gradients were divided since the last update(): id -> gradients overflowed.
        self._unscaled: dict[int, bool] = {}
        self._stepped: set[int] = set()

    def scale(self, outputs: Any) -> Any:
        """``outputs`` (a tensor, or lists and tuples of them) times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, _C.Tensor):
            return outputs * self._scale
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(self.scale(o) for o in outputs)
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the optimizer's gradients by the scale in place, as gradient clipping needs.

        Raises:
            RuntimeError: called twice, or after ``step``, since the last ``update``.
        """
        if not self._enabled:
            return
        key = id(optimizer)
        if key in self._unscaled:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if key in self._stepped:
            raise RuntimeError("unscale_() is being called after step().")
        overflow = False
        with deepseek.no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.mul_(1.0 / self._scale)
                        overflow |= not _all_finite(p.grad)
        self._unscaled[key] = overflow

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step(...)``, unless a gradient is infinite or NaN; returns its result, or None when skipped.

        Raises:
            RuntimeError: called twice since the last ``update``.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or any(callable(a) for a in args):
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        key = id(optimizer)
        if key in self._stepped:
            raise RuntimeError("step() has already been called since the last update().")
        if key not in self._unscaled:
            self.unscale_(optimizer)
        self._stepped.add(key)
        return None if self._unscaled[key] else optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Grow or shrink the scale after the steps of one iteration.

        Raises:
            RuntimeError: no gradients were looked at since the last ``update``.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not self._unscaled:
            raise RuntimeError("No inf checks were recorded prior to update.")
        elif any(self._unscaled.values()):
            self._scale *= self._backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                grown = self._scale * self._growth_factor
                self._scale = grown if math.isfinite(grown) else self._scale
                self._growth_tracker = 0
        self._unscaled.clear()
        self._stepped.clear()

    def get_scale(self) -> float:
        """The current factor (1 when disabled)."""
        return self._scale if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether the scaler does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``load_state_dict`` needs to continue."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            RuntimeError: an empty state, from a scaler that was disabled.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The state is empty, possibly because it was saved from a disabled GradScaler.")
        self._scale = float(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]


def _all_finite(t: Tensor) -> bool:
    return bool(_C.isfinite(t).all())


guard(__name__)
