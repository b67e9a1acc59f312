"""Activations. What the core has as one op is called there; the rest is composed of ops that differentiate twice."""

# mypy: no-implicit-reexport

from __future__ import annotations

import warnings
from collections.abc import Callable

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.arguments import check_tensor
from deepseek._binding.public import public


def _maybe_inplace(fn: Callable[[Tensor], Tensor], input: Tensor, inplace: bool) -> Tensor:
    if not inplace:
        return fn(input)
    # The clone keeps what backward needs while the input itself is overwritten.
    return input.copy_(fn(input.clone()))


def _implicit_dim(name: str, ndim: int) -> int:
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=4,
    )
    return 0 if ndim in (0, 1, 3) else 1


@public
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(input, 0)``, any shape."""
    if inplace and hasattr(input, "relu_"):
        return input.relu_()
    return _maybe_inplace(_C.relu, input, inplace)


@public
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``input * Phi(input)``; ``approximate="tanh"`` uses the tanh formula. (Hendrycks and Gimpel, 2016)"""
    return _C.gelu(input, approximate)


@public
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * sigmoid(input)``, any shape."""
    return _maybe_inplace(_C.silu, input, inplace)


@public
def swiglu(gate: Tensor, up: Tensor, limit: float | None = None) -> Tensor:
    """``silu(gate) * up``, both of the same shape: the gate of a SwiGLU feed-forward. (Shazeer, 2020)

    Args:
        limit: take gate as at most ``limit`` and up as within ``[-limit, limit]`` first, as DeepSeek-V4 does (with 10);
            what was cut gets no gradient.

    Raises:
        ValueError: ``limit`` is not positive.
    """
    if limit is None:
        return _C.swiglu(gate, up)
    if not limit > 0:
        raise ValueError(f"swiglu: limit must be positive or None, got {limit}")
    return _C.swiglu(_C.clamp(gate, None, limit), _C.clamp(up, -limit, limit))


@public
def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-input))``, any shape."""
    return _C.sigmoid(input)


@public
def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent, any shape."""
    return _C.tanh(input)


@public
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: deepseek.dtype | None = None) -> Tensor:
    """Softmax along ``dim``; ``dtype`` converts the input first. The shape stays."""
    if dim is None:
        check_tensor("softmax", "input", input)
        dim = _implicit_dim("softmax", input.dim())
    return _C.softmax(input if dtype is None else input.to(dtype), dim)


@public
def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: deepseek.dtype | None = None) -> Tensor:
    """``softmax(-input)`` along ``dim``."""
    check_tensor("softmin", "input", input)
    if dim is None:
        dim = _implicit_dim("softmin", input.dim())
    return softmax(-input, dim, dtype=dtype)


@public
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: deepseek.dtype | None = None
) -> Tensor:
    """Logarithm of the softmax along ``dim``, computed stably."""
    if dim is None:
        check_tensor("log_softmax", "input", input)
        dim = _implicit_dim("log_softmax", input.dim())
    return _C.log_softmax(input if dtype is None else input.to(dtype), dim)


@public
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``input`` where positive, ``negative_slope * input`` elsewhere."""
    return _maybe_inplace(lambda x: _C.leaky_relu(x, negative_slope), input, inplace)


@public
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` where positive, ``alpha * (exp(input) - 1)`` elsewhere. (Clevert et al., 2015)"""
    return _maybe_inplace(lambda x: _C.elu(x, alpha), input, inplace)


@public
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` limited to [min_val, max_val]; the gradient is 0 at and beyond both limits."""
    check_tensor("hardtanh", "input", input)
    if min_val > max_val:
        raise ValueError(f"min_val cannot be greater than max_val, got {min_val} > {max_val}")

    if input.dtype == deepseek.uint8 and min_val < 0:
        raise RuntimeError(f"hardtanh cannot limit an unsigned dtype, uint8, to negative values, got min_val={min_val}")
    if not input.is_floating_point():  # limits as integers
        return _maybe_inplace(lambda x: x.clamp(int(min_val), int(max_val)), input, inplace)

    def limit(x: Tensor) -> Tensor:
        outside = (x <= min_val) | (x >= max_val)
        return deepseek.where(outside, x.detach().clamp(min_val, max_val), x)

    return _maybe_inplace(limit, input, inplace)


@public
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(input, 0), 6)``."""
    check_tensor("relu6", "input", input)
    return hardtanh(input, 0.0, 6.0, inplace)


@public
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * relu6(input + 3) / 6``. (Howard et al., 2019)"""
    check_tensor("hardswish", "input", input)
    return _maybe_inplace(lambda x: x * relu6(x + 3) / 6, input, inplace)


@public
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``relu6(input + 3) / 6``."""
    check_tensor("hardsigmoid", "input", input)
    return _maybe_inplace(lambda x: relu6(x + 3) / 6, input, inplace)


def _log1p_exp(input: Tensor) -> Tensor:
    """``log(1 + exp(input))`` without overflow at any size of ``input``, with exact derivatives also at 0."""
    positive = input.clamp(min=0)
    negative = input.clamp(max=0)
    return deepseek.where(input > 0, input + (-positive).exp().log1p(), negative.exp().log1p())


@public
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * input)) / beta``; the identity where ``beta * input > threshold``."""
    return _C.softplus(input, beta, threshold)


@public
def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(input))``, computed stably."""
    return _C.logsigmoid(input)


@public
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * tanh(softplus(input))``. (Misra, 2019)"""
    check_tensor("mish", "input", input)
    return _maybe_inplace(lambda x: x * _C.tanh(_log1p_exp(x)), input, inplace)


@public
def softsign(input: Tensor) -> Tensor:
    """``input / (1 + |input|)``."""
    check_tensor("softsign", "input", input)
    return input / (1 + input.abs())


@public
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` with ``a`` and ``b`` the halves of ``input`` along ``dim``. (Dauphin et al., 2016)

    Raises:
        RuntimeError: the size of ``dim`` is odd, or ``input`` has no dimensions.
    """
    check_tensor("glu", "input", input)
    if input.dim() == 0:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    size = input.shape[dim]
    if size % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim % input.dim()} is size {size}")
    value, gate = input.chunk(2, dim)
    return value * _C.sigmoid(gate)
