"""A small DeepSeek-style language model over bytes (or any token ids)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from deepseek import Tensor, cat, nn, zeros
from deepseek.attention._learning import LearnsSelection, sum_of_indexer_losses
from deepseek.attention.caches import Cache
from deepseek.attention.hyper_connections import HyperConnection, HyperHead
from deepseek.attention.indexer import SparseIndexer
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.models.causal_lm import CausalLM
from deepseek.models.demo.blocks import attention_for, feed_forward_for
from deepseek.models.demo.config import ModelConfig
from deepseek.models.demo.decoding import DecodeState
from deepseek.models.demo.former_names import renamed, renamed_optimizer
from deepseek.models.demo.layers import NgramMemory
from deepseek.moe import update_selection_bias
from deepseek.nn import functional as F

_EVERY_KEY = 2**31 - 1
_TABLE = 2**16  # positions whose rotation is computed once

# Ends of names: matrices of products, and those that write to the residual stream.
_DRAWN = ("weight", "gate_proj", "up_proj", "down_proj")
_TO_RESIDUAL = (
    "attention.out.weight", "attention.o_proj.weight", "attention.o_b_proj.weight",
    "feed_forward.down.weight", "down_proj", "down_proj.weight",
)  # fmt: skip


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int, rotary: RotaryEmbedding) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = attention_for(config, layer, rotary)
        self.feed_forward_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = feed_forward_for(config)

    def new_cache(self) -> Cache:
        """An empty cache for its attention."""
        return self.attention.new_cache()

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Maps x [batch, time, dim] to the same shape."""
        norm = self.feed_forward_norm
        attended = self.attention(self.attention_norm(x), cache=cache)
        h, x = F.add_rms_norm(attended, x, norm.weight, norm.eps)  # x: the sum
        return x + self.feed_forward(h)


class HyperBlock(Block):
    """The same between several residual streams, by hyper-connections. (DeepSeek-V4, 2026, section 2.2)"""

    def __init__(self, config: ModelConfig, layer: int, rotary: RotaryEmbedding) -> None:
        super().__init__(config, layer, rotary)
        self.attention_hyper, self.feed_forward_hyper = (
            HyperConnection(config.dim, config.streams, rms_norm_eps=config.norm_eps) for _ in range(2)
        )

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Maps x [batch, time, streams, dim] to the same shape."""
        y, weights = self.attention_hyper.read(x)
        x = self.attention_hyper.write(self.attention(self.attention_norm(y), cache=cache), x, weights)
        y, weights = self.feed_forward_hyper.read(x)
        return self.feed_forward_hyper.write(self.feed_forward(self.feed_forward_norm(y)), x, weights)


class LanguageModel(CausalLM):
    """RMSNorm, attention, mixture of experts, hashed n-gram memory, tied embedding."""

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.ngram = NgramMemory(config) if config.ngram_orders else None
        rotary = RotaryEmbedding(config.head_dim, config.rope_theta, length=min(config.context, _TABLE))
        kind = HyperBlock if config.streams else Block
        self.blocks = nn.ModuleList([kind(config, layer, rotary) for layer in range(config.n_layers)])
        self.head = HyperHead(config.dim, config.streams, rms_norm_eps=config.norm_eps) if config.streams else None
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self._initialise()
        self.begin_step(0)

    def _initialise(self) -> None:
        """Normal weights; what writes to the residual stream starts smaller, the more layers write to it."""
        residual = 1.0 / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1 or not name.endswith(_DRAWN):
                continue  # norm gains stay 1, and what is no matrix of a product stays as its module made it
            if "embedding" in name or ".tables." in name:
                std = 0.5 / math.sqrt(self.config.dim) if "embedding" in name else 0.02
            else:
                std = 1.0 / math.sqrt(parameter.shape[-1])
                if name.endswith(_TO_RESIDUAL):
                    std *= residual
            nn.init.normal_(parameter, mean=0.0, std=std)

    def forward(self, tokens: Tensor, state: DecodeState | None = None) -> Tensor:
        """Maps tokens [batch, time] (int64) to logits [batch, time, vocab_size].

        With a ``state``, tokens follow those it has seen: any number of them, the results are the same.
        """
        x = self.embedding(tokens)  # [batch, time, dim]
        if self.ngram is not None:
            x = x + self._recall(tokens, state)
        if self.head is not None:
            x = x.unsqueeze(2).expand(-1, -1, self.config.streams, -1)  # [batch, time, streams, dim]
        for index, block in enumerate(self.blocks):
            x = block(x, None if state is None else state.caches[index])
        if self.head is not None:
            x = self.head(x)
        return F.linear(self.norm(x), self.embedding.weight)

    def _recall(self, tokens: Tensor, state: DecodeState | None) -> Tensor:
        assert self.ngram is not None
        if state is not None:
            return self.ngram(state.extended(tokens))
        past = zeros(tokens.shape[0], self.ngram.history, dtype=tokens.dtype)
        return self.ngram(cat([past, tokens], dim=1))

    def new_cache(self) -> DecodeState:
        """What decoding with this model starts from."""
        return DecodeState(self)

    def auxiliary_loss(self) -> Tensor | None:
        """What parts of the model learn beside the text, from the last training forward; None where there is nothing.

        The indexers' distance to the attention they pick keys for (DeepSeek-V3.2), times ``index_loss``. No other
        parameter has a gradient from it.
        """
        total = sum_of_indexer_losses(self)
        return None if total is None else total * self.config.index_loss

    def begin_step(self, step: int) -> None:
        """Says how many optimizer steps the model has behind it: the indexers pick keys from ``index_warmup`` on."""
        warm = step < self.config.index_warmup
        for indexer in self._indexers():
            indexer.stage = "dense" if warm else "sparse"
            name = "index_topk" if isinstance(indexer, SparseIndexer) else "topk"
            setattr(indexer, name, _EVERY_KEY if warm else self.config.index_topk)

    def _indexers(self) -> list[LearnsSelection]:
        return [module for module in self.modules() if isinstance(module, LearnsSelection)]

    def end_step(self) -> None:
        """Balances the experts."""
        self.rebalance_experts()

    def rebalance_experts(self) -> None:
        """Moves the routers' balancing biases; call it once after every optimizer step."""
        if self.config.routed:
            update_selection_bias(self, self.config.bias_update_rate)

    def parameter_groups(self, named: Iterable[tuple[str, Tensor]]) -> list[list[str]]:
        """Names of matrices, of norms and embedding, and of n-gram tables, if there are any."""
        named = list(named)
        tables = [name for name, _ in named if ".tables." in name]
        groups = super().parameter_groups((name, value) for name, value in named if ".tables." not in name)
        return [*groups, tables] if tables else groups

    def renamed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the names that mixtures of experts have in DeepSeek's models."""
        return renamed(state)

    def renamed_optimizer(self, optimizer: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        """With the parameters in the order of today's names."""
        return renamed_optimizer(optimizer, state, list(self.named_parameters()), self.parameter_groups)
