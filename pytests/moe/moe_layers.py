"""A small model of mixture-of-experts layers that the tests of schedules and placement share."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
from deepseek import Tensor, nn
from deepseek.moe import DynamicRouter
from deepseek.nn import functional as F


class Layer(nn.Module):
    """Routed SwiGLU experts in stacks, with a residual."""

    expert_weights = ("gate_proj", "up_proj", "down_proj")

    def __init__(self, dim: int, width: int, experts: int, top_k: int, **options: Any) -> None:
        super().__init__()
        self.gate = DynamicRouter(experts, top_k, dim, **options)
        self.gate_proj = nn.Parameter(deepseek.randn(experts, width, dim) / dim**0.5)
        self.up_proj = nn.Parameter(deepseek.randn(experts, width, dim) / dim**0.5)
        self.down_proj = nn.Parameter(deepseek.randn(experts, dim, width) / width**0.5)

    def forward(self, x: Tensor, **more: Any) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, indices, _ = self.gate(x, **more)
        routed = F.moe(flat, self.gate_proj, self.up_proj, self.down_proj, indices, weights.to(x.dtype))
        return x + routed.view(*x.shape)


class Stack(nn.Module):
    """Two layers."""

    def __init__(self, dim: int = 16, width: int = 12, experts: int = 8, top_k: int = 2, **options: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(dim, width, experts, top_k, **options) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def stack(seed: int = 0, **options: Any) -> Stack:
    deepseek.manual_seed(seed)
    return Stack(**options)


def tokens(count: int, dim: int = 16, seed: int = 1) -> Tensor:
    return deepseek.from_numpy(np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32))
