"""Attention of the language model's blocks: its own dense one, and the modules of deepseek.attention by name."""

from __future__ import annotations

from deepseek import Tensor, nn
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention.caches import Cache, SlidingCache
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.models.demo.config import ModelConfig
from deepseek.nn import functional as F


class DenseAttention(SequenceModule):
    """Causal multi-head attention with rotary positions and RMS-normalised queries and keys, [batch, time, dim].

    A token sees the last ``context`` tokens, itself included. Rotary attention sees distances only and none exceeds
    those it was trained on, so a text may run on for ever, in the memory of one window.
    """

    caches = (SlidingCache,)

    def __init__(self, config: ModelConfig, rotary: RotaryEmbedding) -> None:
        super().__init__()
        self.width = config.dim
        self.n_heads, self.head_dim, self.window = config.n_heads, config.head_dim, config.context
        self.rotary = rotary
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def new_cache(self) -> SlidingCache:
        """A cache of one window."""
        return SlidingCache(self.window)

    def attend(self, batch: Batch) -> Tensor:
        """See :class:`deepseek.attention.SequenceModule`."""
        x, cache = batch.x, batch.cache
        rows, time, dim = x.shape
        # [batch, time, 3, heads, head_dim] -> three of [batch, heads, time, head_dim]
        q, k, v = self.qkv(x).view(rows, time, 3, self.n_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        turns = self.rotary
        tables = turns.tables_from(batch.start, time) if batch.positions is None else turns.tables(batch.positions)
        q, k = turns.turn(self.q_norm(q), tables), turns.turn(self.k_norm(k), tables)
        if cache is None and time <= self.window:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = self._windowed(q, k, v, cache)
        return self.out(y.transpose(1, 2).reshape(rows, time, dim))

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, cache: Cache | None) -> Tensor:
        first = start = 0
        if cache is not None:
            assert isinstance(cache, SlidingCache)
            if cache.window < self.window:
                raise ValueError(
                    f"DenseAttention: the cache keeps {cache.window} tokens, a token here sees {self.window}; use its "
                    "new_cache()"
                )
            start = cache.length
            held = cache.append(k, v)
            k, v, first = held.keys, held.values, held.first
        return F.attention(q, k, v, is_causal=True, window=self.window, query_start=start - first)
