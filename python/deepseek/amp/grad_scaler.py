"""``GradScaler``: a loss scale that follows what float16 gradients can take."""

from __future__ import annotations

import inspect
import math
import warnings
from collections import defaultdict
from enum import Enum
from typing import TYPE_CHECKING, Any

import deepseek
from deepseek import _C
from deepseek._binding.missing import guard
from deepseek.amp.autocast_state import check_device

if TYPE_CHECKING:
    from deepseek import Tensor
    from deepseek.optim import Optimizer

__all__ = ["GradScaler", "OptState"]

_FIX = "This may indicate your script did not use scaler.scale(loss or outputs) earlier in the iteration."
_FP16 = (
    "Attempting to unscale FP16 gradients. They would become zero again: keep the parameters in float32, or give the "
    "optimizer master_weights=True, whose step() divides (amp.train_step(..., max_norm=) clips such gradients)."
)


class OptState(Enum):
    """What happened to an optimizer's gradients since the last ``update``."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _fresh_state() -> dict[str, Any]:
    return {"stage": OptState.READY, "found_inf_per_device": {}}


def _round32(value: float) -> float:
    return deepseek.tensor(value, dtype=deepseek.float32).item()


class GradScaler:
    """Scales a float16 loss so that small gradients do not become zero, and skips steps that overflowed.

    ``scale(loss).backward()``, optionally ``unscale_(optimizer)`` (as clipping needs), ``step(optimizer)``,
    ``update()``. Signature, state, errors and arithmetic are PyTorch's. bfloat16 has float32's range and needs none of
    this. (Micikevicius et al., "Mixed Precision Training", 2018, section 3.2)

    Counted besides, and not part of ``state_dict``: :attr:`steps`, :attr:`skipped_steps`, :attr:`skipped_rate`,
    :attr:`inf_elements`, :attr:`nan_elements`.

    Args:
        device: ``"cpu"``; any where ``enabled`` is False.
        init_scale: first factor.
        growth_factor: the factor grows by this after ``growth_interval`` good steps.
        backoff_factor: the factor shrinks by this after an overflow.
        growth_interval: good steps in a row before the factor grows.
        enabled: False makes every method pass its argument through.
        max_scale: the factor does not grow beyond this (not PyTorch's); None: as far as float32 goes.

    Raises:
        RuntimeError: another device.
        AssertionError: a growth factor that does not grow, a backoff factor that does not shrink.
        ValueError: ``max_scale`` below ``init_scale``.
    """

    def __init__(
        self,
        device: str = "cpu",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        *,
        max_scale: float | None = None,
    ) -> None:
        check_device(device, enabled)
        self._device = device
        self._enabled = bool(enabled)
        self._steps = self._skipped = self._infinite = self._nan = 0
        if not enabled:
            return
        if not growth_factor > 1.0:
            raise AssertionError(f"The growth factor must be > 1.0. Got {growth_factor}.")
        if not backoff_factor < 1.0:
            raise AssertionError(f"The backoff factor must be < 1.0. Got {backoff_factor}.")
        if max_scale is not None and not max_scale >= init_scale:
            raise ValueError(f"max_scale must be at least init_scale={init_scale}, got {max_scale}")
        self._init_scale = init_scale
        self._scale: Tensor | None = None  # float32; made by the first scale(), as is the tracker
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._max_scale = max_scale
        self._init_growth_tracker = 0
        self._growth_tracker: Tensor | None = None  # int32: good steps since the scale last changed
        self._per_optimizer_states: defaultdict[int, dict[str, Any]] = defaultdict(_fresh_state)

    # --- the loss

    def _begin(self) -> Tensor:
        if self._scale is None:
            self._scale = deepseek.full((), self._init_scale, dtype=deepseek.float32)
            self._growth_tracker = deepseek.full((), self._init_growth_tracker, dtype=deepseek.int32)
        return self._scale

    def _begun(self, method: str) -> tuple[Tensor, Tensor]:
        if self._scale is None:
            raise AssertionError(f"Attempted {method} but _scale is None.  {_FIX}")
        if self._growth_tracker is None:
            raise AssertionError(f"Attempted {method} but _growth_tracker is None.  {_FIX}")
        return self._scale, self._growth_tracker

    def scale(self, outputs: Any) -> Any:
        """``outputs`` (a tensor, or iterables of them) times the scale; lists and tuples stay what they are.

        Raises:
            ValueError: something else than tensors.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, _C.Tensor):
            return outputs * self._begin()
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(map(self.scale, outputs))
        if hasattr(outputs, "__iter__"):
            return map(self.scale, outputs)
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    # --- the gradients

    def _unscale_grads_(self, optimizer: Optimizer, inv_scale: float, allow_fp16: bool) -> dict[Any, Tensor]:
        """Multiply all gradients in one pass; per device whether one was not finite. Empty without gradients."""
        grads = []
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                if not allow_fp16 and param.grad.dtype is deepseek.float16:
                    raise ValueError(_FP16)
                grads.append(param.grad)
        if not grads:
            return {}
        with deepseek.no_grad():
            counts = _C._count_nonfinite(grads) if inv_scale == 1.0 else _C._unscale(grads, inv_scale)
        infinite, nan = (int(count) for count in counts)
        self._infinite += infinite
        self._nan += nan
        found = deepseek.full((), float(infinite + nan > 0), dtype=deepseek.float32)
        return {deepseek.device(self._device): found}

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the optimizer's gradients by the scale in place, as gradient clipping needs.

        Raises:
            AssertionError: nothing was scaled before.
            RuntimeError: called twice, or after ``step``, since the last ``update``.
            ValueError: gradients of float16, which means parameters of float16: keep those in float32, or clip through
                :func:`train_step` what has masters.
        """
        if not self._enabled:
            return
        scale, _ = self._begun("unscale_")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        inv_scale = scale.double().reciprocal().float().item()
        state["found_inf_per_device"] = self._unscale_grads_(optimizer, inv_scale, allow_fp16=False)
        state["stage"] = OptState.UNSCALED

    def _check_inf_per_device(self, optimizer: Optimizer) -> dict[Any, Tensor]:
        """Look at the gradients without a change, for an optimizer that unscales them itself."""
        self._begun("_check_inf_per_device")
        found = self._unscale_grads_(optimizer, 1.0, allow_fp16=True)
        self._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
        return found

    def _found_inf_per_device(self, optimizer: Optimizer) -> dict[Any, Tensor]:
        found: dict[Any, Tensor] = self._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
        return found

    # --- the step

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step(...)``, unless a gradient is infinite or NaN; returns its result, or None when skipped.

        Gradients that were not unscaled yet are unscaled first. An optimizer with ``_step_supports_amp_scaling`` is
        always called, with the attributes ``grad_scale`` and ``found_inf`` (tensors), and does both itself.

        Raises:
            AssertionError: nothing was scaled before; the optimizer has no gradients.
            RuntimeError: called twice since the last ``update``; a closure (whose gradients nobody would look at).
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or any(callable(a) for a in args):
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._begun("step")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            return self._step_of_its_own(optimizer, state, args, kwargs)
        if state["stage"] is OptState.READY:
            self.unscale_(optimizer)
        if not state["found_inf_per_device"]:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        skipped = any(found.item() for found in state["found_inf_per_device"].values())
        self._count(skipped)
        result = None if skipped else optimizer.step(*args, **kwargs)
        state["stage"] = OptState.STEPPED
        return result

    def _step_of_its_own(self, optimizer: Any, state: dict[str, Any], args: Any, kwargs: dict[str, Any]) -> Any:
        if "grad_scaler" in inspect.signature(optimizer.step).parameters:  # the older way, which PyTorch will drop
            warnings.warn(
                "GradScaler is going to stop passing itself as a keyword argument to the passed optimizer: it sets the "
                "attributes grad_scale and found_inf of an optimizer whose step() has no grad_scaler",
                FutureWarning,
                stacklevel=3,
            )
            result = optimizer.step(*args, **kwargs, grad_scaler=self)
            state["stage"] = OptState.STEPPED
            return result
        if state["stage"] is OptState.READY:
            self._check_inf_per_device(optimizer)
            optimizer.grad_scale = self._begin() * getattr(optimizer, "grad_scale", 1)
        else:  # the gradients were divided already
            optimizer.grad_scale = getattr(optimizer, "grad_scale", None)
        found = sum(f.item() for f in state["found_inf_per_device"].values())
        optimizer.found_inf = deepseek.full((), float(found), dtype=deepseek.float32)
        self._count(found > 0)
        try:
            result = optimizer.step(*args, **kwargs)
        finally:  # left behind, they would count in the next step
            del optimizer.grad_scale, optimizer.found_inf
        state["stage"] = OptState.STEPPED
        return result

    def _count(self, skipped: bool) -> None:
        self._steps += 1
        self._skipped += skipped

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Grow or shrink the scale after the steps of one iteration, or set it to ``new_scale``.

        Raises:
            AssertionError: nothing was scaled, or no gradients were looked at, since the last ``update``; a new scale
                that is a tensor of several elements or requires a gradient.
        """
        if not self._enabled:
            return
        scale, tracker = self._begun("update")
        if isinstance(new_scale, _C.Tensor):
            if new_scale.numel() != 1 or new_scale.requires_grad:
                raise AssertionError("new_scale should be a float or a 1-element Tensor with requires_grad=False.")
            scale.fill_(new_scale.item())
        elif new_scale is not None:
            scale.fill_(float(new_scale))
        else:
            states = self._per_optimizer_states.values()
            found = [f.item() for state in states for f in state["found_inf_per_device"].values()]
            if not found:
                raise AssertionError("No inf checks were recorded prior to update.")
            self._move(scale, tracker, any(found))
        self._per_optimizer_states = defaultdict(_fresh_state)

    def _move(self, scale: Tensor, tracker: Tensor, overflow: bool) -> None:
        if overflow:
            scale.fill_(_round32(scale.item() * self._backoff_factor))
            tracker.fill_(0)
            return
        good = int(tracker.item()) + 1
        if good == self._growth_interval:
            grown = _round32(scale.item() * self._growth_factor)
            if self._max_scale is not None:
                grown = max(min(grown, float(self._max_scale)), scale.item())  # never less than it is
            if math.isfinite(grown):
                scale.fill_(grown)
            good = 0
        tracker.fill_(good)

    # --- what was found

    @property
    def steps(self) -> int:
        """Calls of ``step`` so far, of all optimizers, skipped ones included."""
        return self._steps

    @property
    def skipped_steps(self) -> int:
        """Calls of ``step`` that found a gradient that was not finite."""
        return self._skipped

    @property
    def skipped_rate(self) -> float:
        """``skipped_steps / steps``; 0 before the first."""
        return self._skipped / self._steps if self._steps else 0.0

    @property
    def inf_elements(self) -> int:
        """Infinite gradient elements so far: overflow, which a smaller scale heals."""
        return self._infinite

    @property
    def nan_elements(self) -> int:
        """Gradient elements so far that were NaN: where they stay at small scales, the model is at fault."""
        return self._nan

    def __repr__(self) -> str:
        if not self._enabled:
            return "GradScaler(enabled=False)"
        return (
            f"GradScaler(scale={self.get_scale():g}, steps={self.steps}, skipped_steps={self.skipped_steps} "
            f"({self.skipped_rate:.2%}), inf_elements={self.inf_elements}, nan_elements={self.nan_elements})"
        )

    # --- settings

    def _get_scale_async(self) -> Tensor | None:
        return self._scale

    def get_scale(self) -> float:
        """The current factor (1 when disabled)."""
        if not self._enabled:
            return 1.0
        return float(self._init_scale if self._scale is None else self._scale.item())

    def get_growth_factor(self) -> float:
        """The factor by which the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """The factor by which the scale shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """Good steps in a row before the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set how many good steps in a row let the scale grow."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return int(self._init_growth_tracker if self._growth_tracker is None else self._growth_tracker.item())

    def is_enabled(self) -> bool:
        """Whether the scaler does anything."""
        return self._enabled

    # --- saving

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``load_state_dict`` needs to continue, best after ``update``; empty when disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, of this class or of PyTorch's; nothing when disabled.

        Raises:
            RuntimeError: an empty state, from a scaler that was disabled.
        """
        if not self._enabled:
            return
        if len(state_dict) == 0:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._init_scale = state_dict["scale"]
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._scale is not None and self._growth_tracker is not None:
            self._scale.fill_(self._init_scale)
            self._growth_tracker.fill_(self._init_growth_tracker)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if not self._enabled:
            return state
        if self._per_optimizer_states:
            raise AssertionError(
                "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after "
                "scaler.update()."
            )
        state["_init_scale"] = self.get_scale()
        state["_init_growth_tracker"] = self._get_growth_tracker()
        state["_scale"] = state["_growth_tracker"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


guard(__name__)
