"""Mixture of block attention: each query attends to its own block of keys and the few that suit it best."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._heads import (
    check_whole,
    checked_heads,
    join_heads,
    projections,
    rotary_for,
    rotated,
    split_heads,
)
from deepseek.attention._mean_selector import MeanSelector, attend_blocks
from deepseek.attention._pieces import Piece, in_pieces
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention.caches import BlockMeansCache
from deepseek.nn import Linear


class _Held(NamedTuple):
    """What queries attend to, and the means by which they choose."""

    keys: Tensor
    values: Tensor
    means: Tensor | None


@public
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
        num_key_value_heads: Heads of keys and values, each shared by a group of query heads; as many as those by
            default.
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

    caches = (BlockMeansCache,)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
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
        self.num_key_value_heads, self.head_dim = checked_heads(name, dim, num_heads, num_key_value_heads, head_dim)
        check_whole(name, block_size=block_size, top_k=top_k)
        if block_size < 16 or block_size % 16:
            raise ValueError(f"{name}: block_size must be a positive multiple of 16, got {block_size}")
        if top_k < 0:
            raise ValueError(f"{name}: top_k must not be negative, got {top_k}")
        self.width, self.num_heads, self.causal = dim, num_heads, causal
        self.block_size = block_size
        self.selector = MeanSelector(block_size, top_k, shared_selection, causal)
        self.rope = rotary_for(self.head_dim, rope_theta, rope_scaling)
        self.q_proj, self.k_proj, self.v_proj = projections(
            dim, num_heads, self.num_key_value_heads, self.head_dim, bias=bias, dtype=dtype
        )
        self.o_proj = Linear(num_heads * self.head_dim, dim, bias=bias, dtype=dtype)

    def new_cache(self) -> BlockMeansCache:
        """An empty cache: keys, values and the mean key of each whole block.

        Raises:
            ValueError: attention is not causal.
        """
        self._check_causal()
        return BlockMeansCache(self.block_size)

    def attend(self, batch: Batch) -> Tensor:
        """The result for sequences without padding."""
        piece = Piece.of(batch)
        held = self._held(batch)
        return in_pieces(piece, lambda some: self._queries_attend(some, held))

    def selected_blocks(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        """The blocks that queries of x [batch, L, dim] take: int64 [batch, num_heads, L, n], -1 for none.

        The own block is the first of each list, the others follow by falling score.
        """
        with deepseek.no_grad():
            batch = Batch(x, positions)
            lists = self._choose(self._queries(Piece.of(batch)), self._held(batch), 0)
        members = self.num_heads // self.num_key_value_heads
        return lists.expand(-1, -1, members, -1, -1).flatten(1, 2)

    def _queries_attend(self, piece: Piece, held: _Held) -> Tensor:
        query = self._queries(piece)
        lists = self._choose(query, held, piece.start)
        out = attend_blocks(query, held.keys, held.values, lists, self.block_size, self.causal, piece.start)
        result: Tensor = self.o_proj(join_heads(out))
        return result

    def _queries(self, piece: Piece) -> Tensor:
        return rotated(self.rope, piece, split_heads(self.q_proj(piece.x), self.num_heads))[0]

    def _choose(self, query: Tensor, held: _Held, start: int) -> Tensor:
        members = self.num_heads // self.num_key_value_heads
        return self.selector.lists(query.unflatten(1, (self.num_key_value_heads, members)), held.means, start)

    def _held(self, batch: Batch) -> _Held:
        """Keys, values, and the mean keys of blocks; enters the cache."""
        key, value = (split_heads(p(batch.x), self.num_key_value_heads) for p in (self.k_proj, self.v_proj))
        (key,) = rotated(self.rope, Piece.of(batch), key)
        if batch.cache is None:
            return _Held(key, value, self.selector.means(key.detach()))
        self._check_causal()
        cache = cast(BlockMeansCache, batch.cache)
        if cache.block_size != self.block_size or cache.reach is not None:
            raise ValueError(
                f"{type(self).__name__}: the cache must keep all keys in blocks of {self.block_size}, got blocks of "
                f"{cache.block_size} and reach {cache.reach}; see new_cache()"
            )
        return _Held(*cache.append(key, value)[:2], cache.means())


guard(__name__)
