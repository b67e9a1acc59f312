"""Choosing blocks of keys by their mean key, and attention to what each head of a group chose."""

from __future__ import annotations

import math

import deepseek
from deepseek import Tensor
from deepseek.attention._heads import query_chunks
from deepseek.attention.caches.blocks import block_means
from deepseek.attention.functional import sparse_attention


class MeanSelector:
    """For each query its own block and the ``top_k`` others with the largest ``query . mean key``, the first of equals.

    Args:
        block_size: Keys in a block.
        top_k: Blocks beside the own one.
        shared: Query heads that share a key head share a choice, made by the sum of their scores.
        causal: Only blocks before the own one can be chosen.
    """

    def __init__(self, block_size: int, top_k: int, shared: bool, causal: bool) -> None:
        self.block_size, self.top_k, self.shared, self.causal = block_size, top_k, shared, causal

    def means(self, keys: Tensor) -> Tensor | None:
        """[batch, key_heads, blocks, E] of keys [batch, key_heads, S, E].

        Of whole blocks; without causality of the last one too, whole or not.
        """
        blocks = keys.shape[2] // self.block_size if self.causal else -(-keys.shape[2] // self.block_size)
        return block_means(keys, self.block_size, blocks) if blocks else None

    def lists(self, query: Tensor, means: Tensor | None, start: int) -> Tensor:
        """Blocks int64 [batch, key_heads, members, L, n] (members 1 where they share), the own one first, -1 for none.

        Args:
            query: [batch, key_heads, members, L, E].
            means: [batch, key_heads, blocks, E]; None while there are none.
            start: Position of the first query.
        """
        batch, heads, members, time, _ = query.shape
        choices = 1 if self.shared else members
        own = (deepseek.arange(start, start + time) // self.block_size).reshape(1, 1, 1, time, 1)
        own = own.expand(batch, heads, choices, time, 1)
        n = 0 if means is None else min(self.top_k, means.shape[2])
        if means is None or n == 0:
            return own
        with deepseek.no_grad(), deepseek.autocast("cpu", enabled=False):
            exact = deepseek.float64 if query.dtype is deepseek.float64 else deepseek.float32
            columns = means.to(exact).transpose(-1, -2).unsqueeze(2)  # [batch, key_heads, 1, E, blocks]
            best = []
            for begin, end in query_chunks(time, batch * heads * members * means.shape[2]):
                scores = query[:, :, :, begin:end].to(exact) @ columns  # [batch, key_heads, members, l, blocks]
                if self.shared:
                    scores = scores.sum(dim=2, keepdim=True)
                best.append(self._best(scores, own[:, :, :, begin:end], n))
            return deepseek.cat([own, deepseek.cat(best, dim=3)], dim=-1)

    def _best(self, scores: Tensor, own: Tensor, n: int) -> Tensor:
        blocks = deepseek.arange(scores.shape[-1])
        allowed = blocks < own if self.causal else blocks != own
        values, chosen = deepseek.topk(deepseek.where(allowed, scores, -math.inf), n)
        return deepseek.where(values == -math.inf, -1, chosen)


def attend_blocks(
    query: Tensor, key: Tensor, value: Tensor, lists: Tensor, block_size: int, causal: bool, start: int
) -> Tensor:
    """Attention of each query head to the blocks it chose: [batch, heads, L, Ev].

    The kernel takes one list a key head. Where the heads of a group chose apart they are computed one after another, of
    all groups at once: keys and values are not copied.

    Args:
        query: [batch, heads, L, E].
        key: [batch, key_heads, S, E].
        value: [batch, key_heads, S, Ev].
        lists: int64 [batch, key_heads, members or 1, L, n].
    """

    def part(some: Tensor, blocks: Tensor) -> Tensor:
        return sparse_attention(
            some, key, value, block_lists=blocks, block_size=block_size, is_causal=causal, query_start=start
        ).out

    if lists.shape[2] == 1:
        return part(query, lists[:, :, 0])
    members = query.unflatten(1, (key.shape[1], lists.shape[2]))
    return deepseek.stack([part(members[:, :, i], lists[:, :, i]) for i in range(lists.shape[2])], dim=2).flatten(1, 2)
