"""The indexer of DeepSeek-V4's compressed sparse attention: it picks the entries that a query attends to."""

from __future__ import annotations

import math

import deepseek
from deepseek import _C, Tensor
from deepseek.attention._learning import LearnsSelection
from deepseek.attention.compressed.branches import visible_entries
from deepseek.attention.compressed.compressor import Compressor
from deepseek.attention.compressed.rotation import TailRotation
from deepseek.attention.indexer_loss import Attention, indexer_loss
from deepseek.nn.modules import Linear
from deepseek.nn.modules.module import Module

_SCORES = 1 << 21  # scores in memory at once


class Scorer(Module):
    """Weights of the indexer's heads."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.weights_proj = Linear(hidden_size, num_heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, hidden_size] -> [batch, time, heads]."""
        return self.weights_proj(x)


class EntryIndexer(LearnsSelection, Compressor):
    """Scores entries of its own, narrower ones, for each query; the best are attended to.

    ``score_ts = sum_h w_th relu(q_th . k_s) / sqrt(head_dim num_heads)``: q from the query's low-rank latent, turned,
    k the entries of a compressor with the same windows. (DeepSeek-V4, 2026, section 2.3.1)

    Nothing flows back through a choice, so these parameters get no gradient from the attention's output. They learn as
    DeepSeek-V3.2's indexer does, from the divergence of ``softmax(score_t)`` over the entries from the heads' summed
    attention to them; :class:`LearnsSelection` says how. Nothing else learns from that loss.

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

    def project(self, x: Tensor, latent: Tensor, positions: Tensor, rotation: TailRotation) -> tuple[Tensor, Tensor]:
        """Queries [batch, time, heads, head_dim], turned, and weights [batch, time, heads], which are scaled.

        Args:
            x: [batch, time, hidden_size].
            latent: [batch, time, q_lora_rank].
            positions: [time] or [batch, time].
            rotation: Turns queries.
        """
        query = self.q_b_proj(latent).unflatten(-1, (self.num_heads, self.head_dim))
        query = rotation.turn(query, rotation.tables(positions, self.head_dim))
        weights = self.scorer(x).to(deepseek.promote_types(x.dtype, deepseek.float32))
        return query, weights * (1.0 / math.sqrt(self.head_dim * self.num_heads))

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
                part = (x[:, at : at + rows], latent[:, at : at + rows], positions[..., at : at + rows])
                query, weights = self.project(*part, rotation)
                scores = _C._index_scores(query, entries[:, :most], weights, False, 0)
                if least < most:
                    hidden = deepseek.arange(least, most) >= visible_entries(start + at, rows, self.ratio).unsqueeze(-1)
                    scores[..., least:].masked_fill_(hidden, -math.inf)
                chosen.append(scores.topk(self.topk, dim=-1).indices)
            return chosen[0] if len(chosen) == 1 else deepseek.cat(chosen, dim=1)

    def learn(
        self,
        x: Tensor,
        latent: Tensor,
        positions: Tensor,
        rotation: TailRotation,
        entries: Tensor,
        attention: Attention,
        start: int,
        indices: Tensor | None,
    ) -> None:
        """Adds to ``loss``, for the queries that see an entry.

        Args:
            x, latent, positions, rotation: See :meth:`project`.
            entries: [batch, windows, head_dim], the indexer's, with their graph.
            attention: Of the same queries to the attention's entries; denominators of everything they saw.
            start: Place of the first query.
            indices: What the last queries selected, [batch, queries, topk]; those before saw all entries.
        """
        query, weights = self.project(x.detach(), latent.detach(), positions, rotation)
        time = x.shape[1]
        first, early = min(max(self.ratio - 1 - start, 0), time), time - (0 if indices is None else indices.shape[1])
        for a, b, chosen in ((first, early, None), (early, time, indices)):
            if a < b:
                part = attention._replace(query=attention.query[:, :, a:b], lse=attention.lse[:, :, a:b])
                total = indexer_loss(
                    query[:, a:b],
                    entries,
                    weights[:, a:b],
                    part,
                    chosen,
                    is_causal=chosen is None,
                    query_start=start + a,
                    ratio=self.ratio,
                )
                self._add_loss(total, x.shape[0] * (b - a))
