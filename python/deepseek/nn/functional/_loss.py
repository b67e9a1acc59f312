"""Losses. ``reduction`` is "mean", "sum" or "none" everywhere; shapes are those of torch's functions.

Under autocast they take 16-bit inputs as float32 and return float32.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import warnings
from typing import Any

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.arguments import check_tensor
from deepseek._binding.autocast import runs_in_float32
from deepseek._binding.public import public
from deepseek.autograd import Function
from deepseek.nn.functional._activation import _log1p_exp

_REDUCTIONS = ("none", "mean", "sum")


def _check_reduction(reduction: str) -> str:
    """The reduction itself; ValueError names the ones that exist."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction; choose one of {', '.join(_REDUCTIONS)}")
    return reduction


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    _check_reduction(reduction)
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def _broadcast(name: str, input: Tensor, target: Tensor, stacklevel: int = 4) -> tuple[Tensor, Tensor]:
    """Both at their common shape; a difference in shape is nearly always a mistake, so it is said aloud.

    The loss, the wrapper around it, and its caller are three frames above.
    """
    check_tensor(name, "input", input)
    check_tensor(name, "target", target)
    if tuple(input.shape) == tuple(target.shape):
        return input, target
    warnings.warn(
        f"{name}: the target size {tuple(target.shape)} differs from the input size {tuple(input.shape)}; "
        "broadcasting is likely to give a wrong loss. Please ensure they have the same size.",
        stacklevel=stacklevel,
    )
    input, target = deepseek.broadcast_tensors(input, target)
    return input, target


