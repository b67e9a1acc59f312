"""Which keys a query of sparse attention reads: by the mean key of each block, or by an indexer.

A selection has no gradient, is made among visible keys only, and depends on nothing but the query and the keys: not on
the queries beside it, on the batch, on threads, nor on how the input is cut into calls. Of equal scores the first win.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from typing import NamedTuple

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.index_keys import IndexRows
from deepseek.attention.indexer import Indexed, SparseIndexer

# Numbers of selected blocks, or scores, that are held before it is known how many of them are needed.
_HELD = 1 << 22


@public
class Budget(NamedTuple):
    """How many keys a query may take.

    Attributes:
        ratio: Share of its visible keys, in (0, 1]; not used beside ``max_keys`` or ``mass``.
        max_keys: So many, whatever it sees; None: no limit.
        mass: In (0, 1): no more than needed for this share of the estimated weight. 1: all ``max_keys``, but blocks
            are ranked by their estimated weight instead of by score. None: all it may take, by score.
    """

    ratio: float = 1.0
    max_keys: int | None = None
    mass: float | None = None

    def keys(self, visible: int) -> int:
        """Most keys of a query that sees so many."""
        if self.max_keys is not None:
            return min(self.max_keys, visible)
        if self.mass is not None:
            return visible
        return max(1, int(self.ratio * visible * (1 + 1e-12)))  # 0.29 of 100 is 29, not 28.999…

    def blocks(self, visible: int, size: int) -> int:
        """The same in whole blocks, rounded up."""
        return -(-self.keys(visible) // size)

    @property
    def adapts(self) -> bool:
        """Whether queries may stop before they have taken all they may."""
        return self.mass is not None and self.mass < 1

    def takes_all(self, visible: int, size: int = 1) -> bool:
        """Whether a query that sees so many keys takes them all, in blocks of ``size``."""
        return not self.adapts and self.blocks(visible, size) * size >= visible


@public
def select_blocks(
    query: Tensor,
    key: Tensor,
    means: Tensor,
    block_size: int,
    budget: Budget,
    *,
    is_causal: bool,
    scale: float | None = None,
    query_start: int = 0,
) -> Tensor:
    """The blocks each query reads: its own, the first (where the budget has room for two), and the best of the others.

    Best by score: product of a block's mean key with the mean of the queries whose heads share the key head. Best by
    weight (``budget.mass``): the share of the softmax that a block would have if each of its keys were its mean, summed
    over these heads; the own block's share is that of its visible keys themselves. (MoBA, Lu et al., 2025; NSA, Yuan et
    al., 2025)

    Args:
        query: [batch, heads, L, E].
        key: [batch, key_heads, S, E]; key_heads divides heads.
        means: [batch, key_heads, N, E], mean keys without gradients: with ``is_causal`` at least of the blocks before
            the last query's own, else of all.
        block_size: Keys in a block.
        budget: How many a query may take, in whole blocks.
        is_causal: A query sees the keys up to its own position.
        scale: Of the scores behind the weights; 1/sqrt(E) when omitted.
        query_start: Position of the first query; queries lie among the keys.

    Returns:
        int64 [batch, key_heads, L, n], blocks in ascending order, then -1.
    """
    batch, _, time, size = query.shape
    keys = key.shape[-2]
    factor = 1.0 / math.sqrt(max(size, 1)) if scale is None else scale
    ratio = budget.ratio if budget.max_keys is None and budget.mass is None else 0.0

    def select(a: int, b: int) -> Tensor:
        last = query_start + b if is_causal else keys
        most = max(1, budget.blocks(max(last, 1), block_size))
        place = (is_causal, factor, query_start + a)
        return _C._select_blocks(query[:, :, a:b], key, means, block_size, most, ratio, budget.mass or 0.0, *place)

    with deepseek.no_grad():
        if not budget.adapts:
            return select(0, time)
        # Few queries need as many blocks as they may take: a list is as long as the longest.
        step = max(1, _HELD // max(1, batch * key.shape[1] * -(-keys // block_size)))
        return _same_width([_trimmed(select(a, min(a + step, time))) for a in range(0, time, step)])


@public
def select_keys(
    indexer: SparseIndexer,
    made: Indexed,
    rows: IndexRows,
    budget: Budget,
    *,
    query_start: int = 0,
) -> Tensor:
    """The keys with the best scores of an indexer.

    Args:
        indexer: Gives the scores; with ``budget.mass`` their softmax is the estimated weight.
        made: What it made of the queries' tokens.
        rows: Its keys, of all tokens that queries may see.
        budget: How many a query may take.
        query_start: Position of the first query.

    Returns:
        int64 [batch, L, n], -1 where a query takes fewer.
    """
    batch, time = made.query.shape[:2]
    there = rows.values.shape[1]
    if budget.max_keys is not None and not budget.adapts:
        return indexer.select(made, rows, query_start=query_start, topk=budget.max_keys)
    parts = []
    with deepseek.no_grad():
        step = max(1, _HELD // max(1, batch * there))
        for a in range(0, time, step):
            b = min(a + step, time)
            seen = query_start + b if indexer.causal else there
            scores = indexer.scores(made.rows(a, b), rows.first(seen), query_start=query_start + a)
            best, chosen = deepseek.topk(scores, budget.keys(seen))
            wanted = best > -math.inf
            if budget.adapts:
                assert budget.mass is not None
                weights = deepseek.exp(best - deepseek.logsumexp(scores, dim=-1, keepdim=True))
                before = weights.cumsum(dim=-1) - weights  # the weight of those that are better
                wanted = wanted & (before < budget.mass)
            elif indexer.causal:
                most = [budget.keys(query_start + i + 1) for i in range(a, b)]
                wanted = wanted & (deepseek.arange(best.shape[-1]) < deepseek.tensor(most).unsqueeze(-1))
            else:
                wanted = wanted & (deepseek.arange(best.shape[-1]) < budget.keys(there))
            parts.append(_trimmed(deepseek.where(wanted, chosen, -1)))
    return _same_width(parts)


@public
def kept_keys(lists: Tensor, block_size: int, keys: int, *, is_causal: bool, query_start: int = 0) -> Tensor:
    """How many keys queries read that selected these blocks, int64 [batch, key_heads, L].

    Args:
        lists: int64 [batch, key_heads, L, n], -1 for none; each query's own block is among them.
        block_size: Keys in a block.
        keys: Keys there are.
        is_causal: A query sees the keys up to its own position.
        query_start: Position of the first query.
    """
    there = lists >= 0
    first = lists * block_size
    end = deepseek.full([], keys, dtype=deepseek.int64)
    if is_causal:
        end = deepseek.arange(query_start + 1, query_start + lists.shape[2] + 1).unsqueeze(-1)
    return deepseek.where(there, (end - first).clamp(max=block_size), 0).sum(dim=-1)


def _trimmed(lists: Tensor) -> Tensor:
    """Without columns that name nothing; those of a row that do come first."""
    longest = int((lists >= 0).sum(dim=-1).max()) if lists.numel() else 0
    return lists[..., :longest]


def _same_width(parts: list[Tensor]) -> Tensor:
    """Lists [..., L, n] of the queries of all parts."""
    if len(parts) == 1:
        return parts[0].contiguous()
    width = max(part.shape[-1] for part in parts)
    filled = [deepseek.nn.functional.pad(part, (0, width - part.shape[-1]), value=-1) for part in parts]
    return deepseek.cat(filled, dim=-2)


guard(__name__)
