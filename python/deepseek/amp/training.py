"""A whole step of mixed precision: ``train_step``, ``mixed_precision_forward``."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import deepseek
from deepseek import _C, Tensor
from deepseek._missing import guard
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
    looked at after they were divided by the scale, and a step with one that is not finite is skipped and halves the
    scale (Micikevicius et al., 2018). bfloat16 has float32's range: its loss is not scaled.

    Args:
        model: called with ``data``: a tensor as its argument, a tuple or list as several, a dict as keywords. Returns
            the loss, or an object or dict with ``loss``.
        data: one batch; with ``loss_fn`` a pair (inputs, targets).
        optimizer: of the model's parameters; its gradients are dropped first.
        loss_fn: ``loss_fn(model(inputs), targets)`` is the loss.
        dtype: bfloat16 (None), float16, or float32 for no autocast. ``best_dtype().dtype`` is the fastest here.
        scaler: the scaler; None: float16 has one for each optimizer, which lasts as long as that.
        max_norm: clip the gradients' norm to this.
        init_scale, max_scale: of the scaler that is made, at the first call with an optimizer.

    Returns:
        :class:`StepResult`: loss (not scaled), skipped, scale, grad_norm.

    Raises:
        ValueError: another dtype; a model that returns no loss; float16 parameters (see :class:`GradScaler`).
    """
    chosen = _C.bfloat16 if dtype is None else dtype
    _check_dtype("train_step", chosen)
    if scaler is None:
        scaler = _scaler_of(optimizer, chosen, init_scale, max_scale)
    optimizer.zero_grad()
    loss = _forward("train_step", model, data, loss_fn, chosen, "data")
    scale, skipped_before = scaler.get_scale(), scaler.skipped_steps
    scaler.scale(loss).backward()
    norm = None
    if max_norm is not None:
        scaler.unscale_(optimizer)
        norm = deepseek.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], max_norm
        )
    scaler.step(optimizer)
    scaler.update()
    return StepResult(loss.detach(), scaler.skipped_steps > skipped_before, scale, norm)


def _scaler_of(optimizer: Optimizer, chosen: dtype, init_scale: float, max_scale: float | None) -> GradScaler:
    if chosen is not _C.float16:
        return GradScaler(enabled=False)
    if optimizer not in _scalers:
        _scalers[optimizer] = GradScaler(init_scale=init_scale, max_scale=max_scale)
    return _scalers[optimizer]


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
        scale: the first scale (``init_scale``), later the scaler that was returned.
        max_scale: of the scaler that is made: the scale does not grow beyond it.

    Returns:
        ``(loss * scale, scaler)``. For bfloat16 and float32, which need no scale, the loss as it is and a scaler that
        is disabled: the code above stays the same.

    Raises:
        ValueError: another dtype; a model that returns no loss.
    """
    chosen = _C.bfloat16 if dtype is None else dtype
    _check_dtype("mixed_precision_forward", chosen)
    if not isinstance(scale, GradScaler):
        scale = GradScaler(init_scale=float(scale), max_scale=max_scale, enabled=chosen is _C.float16)
    loss = _forward("mixed_precision_forward", model, inputs, loss_fn, chosen, "inputs")
    return scale.scale(loss), scale


guard(__name__)