def _weighted(name: str, loss: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return loss
    check_tensor(name, "weight", weight)
    return loss * weight.expand(loss.shape)


@public
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy between logits and targets.

    Args:
        input: logits, (C), (N, C) or (N, C, d1, ...).
        target: class indices (int64, int32 or uint8) without the C dimension, or probabilities of the input's shape.
        weight: (C) factor per class.
        ignore_index: targets of this index count nothing. Not with probabilities.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
    """
    _refuse_legacy(size_average, reduce)
    return _C.cross_entropy(input, target, weight, _check_reduction(reduction), ignore_index, label_smoothing)


@public
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target, ...)`` without storing the logits.

    With class indices, a weight of two dims, no class weights and reduction "mean" or "sum", rows pass in blocks of at
    most 33 million logits, and the gradients are formed in the forward pass, while a block exists. Any other call
    stores the logits, in float32 for 16-bit inputs. Second derivatives work and store them too. PyTorch's
    ``options``, which turn its blocks on, do not exist here.

    Args:
        input: (D) or (N, D).
        linear_weight: (C, D), or (C, d1, ..., D) for logits (N, C, d1, ...) of a batched input.
        target: class indices (N) or (N, d1, ...), or probabilities of the logits' shape.
        linear_bias: the weight's shape without D.
        weight: (C) factor per class.
        ignore_index: targets of this index count nothing; None means -100. Not with probabilities.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
    """
    return _C.linear_cross_entropy(
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        weight=weight,
        reduction=_check_reduction(reduction),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )


@public
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log likelihood of log-probabilities: ``input`` (C), (N, C) or (N, C, d1, ...), ``target`` indices."""
    _refuse_legacy(size_average, reduce)
    return _C.nll_loss(input, target, weight, _check_reduction(reduction), ignore_index)


@public
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Squared difference of two tensors of one shape; ``weight`` has that shape too and turns mean into weighted."""
    _refuse_legacy(size_average, reduce)
    input, target = _broadcast("mse_loss", input, target, stacklevel=3)
    if weight is None:
        return _C.mse_loss(input, target, _check_reduction(reduction))
    return _weighted_mse(input, target, weight, reduction)


@runs_in_float32
def _weighted_mse(input: Tensor, target: Tensor, weight: Tensor, reduction: str) -> Tensor:
    difference = input - target
    return _reduce_weighted("mse_loss", difference * difference, weight, reduction)


@public
@runs_in_float32
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Absolute difference of two tensors of one shape."""
    _refuse_legacy(size_average, reduce)
    input, target = _broadcast("l1_loss", input, target)
    loss = (input - target).abs()
    return _reduce(loss, reduction) if weight is None else _reduce_weighted("l1_loss", loss, weight, reduction)


@public
@runs_in_float32
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """``d^2 / (2 beta)`` where the difference ``|d| < beta``, ``|d| - beta / 2`` elsewhere. (Girshick, 2015)"""
    _refuse_legacy(size_average, reduce)
    if not beta >= 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    input, target = _broadcast("smooth_l1_loss", input, target)
    d = input - target
    size = d.abs()
    # d * d, not |d|^2: its second derivative is right at d = 0 too.
    return _reduce(deepseek.where(size < beta, d * d * (0.5 / beta), size - 0.5 * beta), reduction)


@public
@runs_in_float32
def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """``d^2 / 2`` where the difference ``|d| < delta``, ``delta (|d| - delta / 2)`` elsewhere. (Huber, 1964)"""
    check_tensor("huber_loss", "input", input)
    check_tensor("huber_loss", "target", target)
    if not delta > 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, got {delta}")
    if input.dtype in (deepseek.float16, deepseek.bfloat16):  # rounded once, at the end
        wide = None if weight is None else weight.float()
        return huber_loss(input.float(), target.float(), reduction, delta, wide).to(input.dtype)
    input, target = _broadcast("huber_loss", input, target)
    d = input - target
    size = d.abs()
    loss = deepseek.where(size < delta, 0.5 * d * d, delta * (size - 0.5 * delta))
    if weight is not None:
        return _reduce_weighted("huber_loss", loss, weight, reduction)
    return _reduce(loss, reduction).to(input.dtype)  # whatever the target is, as in PyTorch


def _reduce_weighted(name: str, loss: Tensor, weight: Tensor, reduction: str) -> Tensor:
    check_tensor(name, "weight", weight)
    if tuple(weight.shape) != tuple(loss.shape):
        raise ValueError(f"weight of shape {tuple(weight.shape)} must have the input's shape {tuple(loss.shape)}")
    _check_reduction(reduction)
    loss = loss * weight
    if reduction == "mean":
        return loss.sum() / weight.sum()
    return _reduce(loss, reduction)


@public
@runs_in_float32
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross entropy of probabilities in [0, 1] against targets in [0, 1]; logarithms are cut off at -100.

    Raises:
        ValueError: the shapes differ.
        RuntimeError: an input or target is outside [0, 1].
    """
    _refuse_legacy(size_average, reduce)
    check_tensor("binary_cross_entropy", "input", input)
    check_tensor("binary_cross_entropy", "target", target)
    if tuple(target.shape) != tuple(input.shape):
        raise ValueError(
            f"binary_cross_entropy: the target size ({tuple(target.shape)}) is different to the input size "
            f"({tuple(input.shape)}). Please ensure they have the same size."
        )
    for name, values in (("input", input), ("target", target)):
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise RuntimeError(f"binary_cross_entropy: all elements of {name} should be between 0 and 1")
    return _reduce(_weighted("binary_cross_entropy", _ProbabilityCrossEntropy.apply(input, target), weight), reduction)


def _cut_off_logs(p: Tensor) -> tuple[Tensor, Tensor]:
    return p.log().clamp(min=-100), (-p).log1p().clamp(min=-100)


class _ProbabilityCrossEntropy(Function):
    """Elementwise loss. A user function, because the logarithms' own derivatives are not finite at 0 and 1."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(p, t)
        log_p, log_not_p = _cut_off_logs(p)
        return (t - 1) * log_not_p - t * log_p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        p, t = ctx.saved_tensors
        grad_p = grad * (p - t) / (p * (1 - p)).clamp(min=1e-12)
        if not ctx.needs_input_grad[1]:
            return grad_p, None
        log_p, log_not_p = _cut_off_logs(p)
        return grad_p, grad * (log_not_p - log_p)


@public
@runs_in_float32
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of logits, computed stably; ``pos_weight`` multiplies the loss of positive targets."""
    _refuse_legacy(size_average, reduce)
    check_tensor("binary_cross_entropy_with_logits", "input", input)
    check_tensor("binary_cross_entropy_with_logits", "target", target)
    if tuple(target.shape) != tuple(input.shape):
        raise ValueError(f"Target size {tuple(target.shape)} must be the same as input size {tuple(input.shape)}")
    softplus_minus = _log1p_exp(-input)  # -log(sigmoid(input))
    if pos_weight is None:
        loss = (1 - target) * input + softplus_minus
    else:
        check_tensor("binary_cross_entropy_with_logits", "pos_weight", pos_weight)
        loss = (1 - target) * input + (1 + (pos_weight - 1) * target) * softplus_minus
    return _reduce(_weighted("binary_cross_entropy_with_logits", loss, weight), reduction)


@public
@runs_in_float32
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Kullback-Leibler divergence ``target * (log(target) - input)`` with ``input`` in log space.

    ``reduction="batchmean"`` divides the sum by the first size: the mathematical definition. "mean" divides by the
    number of elements.
    """
    _refuse_legacy(size_average, reduce)
    check_tensor("kl_div", "input", input)
    check_tensor("kl_div", "target", target)
    if not (input.is_floating_point() and target.is_floating_point()):
        raise RuntimeError(
            "kl_div: integer inputs are not supported, it takes log-probabilities and probabilities; got "
            f"{input.dtype} and {target.dtype}"
        )
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math definition.",
            stacklevel=3,
        )
    if log_target:
        loss = target.exp() * (target - input)
    else:
        # 0 log 0 = 0 with a finite gradient; a negative target gives NaN, as it must.
        entropy = target * deepseek.where(target == 0, deepseek.ones_like(target), target).log()
        loss = entropy - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0] if input.dim() else loss.sum()
    return _reduce(loss, reduction)


def _refuse_legacy(size_average: Any, reduce: Any) -> None:
    if size_average is not None or reduce is not None:
        raise ValueError("size_average and reduce were replaced by reduction='mean', 'sum' or 'none'")
