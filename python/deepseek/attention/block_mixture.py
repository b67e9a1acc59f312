"""Mixture of block attention: each query attends to its own block of keys and the few that suit it best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import deepseek
from deepseek import Tensor
from deepseek._missing import guard
from deepseek.attention._heads import (
    checked_head_dim,
    checked_heads,
    join_heads,
    query_chunks,
    rotary_for,
    split_heads,
    turned,
)
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention.caches.blocks import BlockMeanCache, block_means
from deepseek.attention.functional import sparse_attention
from deepseek.nn import Linear

__all__ = ["MixtureOfBlockAttention"]


class MixtureOfBlockAttention(SequenceModule):
    """MoBA: keys in blocks, of which a query takes its own and the ``top_k`` whose mean key it agrees with most.

    For query t of a head, in block c, the blocks j < c with the largest ``q_t . mean(keys of block j)`` (the first of
    equals) and block c, whose keys it sees up to its own; softmax attention over those keys alone. (Lu et al., "MoBA:
    Mixture of Block Attention for Long-Context LLMs", 2025, arXiv 2502.13189, equations 2 to 6; queries and keys are
    turned before.) The choice has no gradient. With no more than ``top_k + 1`` blocks the result is that of dense
    attention, bit for bit. Work is O(L * (top_k + 1) * block_size), the choice O(L * L / block_size).

    Args:
        dim: Width.
        num_heads: Number of heads; divides ``dim`` unless ``head_dim`` is given.
        key_heads: Heads of keys and values, shared by ``num_heads / key_heads`` query heads each. As many by default.
        block_size: Keys in a block, a multiple of 16.
        top_k: Blocks beside the own one. (``moba_topk`` of the authors' code counts the own one too.)
        shared_selection: Query heads that share a key head share a choice as well, made by the sum of their scores;
            False: each has its own, at the cost of one pass over the keys for each.
        head_dim: Features of a head, ``dim / num_heads`` by default.
        causal: A query sees keys up to its own place. False: blocks after the own one can be chosen too; no cache then.
        rope_theta: Base of the rotary frequencies; None turns nothing.
        rope_scaling: As in :class:`RotaryEmbedding`.
        bias: Projections have a bias.
        dtype: Of the parameters.

    Raises:
        ValueError: numbers of heads that do not fit, a ``block_size`` that is not a multiple of 16, a negative
            ``top_k``.
    """

    caches = (BlockMeanCache,)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        key_heads: int | None = None,
        *,
        block_size: int = 512,
        top_k: int = 3,
        shared_selection: bool = False,
        head_dim: int | None = None,
        causal: bool = True,
        rope_theta: float | None = 10000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        bias: bool = False,
        dtype: deepseek.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.key_heads = checked_heads(name, dim, num_heads, key_heads)
        self.head_dim = checked_head_dim(name, dim, num_heads, head_dim)
        if block_size < 16 or block_size % 16:
            raise ValueError(f"{name}: block_size must be a positive multiple of 16, got {block_size}")
        if top_k < 0:
            raise ValueError(f"{name}: top_k must not be negative, got {top_k}")
        self.width, self.num_heads, self.causal = dim, num_heads, causal
        self.block_size, self.top_k, self.shared_selection = block_size, top_k, shared_selection
        self.rope = rotary_for(self.head_dim, rope_theta, rope_scaling)
        self.q_proj = Linear(dim, num_heads * self.head_dim, bias=bias, dtype=dtype)
        self.k_proj = Linear(dim, self.key_heads * self.head_dim, bias=bias, dtype=dtype)
        self.v_proj = Linear(dim, self.key_heads * self.head_dim, bias=bias, dtype=dtype)
        self.o_proj = Linear(num_heads * self.head_dim, dim, bias=bias, dtype=dtype)

    def new_cache(self) -> BlockMeanCache:
        """An empty cache: keys, values and the mean key of each whole block.

        Raises:
            ValueError: attention is not causal.
        """
        self._check_causal()
        return BlockMeanCache(self.block_size)

    def attend(self, batch: Batch) -> Tensor:
        """The result for sequences without padding."""
        start = batch.start
        query, key, value, means = self._parts(batch)
        lists = self._select(query, means, start)
        groups = self.num_heads // self.key_heads
        by_member = query.unflatten(1, (self.key_heads, groups))  # [batch, key_heads, groups, L, E]
        outs = []
        for i, chosen in enumerate(lists):  # of one head a key head at a time, or all that share a choice
            part = by_member[:, :, i] if len(lists) > 1 else query
            out = sparse_attention(
                part,
                key,
                value,
                block_lists=chosen,
                block_size=self.block_size,
                is_causal=self.causal,
                query_start=start,
            ).out
            outs.append(out)
        joined = outs[0] if len(outs) == 1 else deepseek.stack(outs, dim=2).flatten(1, 2)
        result: Tensor = self.o_proj(join_heads(joined))
        return result

    def selected_blocks(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        """The blocks that queries of x [batch, L, dim] take: int64 [batch, num_heads, L, n], -1 for none.

        The own block is the first of each list.
        """
        with deepseek.no_grad():
            query, _, _, means = self._parts(Batch(x, positions))
            lists = self._select(query, means, 0)
        each = deepseek.stack(lists, dim=2)  # [batch, key_heads, members or 1, L, n]
        groups = self.num_heads // self.key_heads
        return each.expand(-1, -1, groups, -1, -1).flatten(1, 2)

    def _parts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys and values, and the mean keys of blocks; enters the cache."""
        x = batch.x
        query = split_heads(self.q_proj(x), self.num_heads)
        key, value = (split_heads(p(x), self.key_heads) for p in (self.k_proj, self.v_proj))
        query, key = turned(self.rope, batch, query, key)
        if batch.cache is None:
            return query, key, value, self._means(key.detach())
        self._check_causal()
        cache = cast(BlockMeanCache, batch.cache)
        if cache.block_size != self.block_size or cache.reach is not None:
            raise ValueError(
                f"{type(self).__name__}: the cache must keep all keys in blocks of {self.block_size}, got blocks of "
                f"{cache.block_size} and reach {cache.reach}; see new_cache()"
            )
        (key, value, *_), means, _ = cache.append(key, value)
        return query, key, value, None if means is None else means.detach()

    def _means(self, key: Tensor) -> Tensor | None:
        """[batch, key_heads, blocks, E]; without causality of the last block too, whole or not."""
        whole, rest = divmod(key.shape[2], self.block_size)
        parts = [block_means(key, self.block_size, whole)] if whole else []
        if rest and not self.causal:
            parts.append(key[:, :, whole * self.block_size :].mean(dim=2, keepdim=True))
        return deepseek.cat(parts, dim=2) if parts else None

    def _select(self, query: Tensor, means: Tensor | None, start: int) -> list[Tensor]:
        """Lists of blocks int64 [batch, key_heads, L, n], own block first: one for each member of a group of query
        heads, or one for all."""
        with deepseek.no_grad(), deepseek.autocast("cpu", enabled=False):
            batch, _, time, size = query.shape
            members = self.num_heads // self.key_heads
            lists = 1 if self.shared_selection else members
            own = (deepseek.arange(start, start + time) // self.block_size).reshape(1, 1, 1, time, 1)
            own = own.expand(batch, self.key_heads, lists, time, 1)
            n = 0 if means is None else min(self.top_k, means.shape[2])
            if means is None or n == 0:
                return [own[:, :, i] for i in range(lists)]
            exact = deepseek.float64 if query.dtype is deepseek.float64 else deepseek.float32
            grouped = query.detach().unflatten(1, (self.key_heads, members))
            turned_means = means.to(exact).transpose(-1, -2).unsqueeze(2)  # [batch, key_heads, 1, E, blocks]
            parts = []
            for begin, end in query_chunks(time, batch * self.num_heads * means.shape[2]):
                scores = grouped[:, :, :, begin:end].to(exact) @ turned_means  # [batch, key_heads, members, l, blocks]
                if self.shared_selection:
                    scores = scores.sum(dim=2, keepdim=True)
                parts.append(_best(scores, own[:, :, :, begin:end], n, self.causal))
            chosen = deepseek.cat([own, deepseek.cat(parts, dim=3)], dim=-1)
            return [chosen[:, :, i] for i in range(lists)]

    def _check_causal(self) -> None:
        if not self.causal:
            raise ValueError(
                f"{type(self).__name__}: a cache needs causal=True: without it earlier tokens would see the new ones"
            )


def _best(scores: Tensor, own: Tensor, n: int, causal: bool) -> Tensor:
    """The ``n`` blocks of the highest scores, -1 where fewer can be chosen: those before the own one, or all others."""
    blocks = deepseek.arange(scores.shape[-1])
    allowed = blocks < own if causal else blocks != own
    values, indices = deepseek.topk(deepseek.where(allowed, scores, -math.inf), n)
    return deepseek.where(values == -math.inf, -1, indices)


guard(__name__)
