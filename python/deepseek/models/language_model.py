"""A small DeepSeek-style language model over bytes (or any token ids)."""

from __future__ import annotations

import math
from typing import Any

from deepseek import Tensor, cat, nn, zeros
from deepseek.models.config import ModelConfig
from deepseek.models.generation import generate
from deepseek.models.layers import Attention, FeedForward, KeyValueCache, NgramMemory, rope_table
from deepseek.models.moe import MixtureOfExperts
from deepseek.nn import functional as F


class DecodeState:
    """What decoding remembers between calls: one cache per layer, the position, and the last tokens."""

    def __init__(self, config: ModelConfig) -> None:
        self.caches = [KeyValueCache(config.context) for _ in range(config.n_layers)]
        self.position = 0
        self.tail: Tensor | None = None


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward: nn.Module
        if config.n_routed_experts:
            self.feed_forward = MixtureOfExperts(config)
        else:
            self.feed_forward = FeedForward(config.dim, config.expert_dim * config.n_shared_experts)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: KeyValueCache | None = None) -> Tensor:
        """Maps x [batch, time, dim] to the same shape."""
        norm = self.feed_forward_norm
        attended = self.attention(self.attention_norm(x), rope, cache)
        h, x = F.add_rms_norm(attended, x, norm.weight, norm.eps)  # x: the sum
        return x + self.feed_forward(h)


class LanguageModel(nn.Module):
    """RMSNorm, RoPE attention, mixture of experts, hashed n-gram memory, tied embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.ngram = NgramMemory(config) if config.ngram_orders else None
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_layers)])
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights; what writes to the residual stream starts smaller, the more layers write to it."""
        residual = 1.0 / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                continue  # norm gains stay 1
            if "embedding" in name or ".tables." in name:
                std = 0.5 / math.sqrt(self.config.dim) if "embedding" in name else 0.02
            else:
                std = 1.0 / math.sqrt(parameter.shape[-1])
                if name.endswith(("out.weight", "down", "down.weight")):
                    std *= residual
            nn.init.normal_(parameter, mean=0.0, std=std)

    def forward(self, tokens: Tensor, state: DecodeState | None = None) -> Tensor:
        """Maps tokens [batch, time] (int64) to logits [batch, time, vocab_size].

        With a fresh ``state`` this is the prefill; afterwards pass one token at a time.
        """
        time = tokens.shape[1]
        start = 0 if state is None else state.position
        rope = rope_table(start, time, self.config.head_dim, self.config.rope_theta)
        x = self.embedding(tokens)  # [batch, time, dim]
        if self.ngram is not None:
            x = x + self._recall(tokens, state)
        for index, block in enumerate(self.blocks):
            x = block(x, rope, None if state is None else state.caches[index])
        if state is not None:
            state.position += time
        return F.linear(self.norm(x), self.embedding.weight)

    def _recall(self, tokens: Tensor, state: DecodeState | None) -> Tensor:
        assert self.ngram is not None
        history = self.ngram.history
        if state is None or state.tail is None:
            past = zeros(tokens.shape[0], history, dtype=tokens.dtype)
        else:
            past = state.tail
        extended = cat([past, tokens], dim=1)  # [batch, history + time]
        if state is not None:
            state.tail = extended[:, -history:]
        return self.ngram(extended)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of targets [batch, time] after tokens [batch, time]."""
        logits = self(tokens)
        return F.cross_entropy(logits.reshape(-1, self.config.vocab_size), targets.reshape(-1))

    def rebalance_experts(self) -> None:
        """Moves the routers' balancing biases; call it once after every optimizer step."""
        for module in self.modules():
            if isinstance(module, MixtureOfExperts):
                module.router.rebalance(self.config.bias_update_rate)

    def generate(self, tokens: Tensor, max_new_tokens: int, **sampling: Any) -> Tensor:
        """Continues tokens int64 [1, time]; see :func:`deepseek.models.generation.stream` for the settings."""
        return generate(self, tokens, max_new_tokens, **sampling)
