"""Attention in which each query picks the keys it reads: the cost is that of the picked keys, not of all."""

# mypy: no-implicit-reexport

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

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
from deepseek.attention._pieces import QUERIES_AT_ONCE, Piece, in_pieces
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.blocks import BlockMeansCache, block_means
from deepseek.attention.caches.index_keys import IndexRows
from deepseek.attention.caches.indexed import IndexedCache
from deepseek.attention.functional import Attended, attend, sparse_attention
from deepseek.attention.indexer import SparseIndexer
from deepseek.attention.indexer_loss import Attention
from deepseek.attention.selection import Budget, kept_keys, select_blocks, select_keys
from deepseek.nn.modules import Linear
from deepseek.nn.modules.module import Module
from deepseek.utils.checkpoint import computed_again

_FEW = 64  # blocks of a selection that may be held until it is counted


@public
class DynamicSparseAttention(SequenceModule):
    """Self-attention of each token to the keys it selects; the others are never read.

    Two selectors. ``"blocks"`` scores the mean key of each block of ``block_size`` keys; a query always reads its own
    block, and the first one where the budget has room for two; query heads that share a key head read the same blocks
    (:func:`~deepseek.attention.selection.select_blocks`). ``"indexer"`` picks single keys, the same for all heads, by a
    small trainable :class:`~deepseek.attention.SparseIndexer`; set ``indexer.stage`` to train it, and add
    ``indexer.loss`` to the model's loss. Gradients flow through the selected keys, not through the selection.

    Where the budget covers all keys a query sees, the result is :func:`deepseek.nn.functional.attention`, bit for bit
    (in float64 to rounding).

    The work for n tokens is O(n * budget) for the attention and, for the scan by which it selects, O(n**2 / block_size)
    products of one head or O(n**2) of the indexer's.

    Args:
        dim: Width of the input and the result.
        num_heads: Query heads.
        sparsity_ratio: Share of its visible keys that a query reads, in (0, 1], at least one key; in whole blocks,
            rounded up. Not used beside ``max_keys`` or ``mass``.
        num_key_value_heads: Key heads, each shared by a group of query heads; divides ``num_heads``, which it is when
            omitted.
        head_dim: Width of a head, ``dim // num_heads`` when omitted.
        max_keys: A fixed budget in place of a share, so that the work grows as the length. In whole blocks.
        block_size: Keys in a block, a multiple of 16.
        selector: ``"blocks"`` or ``"indexer"``.
        mass: In (0, 1): a query reads no more blocks (or keys) than it needs for this share of its softmax weight, as
            the selector estimates it, and no more than ``max_keys``. 1: blocks are ranked by their estimated weight in
            each head, not by the product with the mean query (slower, better where heads differ).
        causal: A query sees the keys up to its own position. Otherwise all.
        rope_theta: Base of a rotary embedding of queries and keys; None: none.
        bias: Whether the projections have one.
        index_n_heads, index_head_dim: Of the indexer.

    Shapes: [batch, time, dim] to [batch, time, dim]. Parameters: ``query_proj`` [num_heads * head_dim, dim],
    ``key_proj`` and ``value_proj`` [num_key_value_heads * head_dim, dim], ``out_proj`` [dim, num_heads * head_dim].

    Raises:
        TypeError: a size that is not whole.
        ValueError: a size, share or budget outside its range, heads that do not divide, another selector.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sparsity_ratio: float = 0.3,
        *,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        max_keys: int | None = None,
        block_size: int = 64,
        selector: str = "blocks",
        mass: float | None = None,
        causal: bool = False,
        rope_theta: float | None = None,
        bias: bool = False,
        index_n_heads: int = 4,
        index_head_dim: int = 64,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.num_key_value_heads, self.head_dim = checked_heads(name, dim, num_heads, num_key_value_heads, head_dim)
        _check_budget(sparsity_ratio, max_keys, mass, block_size)
        if selector not in ("blocks", "indexer"):
            raise ValueError(f"DynamicSparseAttention: selector must be 'blocks' or 'indexer', got {selector!r}")
        self.width = self.dim = dim
        self.num_heads = num_heads
        self.sparsity_ratio, self.max_keys, self.mass = sparsity_ratio, max_keys, mass
        self.block_size, self.selector, self.causal = block_size, selector, causal
        self.query_proj, self.key_proj, self.value_proj = projections(
            dim, num_heads, self.num_key_value_heads, self.head_dim, bias=bias
        )
        self.out_proj = Linear(num_heads * self.head_dim, dim, bias=bias)
        self.rotary = rotary_for(self.head_dim, rope_theta, None)
        self.indexer: SparseIndexer | None = None
        if selector == "indexer":
            self.indexer = SparseIndexer(
                dim,
                index_n_heads,
                index_head_dim,
                max_keys or 2048,
                qk_rope_head_dim=0 if rope_theta is None else index_head_dim // 4 * 2,
                rope_theta=rope_theta or 10000.0,
                causal=causal,
            )
        self.caches = (BlockMeansCache,) if self.indexer is None else (IndexedCache,)
        self._kept: list[Callable[[], Tensor]] = []  # of the last forward: keys read, for each query (and key head)

    @property
    def budget(self) -> Budget:
        """How many keys a query may take."""
        return Budget(self.sparsity_ratio, self.max_keys, self.mass)

    @property
    def last_kept(self) -> float | None:
        """Mean number of keys that a query of the last forward read, counted when this is asked; None before one."""
        if not self._kept:
            return None
        counts = [count().flatten().to(deepseek.float64) for count in self._kept]
        return float(deepseek.cat(counts).mean())

    def new_cache(self) -> Cache:
        """An empty cache; for a causal module.

        Raises:
            ValueError: the module is not causal.
        """
        self._check_causal()
        if self.indexer is None:
            return BlockMeansCache(self.block_size)
        return IndexedCache(self.indexer.new_keys().dtype)

    def forward(
        self,
        x: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        if isinstance(cache, BlockMeansCache) and self.indexer is None:
            self._check_block_means(cache)
        self._kept = []
        if self.indexer is not None:
            self.indexer.forget_loss()
        return super().forward(x, attention_mask=attention_mask, positions=positions, cache=cache)

    def attend(self, batch: Batch) -> Tensor:
        piece = Piece.of(batch)  # before the cache grows
        key, value = (
            split_heads(project(batch.x), self.num_key_value_heads) for project in (self.key_proj, self.value_proj)
        )
        (key,) = rotated(self.rotary, piece, key)
        means = None
        if isinstance(batch.cache, BlockMeansCache | IndexedCache):
            held = batch.cache.append(key, value)
            key, value = held.keys, held.values
        if self.indexer is not None:
            return self._result(self._over_keys(self.indexer, batch, self._query(piece), key, value, piece.start))
        if self.budget.takes_all(key.shape[2], self.block_size):
            return self._result(self._dense(self._query(piece), key, value, piece.start).out)
        if isinstance(batch.cache, BlockMeansCache):
            means = batch.cache.means()
        if means is None:
            blocks = (key.shape[2] - 1) // self.block_size if self.causal else -(-key.shape[2] // self.block_size)
            means = block_means(key.detach(), self.block_size, blocks)
        # With few key heads queries, results and their gradients are most of the memory of a training step. In pieces
        # gradients never exist whole, and the queries are made again for them.
        return in_pieces(
            piece,
            lambda some: self._result(self._of_piece(some, key, value, means)),
            always=self.num_key_value_heads < self.num_heads,
        )

    def _of_piece(self, piece: Piece, key: Tensor, value: Tensor, means: Tensor) -> Tensor:
        def attend_as(query: Tensor) -> Tensor:
            return self._over_blocks(query, key, value, means, piece.start)

        if not _is_plain(self.query_proj):  # hooks, an adapter with a state: called once
            return attend_as(self._query(piece))
        with computed_again(lambda: self._query(piece), [piece.x, *self.query_proj.parameters()]) as query:
            return attend_as(query)

    def _query(self, piece: Piece) -> Tensor:
        (query,) = rotated(self.rotary, piece, split_heads(self.query_proj(piece.x), self.num_heads))
        return query

    def _result(self, heads: Tensor) -> Tensor:
        result: Tensor = self.out_proj(join_heads(heads))
        return result

    def _over_blocks(self, query: Tensor, key: Tensor, value: Tensor, means: Tensor, start: int) -> Tensor:
        keys, size, causal = key.shape[2], self.block_size, self.causal
        lists = select_blocks(query, key, means, size, self.budget, is_causal=causal, query_start=start)
        if lists.shape[-1] > _FEW:
            counts = kept_keys(lists, size, keys, is_causal=causal, query_start=start)
            self._count(counts)
        else:
            self._kept.append(lambda: kept_keys(lists, size, keys, is_causal=causal, query_start=start))
        return sparse_attention(
            query, key, value, block_lists=lists, block_size=size, is_causal=causal, query_start=start
        ).out

    def _over_keys(
        self, indexer: SparseIndexer, batch: Batch, query: Tensor, key: Tensor, value: Tensor, start: int
    ) -> Tensor:
        """Queries that may take all keys they see are dense, the others read their selection."""
        time, keys = query.shape[2], key.shape[2]
        with contextlib.nullcontext() if indexer.learns else deepseek.no_grad():
            made = indexer.project(batch.x, positions=batch.positions, start=start)
        rows = IndexRows(made.key)
        if isinstance(batch.cache, IndexedCache):
            rows = batch.cache.append_index(made.key)
        easy = self._dense_queries(time, keys, start)
        if indexer.learns and indexer.stage == "dense":
            easy = time
        parts = []
        if easy > 0:
            seen = start + easy if self.causal else keys
            near = key[:, :, :seen], value[:, :, :seen]
            first = query[:, :, :easy]
            part = self._dense(first, *near, start)
            parts.append(part.out)
            if indexer.learns:
                attention = Attention(first, near[0], part.lse, self.head_dim**-0.5)
                indexer.learn(made.rows(0, easy), attention, keys=rows, query_start=start)
        for a in range(easy, time, QUERIES_AT_ONCE):  # a list of single keys is long, so not of all queries at once
            b = min(a + QUERIES_AT_ONCE, time)
            some, place = made.rows(a, b), start + a
            indices = select_keys(indexer, some, rows, self.budget, query_start=place)
            part = sparse_attention(query[:, :, a:b], key, value, indices, is_causal=self.causal, query_start=place)
            counts = (indices >= 0).sum(dim=-1)
            self._count(counts)
            parts.append(part.out)
            if indexer.learns:
                attention = Attention(query[:, :, a:b], key, part.lse, self.head_dim**-0.5)
                indexer.learn(some, attention, indices, keys=rows, query_start=place)
        return parts[0] if len(parts) == 1 else deepseek.cat(parts, dim=2)

    def _dense_queries(self, time: int, keys: int, start: int) -> int:
        """How many of the queries, from the first on, take all the keys they see."""
        if not self.causal:
            return time if self.budget.takes_all(keys) else 0
        if self.budget.takes_all(start + time):
            return time
        most = self.max_keys if self.max_keys is not None and not self.budget.adapts else 0
        return min(time, max(0, most - start))

    def _dense(self, query: Tensor, key: Tensor, value: Tensor, start: int) -> Attended:
        batch, time, keys = query.shape[0], query.shape[2], key.shape[2]

        def count() -> Tensor:
            seen = deepseek.arange(start + 1, start + time + 1) if self.causal else deepseek.full([time], keys)
            return seen.expand(batch, time)

        self._kept.append(count)
        return attend(query, key, value, is_causal=self.causal, query_start=start)

    def _count(self, counts: Tensor) -> None:
        self._kept.append(lambda: counts)

    def _check_block_means(self, cache: BlockMeansCache) -> None:
        if cache.block_size != self.block_size or cache.reach is not None:
            raise ValueError(
                f"DynamicSparseAttention selects among all blocks of {self.block_size} keys, the cache has the "
                f"means of blocks of {cache.block_size} and keeps {cache.reach or 'all'} keys; make it with new_cache()"
            )

    def __getstate__(self) -> dict[str, object]:
        """Without the selections of the last forward."""
        return self.__dict__ | {"_kept": []}

    def extra_repr(self) -> str:
        budget = f"sparsity_ratio={self.sparsity_ratio}" if self.mass is None else f"mass={self.mass}"
        if self.max_keys is not None:
            budget = f"max_keys={self.max_keys}" + ("" if self.mass is None else f", mass={self.mass}")
        return (
            f"dim={self.dim}, num_heads={self.num_heads}, num_key_value_heads={self.num_key_value_heads}, "
            f"head_dim={self.head_dim}, {budget}, block_size={self.block_size}, selector={self.selector!r}, "
            f"causal={self.causal}"
        )


def _is_plain(layer: Module) -> bool:
    """Whether calling it does nothing but multiply."""
    tables = layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks
    return type(layer) is Linear and not any(tables)


def _check_budget(ratio: float, max_keys: int | None, mass: float | None, block_size: int) -> None:
    name = "DynamicSparseAttention"
    check_whole(name, max_keys=max_keys, block_size=block_size)
    if not (math.isfinite(ratio) and 0 < ratio <= 1):
        raise ValueError(f"{name}: sparsity_ratio is the kept share of the keys, in (0, 1], got {ratio}")
    if max_keys is not None and max_keys < 1:
        raise ValueError(f"{name}: max_keys must be positive, got {max_keys}; None sets no fixed budget")
    if mass is not None and not (math.isfinite(mass) and 0 < mass <= 1):
        raise ValueError(f"{name}: mass is a share of the softmax weight, in (0, 1], got {mass}")
    if block_size < 16 or block_size % 16:
        raise ValueError(f"{name}: block_size must be a positive multiple of 16, got {block_size}")


guard(__name__)
