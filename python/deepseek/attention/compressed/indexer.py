"""The indexer of DeepSeek-V4's compressed sparse attention: it picks the entries that a query attends to."""

from __future__ import annotations

import math

import deepseek
from deepseek import _C, Tensor
from deepseek.attention.compressed.branches import visible_entries
from deepseek.attention.compressed.compressor import Compressor
from deepseek.attention.compressed.rotation import TailRotation
from deepseek.nn.modules._layers import Linear
from deepseek.nn.modules.module import Module

_SCORES = 1 << 24  # scores in memory at once


class Scorer(Module):
    """Weights of the indexer's heads."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.weights_proj = Linear(hidden_size, num_heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, hidden_size] -> [batch, time, heads]."""
        return self.weights_proj(x)


class EntryIndexer(Compressor):
    """Scores entries of its own, narrower ones, for each query; the best are attended to.

    ``score_ts = sum_h w_th relu(q_th . k_s) / sqrt(head_dim num_heads)``: q from the query's low-rank latent, turned,
    k the entries of a compressor with the same windows. Nothing flows back through a choice, so these parameters get
    no gradient from the attention's output. (DeepSeek-V4, 2026, section 2.3.1)

    Args:
        hidden_size, ratio, eps: See :class:`Compressor`.
        q_lora_rank: Width of the latent.
        num_heads: Heads.
        head_dim: Width of a head and of an entry.
        topk: Entries for a query.
    """

    def __init__(
        self, hidden_size: int, q_lora_rank: int, num_heads: int, head_dim: int, topk: int, ratio: int, eps: float
    ) -> None:
        super().__init__(hidden_size, head_dim, ratio, True, eps)
        self.num_heads, self.topk = num_heads, topk
        self.q_b_proj = Linear(q_lora_rank, num_heads * head_dim, bias=False)
        self.scorer = Scorer(hidden_size, num_heads)

    def scores(self, x: Tensor, latent: Tensor, positions: Tensor, rotation: TailRotation, entries: Tensor) -> Tensor:
        """[batch, time, windows] in float32 (float64 of float64), of all entries, also those that are not visible yet.

        Args:
            x: [batch, time, hidden_size].
            latent: [batch, time, q_lora_rank].
            positions: [time] or [batch, time].
            rotation: Turns queries.
            entries: [batch, windows, head_dim].
        """
        query = self.q_b_proj(latent).unflatten(-1, (self.num_heads, self.head_dim))
        query = rotation.turn(query, rotation.tables(positions, self.head_dim))
        weights = self.scorer(x).to(deepseek.promote_types(x.dtype, deepseek.float32))
        weights = weights * (1.0 / math.sqrt(self.head_dim * self.num_heads))
        return _C._index_scores(query, entries, weights, False, 0)

    def select(
        self, x: Tensor, latent: Tensor, positions: Tensor, rotation: TailRotation, entries: Tensor, start: int
    ) -> Tensor:
        """The ``topk`` visible entries of highest score, int64 [batch, time, topk]; of equal ones the older.

        ``start`` is the place of the first token, which must see at least ``topk`` entries.
        """
        with deepseek.no_grad():
            batch, time, _ = x.shape
            step = max(1, _SCORES // (batch * max(entries.shape[1], 1)))
            chosen = []
            for at in range(0, time, step):
                rows = min(step, time - at)
                least, most = (start + at + 1) // self.ratio, (start + at + rows) // self.ratio
                numbers = positions[..., at : at + rows]
                here = (t[:, at : at + rows] for t in (x, latent))
                scores = self.scores(*here, numbers, rotation, entries[:, :most])
                if least < most:
                    hidden = deepseek.arange(least, most) >= visible_entries(start + at, rows, self.ratio).unsqueeze(-1)
                    scores[..., least:].masked_fill_(hidden, -math.inf)
                chosen.append(scores.topk(self.topk, dim=-1).indices)
            return chosen[0] if len(chosen) == 1 else deepseek.cat(chosen, dim=1)
