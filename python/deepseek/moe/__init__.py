"""Mixtures of experts: many feed-forwards, of which each token uses a few.

    layer = DeepseekMoE(1024, 512, n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2)
    y = layer(x)                                     # x (batch, length, 1024)
    layer = DeepseekMoE.from_config(config)          # of a checkpoint of DeepSeek-V2, V3, V3.2 or V4

:class:`DynamicRouter` chooses experts as these models do, :class:`Experts` are the feed-forwards in stacks for the
grouped kernels (float32, bfloat16, and few bits by ``quantization.quantize_``). For balance there are losses, to add to
a model's own, and :func:`update_selection_bias`, which does without.
"""

from __future__ import annotations

from deepseek._missing import guard
from deepseek.moe.balance import (
    load_balancing_loss,
    moe_balance_loss,
    router_probabilities,
    router_z_loss,
    sequence_balance_loss,
    update_selection_bias,
)
from deepseek.moe.experts import Experts, SwiGLU
from deepseek.moe.layer import DeepseekMoE
from deepseek.moe.router import DynamicRouter, RouterOutput

__all__ = [
    "DeepseekMoE", "DynamicRouter", "Experts", "RouterOutput", "SwiGLU", "load_balancing_loss", "moe_balance_loss",
    "router_probabilities", "router_z_loss", "sequence_balance_loss", "update_selection_bias",
]  # fmt: skip

guard(__name__)
