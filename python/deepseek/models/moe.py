"""Mixture-of-experts feed-forward with shared and routed experts, as DeepSeek-V3 routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepseek import Tensor, empty, nn, no_grad, ones_like, sigmoid, topk, zeros
from deepseek.models.config import ModelConfig
from deepseek.models.layers import FeedForward
from deepseek.nn import functional as F

if TYPE_CHECKING:
    from deepseek.quantization import QuantizedWeight


class Router(nn.Module):
    """Chooses top-k experts by sigmoid affinity plus a balancing bias.

    The bias only takes part in the choice, not in the gate weight, and no loss term pulls on it: after every training
    step it moves by a fixed rate, up for experts that had less than their share of tokens, down for the others.
    """

    bias: Tensor
    load: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.scale = config.routed_scale
        self.weight = nn.Parameter(empty(config.n_routed_experts, config.dim))
        self.register_buffer("bias", zeros(config.n_routed_experts))
        self.register_buffer("load", zeros(config.n_routed_experts), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x [tokens, dim] to gate weights and expert numbers, both [tokens, top_k]."""
        affinity = sigmoid(F.linear(x, self.weight))
        with no_grad():
            chosen = topk(affinity + self.bias, self.top_k, dim=-1)[1]
        gates = affinity.gather(1, chosen)
        return gates * (self.scale / gates.sum(dim=-1, keepdim=True)), chosen

    def rebalance(self, rate: float) -> None:
        """Moves the bias by ``rate`` against the load counted since the last call, and clears the count."""
        with no_grad():
            self.bias += rate * (self.load.mean() - self.load).sign()
            self.load.zero_()


class MixtureOfExperts(nn.Module):
    """Shared experts see every token, routed experts the tokens the router sends them."""

    expert_weights = ("gate", "up", "down")  # what quantize_() may put into few bits
    gate: nn.Parameter | QuantizedWeight
    up: nn.Parameter | QuantizedWeight
    down: nn.Parameter | QuantizedWeight

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_experts = config.n_routed_experts
        hidden = config.expert_dim * config.n_shared_experts
        self.shared = FeedForward(config.dim, hidden) if hidden else None
        self.router = Router(config)
        # One tensor per matrix kind, as the grouped kernels take them.
        self.gate = nn.Parameter(empty(self.n_experts, config.expert_dim, config.dim))
        self.up = nn.Parameter(empty(self.n_experts, config.expert_dim, config.dim))
        self.down = nn.Parameter(empty(self.n_experts, config.dim, config.expert_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [batch, time, dim] to the same shape."""
        flat = x.reshape(-1, x.shape[-1])  # [tokens, dim]
        gates, chosen = self.router(flat)
        out = self._routed(flat, gates, chosen)
        if self.shared is not None:
            out = out + self.shared(flat)
        return out.view(*x.shape)

    def _routed(self, flat: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        if self.training:
            with no_grad():
                experts = chosen.reshape(-1)
                self.router.load.index_add_(0, experts, ones_like(experts, dtype=self.router.load.dtype))
        gate, up, down = self.gate, self.up, self.down
        if isinstance(gate, Tensor) and isinstance(up, Tensor) and isinstance(down, Tensor):
            return F.moe(flat, gate, up, down, chosen, gates)
        from deepseek.quantization import QuantizedWeight, qmoe  # here: without it the model runs on PyTorch too

        assert isinstance(gate, QuantizedWeight) and isinstance(up, QuantizedWeight)
        assert isinstance(down, QuantizedWeight)
        return qmoe(flat, gate, up, down, chosen, gates)
