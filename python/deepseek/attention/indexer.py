"""The lightning indexer: a small scorer that picks, for each query, the keys it attends to. (DeepSeek-V3.2, 2025)

For query t and key s, with queries q, keys k and head weights w of its own, made of the tokens' features::

    I[t, s] = sum over heads h of w[t, h] * relu(q[t, h] . k[s]) / sqrt(index_head_dim * index_n_heads)

The selection has no gradient; the indexer learns from a loss of its own, :mod:`deepseek.attention.indexer_loss`.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._configuration import check_positive
from deepseek.attention._learning import LearnsSelection
from deepseek.attention._wide import WideParameters
from deepseek.attention.caches.index_keys import IndexKeys, IndexRows
from deepseek.attention.indexer_loss import Attention, indexer_loss
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.nn import functional as F
from deepseek.nn.modules import LayerNorm, Linear

# Scores that are held at a time.
_HELD = 1 << 23


@public
class Indexed(NamedTuple):
    """What an indexer makes of tokens.

    Attributes:
        query: [batch, time, index_n_heads, index_head_dim].
        key: [batch, time, index_head_dim].
        weights: [batch, time, index_n_heads], at least float32, with the factors of the scores.
    """

    query: Tensor
    key: Tensor
    weights: Tensor

    def rows(self, start: int, end: int) -> Indexed:
        """The queries start … end - 1 (with all keys)."""
        return Indexed(self.query[:, start:end], self.key, self.weights[:, start:end])


@public
class SparseIndexer(LearnsSelection):
    """Picks ``index_topk`` keys for each query. Parameters are named as in the checkpoints of DeepSeek-V3.2.

    Features are laid out [rope | nope], and rotation pairs features i and i + qk_rope_head_dim / 2, both other than in
    the attention beside it. ``weights_proj`` stays float32 in a module of 16 bits, and is computed in float32.

    A module uses it so::

        made = self.indexer.project(x, queries, start=start)   # inputs are detached
        keys = cache.append_index(made.key)                    # or IndexRows(made.key)
        indices = self.indexer.select(made, keys, query_start=start)

    :class:`LearnsSelection` says how it is trained: the module hands over its attention (:meth:`learn`).

    Args:
        hidden_size: Width of x, of which keys and weights are made.
        index_n_heads: Heads of the indexer.
        index_head_dim: Their width.
        index_topk: Keys that a query selects.
        q_lora_rank: Width of what queries are made of; None: they are made of x.
        qk_rope_head_dim: Features that are rotated, 0 for none.
        rope_theta, rope_scaling: See :class:`~deepseek.attention.RotaryEmbedding`.
        causal: A query sees the keys up to its own position.
        precision: ``"float"``, or ``"int8"`` to select by 8-bit queries and keys (about 4 times as fast; the loss
            stays in floats).

    Raises:
        ValueError: a size that is not positive, more features to rotate than there are, another precision.
    """

    def __init__(
        self,
        hidden_size: int,
        index_n_heads: int = 64,
        index_head_dim: int = 128,
        index_topk: int = 2048,
        q_lora_rank: int | None = None,
        qk_rope_head_dim: int = 64,
        *,
        rope_theta: float = 10000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        causal: bool = True,
        precision: str = "float",
    ) -> None:
        super().__init__()
        check_positive(
            "SparseIndexer",
            hidden_size=hidden_size,
            index_n_heads=index_n_heads,
            index_head_dim=index_head_dim,
            index_topk=index_topk,
            q_lora_rank=q_lora_rank,
        )
        if not 0 <= qk_rope_head_dim <= index_head_dim:
            raise ValueError(
                f"SparseIndexer rotates qk_rope_head_dim of index_head_dim = {index_head_dim} features, got "
                f"qk_rope_head_dim={qk_rope_head_dim}"
            )
        if precision not in ("float", "int8"):
            raise ValueError(f"SparseIndexer selects in precision 'float' or 'int8', got {precision!r}")
        self.hidden_size, self.query_size = hidden_size, q_lora_rank or hidden_size
        self.index_n_heads, self.index_head_dim, self.index_topk = index_n_heads, index_head_dim, index_topk
        self.qk_rope_head_dim, self.causal, self.precision = qk_rope_head_dim, causal, precision
        self.wq_b = Linear(self.query_size, index_n_heads * index_head_dim, bias=False)
        self.wk = Linear(hidden_size, index_head_dim, bias=False)
        self.k_norm = LayerNorm(index_head_dim, eps=1e-6)
        self.weights_proj = _WideLinear(hidden_size, index_n_heads, bias=False)
        self.rotary = RotaryEmbedding(qk_rope_head_dim, rope_theta, rope_scaling) if qk_rope_head_dim else None

    def project(
        self, x: Tensor, queries: Tensor | None = None, *, positions: Tensor | None = None, start: int = 0
    ) -> Indexed:
        """Queries, keys and weights of tokens, which are detached first: the indexer trains nothing else.

        Args:
            x: [batch, time, hidden_size].
            queries: [batch, time, q_lora_rank]; None: x.
            positions: integers [time] or [batch, time] for the rotation. By default on from ``start``.
            start: Tokens before these.
        """
        x = x.detach()
        queries = x if queries is None else queries.detach()
        if queries.shape[-1] != self.query_size:
            raise RuntimeError(
                f"SparseIndexer: queries are made of {self.query_size} features, got {list(queries.shape)}"
                + ("; pass queries [batch, time, q_lora_rank]" if queries.shape == x.shape else "")
            )
        query = self.wq_b(queries).unflatten(-1, (self.index_n_heads, self.index_head_dim))
        key = self.k_norm(self.wk(x)).to(query.dtype)
        with _no_autocast():
            weights = self.weights_proj(x) * (self.index_n_heads * self.index_head_dim) ** -0.5
        if self.rotary is None:
            return Indexed(query, key, weights)
        time = x.shape[1]
        tables = self.rotary.tables_from(start, time) if positions is None else self.rotary.tables(positions)
        by_head = (tables[0].unsqueeze(-2), tables[1].unsqueeze(-2))  # [..., time, 1, rope / 2]
        return Indexed(self._turn(query, by_head), self._turn(key, tables), weights)

    def scores(self, made: Indexed, keys: IndexRows | None = None, *, query_start: int = 0) -> Tensor:
        """I, [batch, time, S], float32 (float64 for float64); -inf for keys that a query does not see.

        Args:
            made: Queries and weights, and keys where ``keys`` is None.
            keys: All keys that queries may see.
            query_start: Position of the first query: the number of keys before it.
        """
        rows = IndexRows(made.key) if keys is None else keys
        with _no_autocast():
            if rows.scale is None and self.precision == "float":
                return F.index_scores(
                    made.query, rows.values, made.weights, is_causal=self.causal, query_start=query_start
                )
            codes, scale = F.quantize_rows(made.query)
            held, key_scale = F.quantize_rows(rows.values) if rows.scale is None else rows
            return F.index_scores(
                codes,
                held,
                made.weights,
                query_scale=scale,
                key_scale=key_scale,
                is_causal=self.causal,
                query_start=query_start,
            )

    def select(
        self, made: Indexed, keys: IndexRows | None = None, *, query_start: int = 0, topk: int | None = None
    ) -> Tensor:
        """The keys with the best scores, int64 [batch, time, min(topk, S)], -1 where a query sees fewer; in any order.

        Of equal scores the first keys are taken. A query's selection does not depend on those beside it. Scores are
        made for a few queries at a time, and not at all for queries that see ``topk`` keys or fewer.

        Args:
            made: Queries and weights, and keys where ``keys`` is None.
            keys: All keys that queries may see.
            query_start: Position of the first query: the number of keys before it.
            topk: In place of ``index_topk``.

        Raises:
            ValueError: ``topk`` is not positive.
            RuntimeError: the indexer is causal and there are fewer keys than positions.
        """
        most = self.index_topk if topk is None else topk
        if most < 1:
            raise ValueError(f"SparseIndexer.select: topk must be positive, got {most}")
        rows = IndexRows(made.key) if keys is None else keys
        batch, time = made.query.shape[:2]
        there = rows.values.shape[1]
        if self.causal and there < query_start + time:
            raise RuntimeError(
                f"SparseIndexer.select: {time} queries from position {query_start} on need {query_start + time} keys, "
                f"there are {there}"
            )
        with deepseek.no_grad():
            easy = self.selects_all(time, there, query_start=query_start, topk=most)
            parts = [self._all_visible(batch, easy, min(most, there), query_start)]
            step = max(1, _HELD // max(1, batch * there))
            for a in range(easy, time, step):
                b = min(a + step, time)
                seen = query_start + b if self.causal else there
                visible = rows.first(seen)
                scores = self.scores(made.rows(a, b), visible, query_start=query_start + a)
                parts.append(deepseek.topk(scores, min(most, there)).indices)
            return deepseek.cat(parts, dim=1)

    def selects_all(self, time: int, keys: int, *, query_start: int = 0, topk: int | None = None) -> int:
        """How many of the queries, from the first on, see no more keys than they may select."""
        most = self.index_topk if topk is None else topk
        if self.causal:
            return min(time, max(0, most - query_start))
        return time if keys <= most else 0

    def forward(
        self, x: Tensor, queries: Tensor | None = None, *, positions: Tensor | None = None, topk: int | None = None
    ) -> Tensor:
        """The selection for whole sequences: :meth:`project` and :meth:`select`."""
        return self.select(self.project(x, queries, positions=positions), topk=topk)

    def new_keys(self) -> IndexKeys:
        """What a cache holds its keys in."""
        return IndexKeys("int8" if self.precision == "int8" else None)

    def learn(
        self,
        made: Indexed,
        attention: Attention,
        indices: Tensor | None = None,
        *,
        keys: IndexRows | None = None,
        query_start: int = 0,
    ) -> None:
        """Adds to ``loss``.

        Args:
            made: Queries and weights, and keys where ``keys`` is None, with their graph.
            attention: The module's own, of the same queries.
            indices: int64 [batch, time, n], the keys it went over, -1 for none. None: all visible.
            keys: All keys that queries may see.
            query_start: Position of the first query.

        Raises:
            RuntimeError: a cache holds the keys in 8 bits.
        """
        if keys is not None and keys.scale is not None:
            raise RuntimeError("an indexer does not learn from a cache with 8-bit keys; train without a cache")
        with _no_autocast():
            total = indexer_loss(
                made.query,
                made.key if keys is None else keys.values,
                made.weights,
                attention,
                indices,
                is_causal=self.causal,
                query_start=query_start,
            )
        self._add_loss(total, made.query.shape[0] * made.query.shape[1])

    def extra_repr(self) -> str:
        return (
            f"index_n_heads={self.index_n_heads}, index_head_dim={self.index_head_dim}, index_topk={self.index_topk}, "
            f"causal={self.causal}, precision={self.precision!r}"
        )

    def _turn(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        rope = self.qk_rope_head_dim
        turned = F.rope(x[..., :rope], *tables)
        return turned if rope == x.shape[-1] else deepseek.cat([turned, x[..., rope:]], dim=-1)

    def _all_visible(self, batch: int, time: int, most: int, query_start: int) -> Tensor:
        places = deepseek.arange(most).expand(time, most)
        if self.causal:
            places = deepseek.where(
                places <= deepseek.arange(query_start, query_start + time).unsqueeze(-1), places, -1
            )
        return places.expand(batch, time, most)


class _WideLinear(WideParameters, Linear):
    """A linear layer that stays float32 (or float64) in a module of 16 bits."""

    def forward(self, input: Tensor) -> Tensor:
        dtype = deepseek.float64 if input.dtype is deepseek.float64 else deepseek.float32
        return F.linear(input.to(dtype), self.weight.to(dtype))


def _no_autocast() -> contextlib.AbstractContextManager[Any]:
    """Scores are of float32: a lower dtype would round away what tells keys apart."""
    if not deepseek.is_autocast_enabled():
        return contextlib.nullcontext()
    return deepseek.autocast(device_type="cpu", enabled=False)


guard(__name__)
