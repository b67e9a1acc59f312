"""A whole step of mixed precision: ``train_step``, ``mixed_precision_forward``."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.missing import guard
from deepseek.amp.autocast_mode import autocast
from deepseek.amp.grad_scaler import GradScaler

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek import dtype
    from deepseek.optim import Optimizer

__all__ = ["StepResult", "mixed_precision_forward", "train_step"]

_DTYPES = (_C.bfloat16, _C.float16, _C.float32)
# The scalers of train_step, one an optimizer, so that their state lasts from call to call.
_scalers: weakref.WeakKeyDictionary[Any, GradScaler] = weakref.WeakKeyDictionary()


class StepResult(NamedTuple):
    """What :func:`train_step` returns."""

    loss: Tensor
    """The loss, not scaled, without a graph; 0-d."""
    skipped: bool
    """Whether a gradient was infinite or NaN, so that the parameters are as they were."""
    scale: float
    """The factor the loss was multiplied by (1 for bfloat16 and float32)."""
    grad_norm: Tensor | None
    """Norm of all gradients before clipping, where ``max_norm`` was given; 0-d."""


def _check_dtype(function: str, chosen: dtype) -> None:
    if chosen not in _DTYPES:
        raise ValueError(f"{function}: dtype must be bfloat16, float16 or float32, got {chosen}")


def _check_scale(function: str, name: str, scale: float, max_scale: float | None) -> None:
    if not 0 < scale < math.inf:
        raise ValueError(f"{function}: {name} must be a positive, finite number, got {scale}")
    if max_scale is not None and not scale <= max_scale:
        raise ValueError(
            f"{function}: {name} must be at most max_scale={max_scale}, got {scale}; give a larger max_scale, or None"
        )


def _called(model: Any, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def _loss(function: str, output: Any) -> Tensor:
    """The one number that a model computed: its output, or ``loss`` in that."""
    loss = output["loss"] if isinstance(output, Mapping) and "loss" in output else getattr(output, "loss", output)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ValueError(
            f"{function}: the model must return its loss (one number, or an object or dict with 'loss'), got {found}; "
            "otherwise give loss_fn"
        )
    return loss


def _forward(
    function: str, model: Any, data: Any, loss_fn: Callable[..., Any] | None, chosen: dtype, context: str
) -> Tensor:
    with autocast("cpu", chosen if chosen is not _C.float32 else None, enabled=chosen is not _C.float32):
        if loss_fn is None:
            return _loss(function, _called(model, data))
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ValueError(f"{function}: with loss_fn, {context} must be a pair (inputs, targets)")
        inputs, targets = data
        return _loss(function, loss_fn(_called(model, inputs), targets))


def train_step(
    model: Callable[..., Any],
    data: Any,
    optimizer: Optimizer,
    *,
    loss_fn: Callable[..., Any] | None = None,
    dtype: dtype | None = None,
    scaler: GradScaler | None = None,
    max_norm: float | None = None,
    init_scale: float = 2.0**16,
    max_scale: float | None = None,
) -> StepResult:
    """One training step in mixed precision: forward under autocast, backward, check, clip, optimizer, new scale.

    Parameters stay float32 (the master copy) and so do their gradients. With float16 the loss is scaled, gradients are
    divided by the scale (Micikevicius et al., 2018). bfloat16 has float32's range: its loss is not scaled. In every
    dtype the step is skipped when a gradient is infinite or NaN: parameters and the optimizer's state stay what they
    are, and a scale is halved.

    Args:
        model: called with ``data``: a tensor as its argument, a tuple or list as several, a dict as keywords. Returns
            the loss, or an object or dict with ``loss``.
        data: one batch; with ``loss_fn`` a pair (inputs, targets).
        optimizer: of the model's parameters; its gradients are dropped first.
        loss_fn: ``loss_fn(model(inputs), targets)`` is the loss.
        dtype: bfloat16 (None), float16, or float32 for no autocast. ``best_dtype().dtype`` is the fastest here.
        scaler: the scaler; None: float16 has one for each optimizer, which lasts as long as that. One that is disabled
            scales nothing, and gradients are looked at all the same.
        max_norm: clip the gradients' norm to this. Gradients of parameters with masters, which a scaler leaves scaled,
            are clipped in the step.
        init_scale, max_scale: of the scaler that is made, at the first call with an optimizer.

    Returns:
        :class:`StepResult`: loss (not scaled), skipped, scale, grad_norm.

    Raises:
        ValueError: another dtype; a model that returns no loss; float16 parameters without ``master_weights=True`` (see
            :class:`GradScaler`); an ``init_scale`` that is not positive and finite, or above ``max_scale``.
    """
    chosen = _C.bfloat16 if dtype is None else dtype
    _check_dtype("train_step", chosen)
    if scaler is None and chosen is _C.float16:
        scaler = _scaler_of(optimizer, init_scale, max_scale)
    optimizer.zero_grad()
    loss = _forward("train_step", model, data, loss_fn, chosen, "data")
    if scaler is None or not scaler.is_enabled():
        loss.backward()
        return StepResult(loss.detach(), *_step_unscaled(optimizer, max_norm))
    scale, skipped_before = scaler.get_scale(), scaler.skipped_steps
    scaler.scale(loss).backward()
    norm = None
    if max_norm is not None:
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            norm = _clip_in_step(optimizer, max_norm, scale)
        else:
            scaler.unscale_(optimizer)
            norm = _clip(optimizer, max_norm)
    scaler.step(optimizer)
    scaler.update()
    return StepResult(loss.detach(), scaler.skipped_steps > skipped_before, scale, norm)


def _scaler_of(optimizer: Optimizer, init_scale: float, max_scale: float | None) -> GradScaler:
    if optimizer not in _scalers:
        _check_scale("train_step", "init_scale", init_scale, max_scale)
        _scalers[optimizer] = GradScaler(init_scale=init_scale, max_scale=max_scale)
    return _scalers[optimizer]


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    return [parameter.grad for parameter in _parameters(optimizer) if parameter.grad is not None]


def _clip(optimizer: Optimizer, max_norm: float) -> Tensor:
    return deepseek.nn.utils.clip_grad_norm_(_parameters(optimizer), max_norm)


def _clip_in_step(optimizer: Any, max_norm: float, scale: float) -> Tensor:
    """Clip where the optimizer divides by the scale itself: it divides by more.

    The gradients of 16-bit parameters with masters stay scaled: their product with a small factor may be zero in
    float16, in the step it is made in float32.
    """
    grads = _gradients(optimizer)
    norm = float(_C._sum_squares(grads).sqrt().item()) / scale
    if norm + 1e-6 > max_norm:  # as clip_grad_norm_ has it
        divisor = (norm + 1e-6) / max_norm if max_norm else math.inf
        # GradScaler.step multiplies this by the scale, and takes it away again.
        optimizer.grad_scale = deepseek.full((), divisor, dtype=deepseek.float32)
    return deepseek.full((), norm, dtype=deepseek.float32)


def _step_unscaled(optimizer: Optimizer, max_norm: float | None) -> tuple[bool, float, Tensor | None]:
    """Check, clip and step where the loss was not scaled: whether it was skipped, the scale, the norm."""
    infinite, nan = (int(count) for count in _C._count_nonfinite(_gradients(optimizer)))
    norm = None if max_norm is None else _clip(optimizer, max_norm)
    skipped = infinite + nan > 0
    if not skipped:
        optimizer.step()
    return skipped, 1.0, norm


def mixed_precision_forward(
    model: Callable[..., Any],
    inputs: Any,
    scale: float | GradScaler = 128,
    *,
    loss_fn: Callable[..., Any] | None = None,
    dtype: dtype | None = None,
    max_scale: float | None = 65536.0,
) -> tuple[Tensor, GradScaler]:
    """The forward half of a step: the loss times its scale, and the scaler that the other half needs.

    ::

        scaler = 128
        for inputs in batches:
            loss, scaler = mixed_precision_forward(model, inputs, scaler, dtype=deepseek.float16)
            optimizer.zero_grad()
            loss.backward()
            scaler.step(optimizer)  # divides the gradients; skips the step when one is not finite
            scaler.update()  # half the scale then, twice after many good steps

    What decides about the scale are gradients, not the loss, which may be finite when they are not.

    Args:
        model, inputs, loss_fn, dtype: as ``data`` and its like of :func:`train_step`.
        scale: the first scale (``init_scale``), later the scaler that was returned. One that is enabled scales in every
            dtype; one that is disabled is refused with float16.
        max_scale: of the scaler that is made: the scale does not grow beyond it.

    Returns:
        ``(loss * scale, scaler)``. For bfloat16 and float32, which need no scale, the loss as it is and a scaler that
        is disabled: the code above stays the same.

    Raises:
        ValueError: another dtype; a model that returns no loss; a scale that is not positive and finite, or above
            ``max_scale``; float16 with a scaler that is disabled.
    """
    chosen = _C.bfloat16 if dtype is None else dtype
    _check_dtype("mixed_precision_forward", chosen)
    if not isinstance(scale, GradScaler):
        _check_scale("mixed_precision_forward", "scale", scale, max_scale)
        scale = GradScaler(init_scale=float(scale), max_scale=max_scale, enabled=chosen is _C.float16)
    elif chosen is _C.float16 and not scale.is_enabled():
        raise ValueError(
            "mixed_precision_forward: scale is a disabled GradScaler (calls in bfloat16 and float32 return one), and "
            "float16 needs a scale: give a number, as in the first call, or a GradScaler that is enabled"
        )
    loss = _forward("mixed_precision_forward", model, inputs, loss_fn, chosen, "inputs")
    return scale.scale(loss), scale


guard(__name__)
