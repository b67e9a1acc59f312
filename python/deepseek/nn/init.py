"""Initialisers: each fills its tensor in place, outside the gradient record, and returns it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard

__all__ = [
    "calculate_gain",
    "constant_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_GAINS: dict[str, Callable[[float], float]] = {
    **{f"conv{t}{n}d": lambda _: 1.0 for n in (1, 2, 3) for t in ("", "_transpose")},
    "linear": lambda _: 1.0,
    "sigmoid": lambda _: 1.0,
    "tanh": lambda _: 5.0 / 3,
    "relu": lambda _: math.sqrt(2.0),
    "leaky_relu": lambda slope: math.sqrt(2.0 / (1 + slope**2)),
    "selu": lambda _: 3.0 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer's standard deviation grows to make up for the nonlinearity after it.

    Args:
        nonlinearity: "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu" or "conv1d" and its like.
        param: the negative slope of leaky_relu, 0.01 when omitted.

    Raises:
        ValueError: an unknown nonlinearity, or a slope that is not a number.
    """
    if nonlinearity not in _GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}; known are {', '.join(_GAINS)}")
    numeric = param is None or (isinstance(param, (int, float)) and not isinstance(param, bool))
    if nonlinearity == "leaky_relu" and not numeric:
        raise ValueError(f"negative_slope {param} not a valid number")
    return _GAINS[nonlinearity](0.01 if param is None else param)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: deepseek.Generator | None = None) -> Tensor:
    """Fill with U(a, b)."""
    with deepseek.no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: deepseek.Generator | None = None) -> Tensor:
    """Fill with N(mean, std^2)."""
    with deepseek.no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with ``val``."""
    with deepseek.no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """Make a matrix the identity (ones on the main diagonal, also when it is not square)."""
    if tensor.dim() != 2:
        raise ValueError(f"Only tensors with 2 dimensions are supported, got shape {tuple(tensor.shape)}")
    with deepseek.no_grad():
        return tensor.copy_(deepseek.eye(*tensor.shape, dtype=tensor.dtype))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: deepseek.Generator | None = None,
) -> Tensor:
    """Fill with N(mean, std^2) limited to [a, b] (values outside are drawn again).

    Raises:
        ValueError: the interval is empty or ``std`` is not positive.
    """
    if not a < b or std <= 0:
        raise ValueError(f"trunc_normal_ needs a < b and std > 0, got a={a}, b={b}, std={std}")
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn("mean is more than 2 std from [a, b] in nn.init.trunc_normal_.", stacklevel=2)
    low, high = (a - mean) / std, (b - mean) / std
    inside = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    with deepseek.no_grad():
        # Rejection in float32 or wider, whichever proposal is accepted more often: the normal one when the interval
        # holds a fair share of its mass, a uniform one over the interval otherwise.
        wide = deepseek.float64 if tensor.dtype == deepseek.float64 else deepseek.float32
        draw = _draw_normal if inside > 0.3 else _draw_uniform
        sample, accepted = draw(tensor, low, high, wide, generator)
        while not bool(accepted.all()):
            again, fits = draw(tensor, low, high, wide, generator)
            sample = deepseek.where(accepted, sample, again)
            accepted = accepted | fits
        return tensor.copy_((sample * std + mean).clamp(a, b))


def _draw_normal(tensor: Tensor, low: float, high: float, dtype: Any, generator: Any) -> tuple[Tensor, Tensor]:
    sample = deepseek.empty(tensor.shape, dtype=dtype).normal_(0.0, 1.0, generator=generator)
    return sample, (sample >= low) & (sample <= high)


def _draw_uniform(tensor: Tensor, low: float, high: float, dtype: Any, generator: Any) -> tuple[Tensor, Tensor]:
    sample = deepseek.empty(tensor.shape, dtype=dtype).uniform_(low, high, generator=generator)
    mode = max(low, min(0.0, high))  # the density relative to its peak is the chance of being kept
    chance = ((mode * mode - sample * sample) * 0.5).exp()
    return sample, deepseek.empty(tensor.shape, dtype=dtype).uniform_(0.0, 1.0, generator=generator) <= chance


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    receptive = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: deepseek.Generator | None = None) -> Tensor:
    """Fill with U(-b, b), ``b = gain * sqrt(6 / (fan_in + fan_out))``. (Glorot and Bengio, 2010)"""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: deepseek.Generator | None = None) -> Tensor:
    """Fill with N(0, std^2), ``std = gain * sqrt(2 / (fan_in + fan_out))``. (Glorot and Bengio, 2010)"""
    std = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return normal_(tensor, 0.0, std, generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan = _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _is_empty(tensor: Tensor) -> bool:
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: deepseek.Generator | None = None,
) -> Tensor:
    """Fill with U(-b, b), ``b = gain * sqrt(3 / fan)``; ``a`` is the slope of leaky_relu. (He et al., 2015)"""
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: deepseek.Generator | None = None,
) -> Tensor:
    """Fill with N(0, std^2), ``std = gain / sqrt(fan)``; ``a`` is the slope of leaky_relu. (He et al., 2015)"""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: deepseek.Generator | None = None) -> Tensor:
    """Fill with ``gain`` times a random (semi-)orthogonal matrix. (Saxe et al., 2013)

    ``tensor``, at least 2-d, counts as a matrix [first dim, all others]. Its rows are orthonormal, or its columns where
    it has more rows than columns; each such matrix is equally likely (Haar). Not the numbers PyTorch draws.

    Raises:
        ValueError: ``tensor`` has fewer than 2 dims.
    """
    if tensor.dim() < 2:
        raise ValueError(f"Only tensors with 2 or more dimensions are supported, got shape {tuple(tensor.shape)}")
    if tensor.numel() == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    with deepseek.no_grad():
        drawn = deepseek.empty(min(rows, columns), max(rows, columns), dtype=deepseek.float64)
        basis = _orthonormal_rows(drawn.normal_(0.0, 1.0, generator=generator)) * gain
        return tensor.copy_((basis if rows <= columns else basis.t()).reshape(tensor.shape))


def _orthonormal_rows(drawn: Tensor, block: int = 32) -> Tensor:
    """Gram-Schmidt of the rows, in place: blocks of rows are made orthogonal to all before them by products, rows of a
    block to those before them one by one; each twice, which is enough for float64 (Giraud et al. 2005)."""
    for first in range(0, drawn.shape[0], block):
        rows, done = drawn[first : first + block], drawn[:first]
        for _ in range(2):
            rows -= (rows @ done.t()) @ done
        for i in range(rows.shape[0]):
            for _ in range(2):
                rows[i] -= (rows[:i] @ rows[i]) @ rows[:i]
            rows[i] /= deepseek.linalg.vector_norm(rows[i])
    return drawn


guard(__name__)
