"""Keys and values of blocks pressed into one row each, attention to them, and the blocks that their weights select."""

from __future__ import annotations

import math

import deepseek
from deepseek import Tensor
from deepseek.attention._heads import query_chunks
from deepseek.attention.caches.native_sparse import whole_blocks
from deepseek.attention.functional import Attended, attend
from deepseek.nn import Linear
from deepseek.nn import functional as F
from deepseek.nn.modules.module import Module
from deepseek.nn.parameter import Parameter


class BlockCompressor(Module):
    """One row for a block of rows: ``down(gelu(up(concat_i(row_i + position_i))))``, the same for all heads.

    (NSA, equation 7: a learnable MLP with the position of a token within its block.)

    Args:
        size: Features of a row.
        block: Rows of a block.
        stride: Rows from one block to the next; divides ``block``.
        hidden: Width between the two products.
        dtype: Of the parameters.
    """

    def __init__(self, size: int, block: int, stride: int, hidden: int, dtype: deepseek.dtype | None = None) -> None:
        super().__init__()
        self.block, self.stride = block, stride
        self.position = Parameter(deepseek.randn(block, size, dtype=dtype) * 0.02)
        self.up = Linear(block * size, hidden, dtype=dtype)
        self.down = Linear(hidden, size, dtype=dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, heads, time, size] -> [batch, heads, blocks, size], of the whole blocks that begin with ``rows``."""
        blocks = whole_blocks(rows.shape[2], self.block, self.stride)
        parts = self.block // self.stride  # a block is so many units of stride rows
        units = rows[:, :, : (blocks + parts - 1) * self.stride].unflatten(2, (blocks + parts - 1, self.stride))
        joined = deepseek.cat([units[:, :, i : i + blocks] for i in range(parts)], dim=3)  # [.., blocks, block, size]
        result: Tensor = self.down(F.gelu(self.up((joined + self.position).flatten(-2))))
        return result


def seen_blocks(start: int, time: int, block: int, stride: int) -> Tensor:
    """How many compressed rows each of ``time`` queries from position ``start`` on sees: int64 [time]."""
    tokens = deepseek.arange(start + 1, start + time + 1)  # that the query sees
    return deepseek.where(tokens < block, 0, (tokens - block) // stride + 1)


def attend_compressed(
    query: Tensor, keys: Tensor, values: Tensor, start: int, block: int, stride: int, scale: float
) -> Attended:
    """Attention of queries from position ``start`` on to the compressed rows of blocks that are whole for them.

    Args:
        query: [batch, heads, L, E].
        keys: [batch, key_heads, blocks, E].
        values: [batch, key_heads, blocks, Ev].
    """
    parts = []
    for begin, end in query_chunks(query.shape[2], keys.shape[2], least=256):  # of the mask, one for all heads
        seen = seen_blocks(start + begin, end - begin, block, stride)
        last = whole_blocks(start + end, block, stride)
        mask = deepseek.arange(last) < seen.unsqueeze(-1)
        parts.append(attend(query[:, :, begin:end], keys[:, :, :last], values[:, :, :last], mask=mask, scale=scale))
    if len(parts) == 1:
        return parts[0]
    return Attended(*(deepseek.cat(list(each), dim=2) for each in zip(*parts, strict=True)))


class BlockSelector:
    """Chooses blocks of keys by the weights of compressed rows that overlap with them. (NSA, equations 8 to 12.)

    A block's score is the sum of the weights of compressed rows over the units of ``stride`` tokens that both have in
    common (equation 9, whose indices count from 1), over all query heads of a key head (equation 10). The first
    ``initial`` blocks, the query's own and the ``local - 1`` before it are always chosen, then those with the highest
    scores, the first of equals.
    """

    def __init__(self, block: int, stride: int, select: int, count: int, initial: int, local: int) -> None:
        self.block, self.stride, self.select = block, stride, select
        self.count, self.initial, self.local = count, initial, local

    def lists(self, query: Tensor, keys: Tensor | None, lse: Tensor | None, start: int, scale: float) -> Tensor:
        """int64 [batch, key_heads, L, n], -1 for none.

        Args:
            query: [batch, key_heads, members, L, E].
            keys: [batch, key_heads, blocks, E], compressed; None while there are none.
            lse: [batch, key_heads, members, L], logarithms of the denominators over the compressed rows.
            start: Position of the first query.
            scale: Of the scores.
        """
        batch, heads, members, time, _ = query.shape
        blocks = (start + time - 1) // self.select + 1
        own = (deepseek.arange(start, start + time) // self.select).unsqueeze(-1)  # [L, 1]
        if blocks <= self.count:  # all that a query sees
            every = deepseek.arange(blocks)
            return deepseek.where(every <= own, every, -1).expand(batch, heads, time, blocks)
        with deepseek.no_grad(), deepseek.autocast("cpu", enabled=False):
            if keys is None or lse is None:
                return self._best(deepseek.zeros(batch, heads, time, blocks), own)
            exact = deepseek.float64 if query.dtype is deepseek.float64 else deepseek.float32
            columns = keys.to(exact).transpose(-1, -2).unsqueeze(2)  # [batch, key_heads, 1, E, rows]
            parts = []
            for begin, end in query_chunks(time, batch * heads * members * keys.shape[2]):
                here = slice(begin, end)
                last = whole_blocks(start + end, self.block, self.stride)
                weights = self._weights(query[..., here, :].to(exact) * scale, lse[..., here], columns[..., :last])
                seen = seen_blocks(start + begin, end - begin, self.block, self.stride).unsqueeze(-1)
                weights = deepseek.where(deepseek.arange(last) < seen, weights, 0.0)
                parts.append(self._best(self._by_block(weights, blocks), own[here]))
            return deepseek.cat(parts, dim=2)

    def _weights(self, query: Tensor, lse: Tensor, columns: Tensor) -> Tensor:
        """exp(score - lse) summed over the members, [batch, key_heads, L, rows]; anything where a row is not seen."""
        logs = deepseek.where(lse == -math.inf, 0.0, lse).to(query.dtype)
        return (query @ columns).sub_(logs.unsqueeze(-1)).exp_().sum(dim=2)

    def _by_block(self, weights: Tensor, blocks: int) -> Tensor:
        """Equation 9: [..., compressed] -> [..., blocks]."""
        a_block, a_row = self.select // self.stride, self.block // self.stride  # in units of stride tokens
        rows = weights.shape[-1]
        units = blocks * a_block
        padded = F.pad(weights, (a_row - 1, max(units - rows, 0)))  # unit u is covered by rows u - a_row + 1 to u
        covered = padded[..., :units]
        for i in range(1, a_row):
            covered = covered + padded[..., i : i + units]
        scores = covered[..., ::a_block]
        for i in range(1, a_block):  # long rows added are far faster than sums of a few numbers each
            scores = scores + covered[..., i::a_block]
        return scores

    def _best(self, scores: Tensor, own: Tensor) -> Tensor:
        every = deepseek.arange(scores.shape[-1])
        always = (every < self.initial) | (every > own - self.local)
        scores = deepseek.where(always, math.inf, scores)
        values, chosen = deepseek.topk(deepseek.where(every <= own, scores, -math.inf), self.count)
        return deepseek.where(values == -math.inf, -1, chosen)
