"""Values and gradients where functions have none, or an infinite one: infinities, NaN, zeros, ties. PyTorch's, but for
BETTER, where a derivative exists that PyTorch does not find."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import deepseek
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore")

INPUTS = {
    "all -inf": [-inf, -inf, -inf],
    "one inf": [1.0, inf, 2.0],
    "two inf": [inf, 1.0, inf],
    "some -inf": [-inf, 1.0, -inf],
    "both": [-inf, inf, 0.0],
    "nan": [1.0, nan, 2.0],
    "all nan": [nan, nan, nan],
    "zeros": [0.0, 0.0, 0.0],
    "one zero": [2.0, 0.0, 3.0],
    "-0": [-0.0, 0.0, 1.0],
    "ties": [2.0, 2.0, 1.0],
    "negative": [-1.0, -2.0, -1.0],
    "kinks": [-3.0, 3.0, 6.0],
    "one": [5.0],
}
Call = Callable[[Any, Any], Any]  # of the library and the input
CALLS: dict[str, Call] = {
    "logsumexp": lambda T, x: T.logsumexp(x, -1),
    "softmax": lambda T, x: T.softmax(x, -1),
    "log_softmax": lambda T, x: T.log_softmax(x, -1),
    "logcumsumexp": lambda T, x: T.logcumsumexp(x, -1),
    "logaddexp": lambda T, x: T.logaddexp(x, x.flip(-1)),
    "norm over a dim": lambda T, x: x.norm(2, -1),
    "normalize": lambda T, x: T.nn.functional.normalize(x, dim=-1),
    "std": lambda T, x: x.std(),
    "var": lambda T, x: x.var(),
    "std, no correction": lambda T, x: x.std(correction=0),
    "prod": lambda T, x: x.prod(),
    "cumprod": lambda T, x: x.cumprod(-1),
    "cumsum": lambda T, x: x.cumsum(-1),
    "cummax": lambda T, x: T.cummax(x, -1)[0],
    "amax": lambda T, x: x.amax(),
    "amin": lambda T, x: x.amin(),
    "max": lambda T, x: x.max(),
    "max over a dim": lambda T, x: x.max(-1)[0],
    "median": lambda T, x: x.median(),
    "sort": lambda T, x: x.sort()[0],
    "nansum": lambda T, x: x.nansum(),
    "maximum": lambda T, x: T.maximum(x, x.flip(-1)),
    "minimum": lambda T, x: T.minimum(x, x.flip(-1)),
    "fmax": lambda T, x: T.fmax(x, x.flip(-1)),
    "clamp": lambda T, x: x.clamp(0, 2),
    "pow of itself": lambda T, x: T.pow(x, x.flip(-1)),
    "pow of zeros": lambda T, x: T.pow(x, x * 0),
    "2 to it": lambda T, x: 2.0**x,
    "0 to it": lambda T, x: 0.0**x,
    "zeros to it": lambda T, x: T.pow(x * 0, x),
    "atan2": lambda T, x: T.atan2(x, x.flip(-1)),
    "atan2 of zero": lambda T, x: T.atan2(x, x * 0),
    "hypot": lambda T, x: T.hypot(x, x.flip(-1)),
    "div": lambda T, x: x / x.flip(-1),
    "reciprocal": lambda T, x: 1 / x,
    "fmod": lambda T, x: T.fmod(x, x.flip(-1)),
    "remainder": lambda T, x: T.remainder(x, x.flip(-1)),
    "copysign": lambda T, x: T.copysign(x, x.flip(-1)),
    "lerp": lambda T, x: T.lerp(x, x.flip(-1), 0.3),
    "dist": lambda T, x: T.dist(x, x),
    "where": lambda T, x: T.where(x > 0, x.log(), x * 0),
    "nan_to_num": lambda T, x: x.nan_to_num(),
    "layer_norm": lambda T, x: T.nn.functional.layer_norm(x, x.shape),
    "rms_norm": lambda T, x: T.nn.functional.rms_norm(x, x.shape, eps=1e-6),
    "cross_entropy": lambda T, x: T.nn.functional.cross_entropy(x[None], T.tensor([0])),
    "smoothed cross_entropy": lambda T, x: T.nn.functional.cross_entropy(x[None], T.tensor([0]), label_smoothing=0.1),
    "ignored cross_entropy": lambda T, x: T.nn.functional.cross_entropy(x[None], T.tensor([-100]), reduction="sum"),
    "nll_loss": lambda T, x: T.nn.functional.nll_loss(x[None], T.tensor([0])),
    "bce with logits": lambda T, x: T.nn.functional.binary_cross_entropy_with_logits(x, x.detach() * 0 + 1),
    "kl_div": lambda T, x: T.nn.functional.kl_div(x, x.detach() * 0 + 0.5, reduction="sum"),
    "mse_loss": lambda T, x: T.nn.functional.mse_loss(x, x.detach() * 0),
    "l1_loss": lambda T, x: T.nn.functional.l1_loss(x, x.detach() * 0),
    "huber_loss": lambda T, x: T.nn.functional.huber_loss(x, x.detach() * 0),
}
CALLS |= {f"norm {p}": lambda T, x, p=p: x.norm(p) for p in (0.5, 1, 1.5, 2, 3, inf, -inf, -1, -2)}
CALLS |= {f"pow {p}": lambda T, x, p=p: x.pow(p) for p in (0, 0.5, 1, 2, 3, -1, -2, -0.5, 1.5)}
NAMES = (
    "sqrt", "rsqrt", "log", "log2", "log10", "log1p", "exp", "exp2", "expm1", "abs", "sign", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "erf", "erfc",
    "floor", "trunc", "round", "frac", "square", "relu", "neg",
)  # fmt: skip
FUNCTIONALS = (
    "relu6", "elu", "gelu", "silu", "mish", "softplus", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu",
    "logsigmoid",
)  # fmt: skip
CALLS |= {name: lambda T, x, name=name: getattr(T, name)(x) for name in NAMES}
CALLS |= {name: lambda T, x, name=name: getattr(T.nn.functional, name)(x) for name in FUNCTIONALS}

# What PyTorch has NaN or another number for, and why ours is kept.
BETTER = {
    "prod": "each factor's derivative is the product of the others, also beside infinities; PyTorch divides by it",
    "cumprod": "as prod",
    "copysign": "1 or -1 everywhere; PyTorch divides an infinity by itself",
    "gelu": "x times 1 where PyTorch multiplies a NaN",
    "ignored cross_entropy": "a row that does not count has no gradient, whatever its numbers",
    "pow 0.5": "the power function of C and NumPy at -inf and -0, where PyTorch takes the square root",
    "pow -0.5": "as pow 0.5",
    "pow 1.5": "as pow 0.5, in the derivative",
    "max": "the gradient of NaN is NaN, as amax's is in both",
    "norm inf": "the gradient of NaN is NaN",
    "norm -inf": "the gradient of NaN is NaN",
    "norm 0.5": "an element of zero beside infinities",
    "elu": "the gradient of NaN is NaN",
    "hardswish": "the gradient of NaN is NaN",
    "hardsigmoid": "the gradient of NaN is relu6's, which PyTorch has here as zero and there as one",
}


def value_and_gradient(library: Any, call: Call, values: list[float], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    x = library.tensor(values, dtype=getattr(library, dtype)).requires_grad_()
    y = call(library, x)
    y.backward(library.ones_like(y))
    return y.detach().double().numpy(), x.grad.double().numpy()


def same(ours: np.ndarray, theirs: np.ndarray, dtype: str) -> bool:
    loose = 1e-3 if dtype == "float32" else 1e-6
    return np.allclose(ours, theirs, rtol=loose, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_at_the_edges(name: str) -> None:
    differ = []
    for row, values in INPUTS.items():
        for dtype in ("float32", "float64"):
            ours = value_and_gradient(deepseek, CALLS[name], values, dtype)
            theirs = value_and_gradient(torch, CALLS[name], values, dtype)
            if not all(same(a, b, dtype) for a, b in zip(ours, theirs, strict=True)):
                differ.append(f"{row} ({dtype}): {ours} for torch's {theirs}")
    assert bool(differ) == (name in BETTER), "\n".join(differ) or f"{name} is the same now: strike it from BETTER"


def test_the_gradient_of_a_sum_of_nothing_is_never_ones() -> None:
    for call in (CALLS["logsumexp"], CALLS["logcumsumexp"]):
        assert np.isnan(value_and_gradient(deepseek, call, [-inf, -inf], "float32")[1]).all()
