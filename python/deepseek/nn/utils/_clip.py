"""Gradient clipping."""

# mypy: no-implicit-reexport

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.public import public
from deepseek.jit import disable


def _as_list(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


@public
def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors together, as if they were one vector: a 0-d tensor of the dtype they promote to.

    Args:
        norm_type: the order, ``inf`` for the largest absolute value.
        error_if_nonfinite: raise when the result is NaN or infinite.
        foreach: accepted for torch's signature; the tensors always go in one pass.

    Raises:
        RuntimeError: the norm is not finite and ``error_if_nonfinite`` is set.
    """
    return _total_norm(_as_list(tensors), float(norm_type), error_if_nonfinite)


@disable
def _total_norm(values: list[Tensor], norm_type: float, error_if_nonfinite: bool) -> Tensor:
    with deepseek.no_grad():
        if not values:
            return deepseek.tensor(0.0)
        dtype = functools.reduce(deepseek.promote_types, (value.dtype for value in values))
        wide = deepseek.float64 if dtype is deepseek.float64 else deepseek.float32
        if norm_type == 2.0 and dtype.is_floating_point:
            total = _C._sum_squares(values).sqrt().to(dtype)
        else:
            # An empty gradient has no largest number and does not count.
            counted = [value for value in values if value.numel() > 0] or [deepseek.zeros(1, dtype=dtype)]
            norms = [_C._vector_norm(value.detach(), norm_type).to(wide) for value in map(_widened, counted)]
            total = _C._vector_norm(deepseek.stack(norms), norm_type).to(dtype)
        if error_if_nonfinite and not math.isfinite(float(total)):
            raise RuntimeError(
                f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
                "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
                "`error_if_nonfinite=False`"
            )
        return total


def _widened(value: Tensor) -> Tensor:
    """16-bit floats as float32, so that their norm is rounded once, at the end."""
    return value.float() if value.dtype in (deepseek.float16, deepseek.bfloat16) else value


@public
def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale the gradients by ``max_norm / (total_norm + 1e-6)``, at most 1, in place."""
    with deepseek.no_grad():
        scale = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        for parameter in _as_list(parameters):
            if parameter.grad is not None:
                parameter.grad.mul_(scale)


@public
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients in place so that their norm together is at most ``max_norm``.

    Args:
        parameters: one tensor or an iterable; those without gradient are skipped.
        max_norm: the limit.
        norm_type: the order of the norm, ``inf`` for the largest absolute value.
        error_if_nonfinite: raise, before anything is changed, when the norm is NaN or infinite.
        foreach: accepted for torch's signature; the gradients always go in one pass.

    Returns:
        The norm before clipping, a 0-d tensor.
    """
    holders = _as_list(parameters)
    grads = [p.grad for p in holders if p.grad is not None]
    total = get_total_norm(grads, norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(holders, max_norm, total, foreach)
    return total


@public
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients to ``[-clip_value, clip_value]``, in place."""
    limit = float(clip_value)
    with deepseek.no_grad():
        for parameter in _as_list(parameters):
            if parameter.grad is not None:
                parameter.grad.clamp_(-limit, limit)
