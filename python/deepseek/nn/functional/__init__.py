"""Functions of neural networks: the stateless side of ``deepseek.nn``, with torch's names and signatures."""

from __future__ import annotations

from typing import Any

from deepseek.nn.functional._activation import (
    elu,
    gelu,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softsign,
    swiglu,
    tanh,
)
from deepseek.nn.functional._attention import (
    attention,
    block_sparse_attention,
    rope,
    scaled_dot_product_attention,
)
from deepseek.nn.functional._basic import (
    bilinear,
    cosine_similarity,
    dropout,
    embedding,
    layer_norm,
    linear,
    moe,
    normalize,
    one_hot,
    pad,
    pairwise_distance,
    rms_norm,
)
from deepseek.nn.functional._loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    linear_cross_entropy,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from deepseek.utils._nearest import missing_attribute

__all__ = [
    "attention",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "block_sparse_attention",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "logsigmoid",
    "mish",
    "moe",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "relu",
    "relu6",
    "rms_norm",
    "rope",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "swiglu",
    "tanh",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
