"""Multi-head latent attention: keys and values of all heads come from one short latent a token. (DeepSeek-V2, 2024)

With c the normed latent and W_UK, W_UV a head's parts of ``kv_b_proj``, keys are ``[W_UK c | k_rope]`` and values
``W_UV c``. There are two ways to the same result:

- **expanded**: keys and values of all heads are made of the latents, then it is ordinary attention;
- **absorbed**: ``q_nope . W_UK c = (W_UK^T q_nope) . c``, so queries move into the latent space, where all heads share
  one key ``[c | k_rope]`` and one value ``c``; the result moves out by W_UV. Nothing is expanded, which is what makes
  decoding fast: a step reads kv_lora_rank + qk_rope_head_dim numbers for each token before it.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention import _configuration
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention.caches import Cache, IndexedLatentCache, LatentCache
from deepseek.attention.caches.index_keys import IndexRows
from deepseek.attention.functional import Attended, attend, sparse_attention
from deepseek.attention.indexer import SparseIndexer
from deepseek.attention.indexer_loss import Attention
from deepseek.attention.rotary import RotaryEmbedding, yarn_softmax_factor
from deepseek.nn import functional as F
from deepseek.nn.modules import Linear, RMSNorm

# The latents are normed with this epsilon, whatever rms_norm_eps says: so were all released models trained.
_LATENT_EPS = 1e-6
# Numbers of expanded keys and values, or of absorbed queries, that are held at a time where no gradient needs them.
_HELD = 1 << 25
# Numbers of queries that are held at a time, likewise. Expanding all keys for 5,000 queries of V3 costs 8 % on top.
_QUERIES = 1 << 27


class _Part(NamedTuple):
    """Heads head … head_end - 1 of the queries row … row_end - 1."""

    head: int
    head_end: int
    row: int
    row_end: int

    def of_mask(self, mask: Tensor) -> Tensor:
        """Its part of a mask of pairs, [.., time, keys] or [.., heads or 1, time, keys]."""
        if mask.dim() >= 2 and mask.shape[-2] != 1:
            mask = mask[..., self.row : self.row_end, :]
        return mask if mask.dim() < 4 or mask.shape[1] == 1 else mask[:, self.head : self.head_end]


_Run = Callable[[Tensor, Tensor, Tensor, _Part], Attended]


def _cuts(count: int, each: int, held: int) -> list[tuple[int, int]]:
    """``count`` things of ``each`` numbers in pieces that may be held; one piece while gradients are recorded."""
    step = count if deepseek.is_grad_enabled() else max(1, min(count, held // max(1, each)))
    return [(a, min(a + step, count)) for a in range(0, count, step)]


@public
class MultiHeadLatentAttention(SequenceModule):
    """Attention of DeepSeek V2, V3 and V3.2: [batch, time, hidden_size] -> [batch, time, hidden_size].

    Keywords are those of the checkpoints' configuration, parameters are named as in the checkpoints: ``q_proj``, or
    ``q_a_proj q_a_layernorm q_b_proj``; ``kv_a_proj_with_mqa kv_a_layernorm kv_b_proj o_proj indexer.*``.

    Heads are laid out [nope | rope]; the rotated part of the key is one, for all heads, and is not normed.

    Args:
        hidden_size: Width of the input.
        num_attention_heads: Number of heads.
        q_lora_rank: Width of the latent that queries are made of; None: they are made of the input.
        kv_lora_rank: Width of the latent that keys and values are made of.
        qk_nope_head_dim: Width of a head's query and key without position.
        qk_rope_head_dim: Width of the part that is rotated.
        v_head_dim: Width of a head's value.
        rope_theta, rope_scaling: See :class:`~deepseek.attention.RotaryEmbedding`. YaRN's ``mscale_all_dim`` also
            sharpens the softmax (:func:`~deepseek.attention.rotary.yarn_softmax_factor`).
        attention_bias: Whether ``q_a_proj``, ``kv_a_proj_with_mqa`` and ``o_proj`` have a bias.
        rope_interleave: Rotation pairs features 2i and 2i + 1, otherwise i and i + qk_rope_head_dim / 2.
        rms_norm_eps: Taken for the configuration's sake; the norms of the latents have epsilon 1e-6 whatever it says.
        max_position_embeddings: Length of the original context for YaRN where ``rope_scaling`` does not say.
        index_topk: Each query attends to the best so many keys, picked by a :class:`SparseIndexer` (V3.2, needs
            ``q_lora_rank``). None: to all.
        index_n_heads, index_head_dim, index_precision: The indexer's.
        causal: A query sees the keys up to its own position.
        absorb: Which way is computed, see below.

    With ``absorb`` True or False the result for a token has the same bits however the input is cut into calls, with or
    without a cache. None takes the cheaper way: a call with a cache and at most :attr:`absorb_limit` new tokens is
    absorbed (170 in the shape of V3), others are expanded; between the two, results agree to rounding. With an indexer,
    queries that have more keys than they may select are always absorbed, unless ``absorb`` is False.

    With an indexer, set ``indexer.stage`` to train it, and add :attr:`indexer_loss` to the model's loss.

    Raises:
        ValueError: a size that is not positive, or an indexer without ``q_lora_rank``.
    """

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        q_lora_rank: int | None = None,
        kv_lora_rank: int = 512,
        qk_nope_head_dim: int = 128,
        qk_rope_head_dim: int = 64,
        v_head_dim: int = 128,
        *,
        rope_theta: float = 10000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        attention_bias: bool = False,
        rope_interleave: bool = True,
        rms_norm_eps: float = 1e-6,
        max_position_embeddings: int | None = None,
        index_topk: int | None = None,
        index_n_heads: int = 64,
        index_head_dim: int = 128,
        index_precision: str = "float",
        causal: bool = True,
        absorb: bool | None = None,
    ) -> None:
        super().__init__()
        _configuration.check_positive(
            type(self).__name__,
            hidden_size=hidden_size,
            num_attention_heads=num_attention_heads,
            q_lora_rank=q_lora_rank,
            kv_lora_rank=kv_lora_rank,
            qk_nope_head_dim=qk_nope_head_dim,
            v_head_dim=v_head_dim,
        )
        scaling = _configuration.with_original_length(rope_scaling, max_position_embeddings)
        self.width = self.hidden_size = hidden_size
        self.num_attention_heads, self.q_lora_rank, self.kv_lora_rank = num_attention_heads, q_lora_rank, kv_lora_rank
        self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim = qk_nope_head_dim, qk_rope_head_dim, v_head_dim
        self.causal, self.absorb = causal, absorb
        self.heads = num_attention_heads
        head = qk_nope_head_dim + qk_rope_head_dim
        self.scale = head**-0.5 * yarn_softmax_factor(scaling)
        self.rotary = RotaryEmbedding(qk_rope_head_dim, rope_theta, scaling, interleaved=rope_interleave)
        if q_lora_rank is None:
            self.q_proj = Linear(hidden_size, num_attention_heads * head, bias=False)
        else:
            self.q_a_proj = Linear(hidden_size, q_lora_rank, bias=attention_bias)
            self.q_a_layernorm = RMSNorm(q_lora_rank, eps=_LATENT_EPS)
            self.q_b_proj = Linear(q_lora_rank, num_attention_heads * head, bias=False)
        self.kv_a_proj_with_mqa = Linear(hidden_size, kv_lora_rank + qk_rope_head_dim, bias=attention_bias)
        self.kv_a_layernorm = RMSNorm(kv_lora_rank, eps=_LATENT_EPS)
        self.kv_b_proj = _FromLatent(num_attention_heads, kv_lora_rank, qk_nope_head_dim, v_head_dim)
        self.o_proj = Linear(num_attention_heads * v_head_dim, hidden_size, bias=attention_bias)
        self.indexer: SparseIndexer | None = None
        if index_topk is not None:
            if q_lora_rank is None:
                raise ValueError(
                    "MultiHeadLatentAttention: the indexer makes its queries of q_lora_rank numbers, set it"
                )
            self.indexer = SparseIndexer(
                hidden_size,
                index_n_heads,
                index_head_dim,
                index_topk,
                q_lora_rank,
                qk_rope_head_dim,
                rope_theta=rope_theta,
                rope_scaling=scaling,
                causal=causal,
                precision=index_precision,
            )
        self.caches = (LatentCache,) if self.indexer is None else (IndexedLatentCache,)
        self.takes_pair_masks = self.indexer is None

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> Self:
        """From a configuration (object or mapping) of a checkpoint; keys that do not matter here are ignored.

        Args:
            config: With the keywords above; ``rope_parameters`` is taken in place of ``rope_scaling``.
            **settings: Keywords that win over the configuration, such as ``absorb``.

        Raises:
            ValueError: a size that has no default is missing.
        """
        return cls(**_configuration.latent_attention(config) | settings)

    @property
    def absorb_limit(self) -> int | None:
        """The most new tokens for which the absorbed way costs no more than the expanded; None: it never costs more.

        An absorbed pair of query and key takes 2 * kv_lora_rank - qk_nope_head_dim - v_head_dim more products than an
        expanded one, and expanding a key takes kv_lora_rank * (qk_nope_head_dim + v_head_dim).
        """
        head = self.qk_nope_head_dim + self.v_head_dim
        more = 2 * self.kv_lora_rank - head
        return None if more <= 0 else self.kv_lora_rank * head // more

    @property
    def indexer_loss(self) -> Tensor | None:
        """What the indexer learns from the last forward (see :class:`SparseIndexer`); None where it does not learn."""
        return None if self.indexer is None else self.indexer.loss

    def new_cache(self, dtype: str | None = None) -> Cache:
        """An empty cache.

        Args:
            dtype: ``"fp8"``: see :class:`~deepseek.attention.LatentCache`.

        Raises:
            NotImplementedError: fp8 beside an indexer.
            ValueError: attention is not causal.
        """
        self._check_causal()
        if self.indexer is None:
            return LatentCache(dtype, self.qk_rope_head_dim)
        if dtype is not None:
            raise NotImplementedError(
                f"a cache of {dtype!r} latents beside an indexer is not implemented: to read those selected it would "
                "widen all; use index_precision='int8' for 8-bit index keys"
            )
        return IndexedLatentCache(self.indexer.new_keys().dtype)

    def forward(
        self,
        x: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        if isinstance(cache, LatentCache) and cache.dtype is not None and cache.rope != self.qk_rope_head_dim:
            raise ValueError(
                f"MultiHeadLatentAttention: the cache splits off a shared key of {cache.rope} features, here it has "
                f"{self.qk_rope_head_dim}; make it with new_cache({cache.dtype!r})"
            )
        if self.indexer is not None:
            self.indexer.forget_loss()
        return super().forward(x, attention_mask=attention_mask, positions=positions, cache=cache)

    def attend(self, batch: Batch) -> Tensor:
        time = batch.x.shape[1]
        absorbed = self._absorbs(time, batch.cache)
        each = batch.x.shape[0] * self.num_attention_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        pieces = _cuts(time, each, _QUERIES)
        if len(pieces) == 1 or not self.causal:
            return self._attend_piece(batch, absorbed)
        cache = self.new_cache() if batch.cache is None else batch.cache
        parts = []
        for a, b in pieces:  # cached is uncached, bit for bit
            positions = None if batch.positions is None else batch.positions[..., a:b]
            mask = None if batch.mask is None else _Part(0, self.num_attention_heads, a, b).of_mask(batch.mask)
            if mask is not None and mask.shape[-1] != 1:
                mask = mask[..., : cache.length + b - a]
            parts.append(self._attend_piece(Batch(batch.x[:, a:b], positions, cache, mask), absorbed))
        return deepseek.cat(parts, dim=1)

    def _attend_piece(self, batch: Batch, absorbed: bool) -> Tensor:
        x, start = batch.x, batch.start
        tables = (
            self.rotary.tables_from(start, x.shape[1])
            if batch.positions is None
            else self.rotary.tables(batch.positions)
        )
        source = x if self.q_lora_rank is None else self.q_a_layernorm(self.q_a_proj(x))
        query, new = self._query(source, tables), self._latents(x, tables)
        if self.indexer is None:
            latents = new
            if batch.cache is not None:
                assert isinstance(batch.cache, LatentCache)
                latents = batch.cache.append(new)
            heads = self._dense(query, latents, absorbed, start, batch.mask)[0]
        else:
            heads = self._selected(self.indexer, batch, query, new, source, absorbed, start)
        return self.o_proj(heads.transpose(1, 2).flatten(2))

    def _query(self, source: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """[batch, heads, time, nope + rope], rotated."""
        project = self.q_proj if self.q_lora_rank is None else self.q_b_proj
        query = project(source).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
        nope, rope = query[..., : self.qk_nope_head_dim], query[..., self.qk_nope_head_dim :]
        return deepseek.cat([nope, self.rotary.turn(rope, tables)], dim=-1)

    def _latents(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """[batch, time, rank + rope]: normed latents and the shared key, which is rotated and not normed."""
        both = self.kv_a_proj_with_mqa(x)
        latent, rope = both[..., : self.kv_lora_rank], both[..., self.kv_lora_rank :]
        return deepseek.cat([self.kv_a_layernorm(latent), self.rotary.turn(rope, tables)], dim=-1)

    def _absorbs(self, time: int, cache: Cache | None) -> bool:
        if self.absorb is not None:
            return self.absorb
        limit = self.absorb_limit
        return cache is not None and (limit is None or time <= limit)

    def _selected(
        self,
        indexer: SparseIndexer,
        batch: Batch,
        query: Tensor,
        new: Tensor,
        source: Tensor,
        absorbed: bool,
        start: int,
    ) -> Tensor:
        """[batch, heads, time, v]: queries that may select all they see are dense, the others see their selection."""
        time = query.shape[2]
        with contextlib.nullcontext() if indexer.learns else deepseek.no_grad():
            made = indexer.project(batch.x, source, positions=batch.positions, start=start)
        latents, keys = new, IndexRows(made.key)
        if batch.cache is not None:
            assert isinstance(batch.cache, IndexedLatentCache)
            latents, keys = batch.cache.append(new, made.key)
        easy = indexer.selects_all(time, latents.shape[1], query_start=start)
        if indexer.learns and indexer.stage == "dense":
            easy = time
        parts = []
        if easy > 0:
            seen = latents[:, : start + easy] if self.causal else latents
            out, attention = self._dense(query[:, :, :easy], seen, absorbed, start)
            parts.append(out)
            if attention is not None and indexer.learns:
                indexer.learn(made.rows(0, easy), attention, keys=keys, query_start=start)
        if easy < time:
            rows = made.rows(easy, time)
            indices = indexer.select(rows, keys, query_start=start + easy)
            out, attention = self._sparse(query[:, :, easy:], latents, indices, start + easy)
            parts.append(out)
            if attention is not None and indexer.learns:
                indexer.learn(rows, attention, indices, keys=keys, query_start=start + easy)
        return parts[0] if len(parts) == 1 else deepseek.cat(parts, dim=2)

    def _dense(
        self, query: Tensor, latents: Tensor, absorbed: bool, start: int, mask: Tensor | None = None
    ) -> tuple[Tensor, Attention | None]:
        def run(q: Tensor, k: Tensor, v: Tensor, part: _Part) -> Attended:
            return attend(
                q,
                k,
                v,
                mask=None if mask is None else part.of_mask(mask),
                is_causal=self.causal,
                scale=self.scale,
                query_start=start + part.row,
            )

        return (self._absorbed if absorbed else self._expanded)(query, latents, run)

    def _sparse(self, query: Tensor, latents: Tensor, indices: Tensor, start: int) -> tuple[Tensor, Attention | None]:
        def run(q: Tensor, k: Tensor, v: Tensor, part: _Part) -> Attended:
            return sparse_attention(
                q,
                k,
                v,
                indices[:, part.row : part.row_end],
                is_causal=self.causal,
                scale=self.scale,
                query_start=start + part.row,
            )

        return (self._expanded if self.absorb is False else self._absorbed)(query, latents, run)

    def _absorbed(self, query: Tensor, latents: Tensor, run: _Run) -> tuple[Tensor, Attention | None]:
        """Results [batch, heads, time, v], and while gradients are recorded the attention they come from.

        Without gradients a few queries at a time: in the space of latents they are wide.
        """
        heads, nope, rank = self.num_attention_heads, self.qk_nope_head_dim, self.kv_lora_rank
        key = latents.unsqueeze(1)
        parts, made, lse = [], query, query  # of the last part; only one where they matter
        for row, row_end in _cuts(query.shape[2], query.shape[0] * heads * 2 * latents.shape[2], _HELD):
            rows = query[:, :, row:row_end]
            made = deepseek.cat([self.kv_b_proj.absorb(rows[..., :nope]), rows[..., nope:]], dim=-1)
            out, lse = run(made, key, key[..., :rank], _Part(0, heads, row, row_end))
            parts.append(self.kv_b_proj.values_of(out))
        attention = Attention(made, key, lse, self.scale) if deepseek.is_grad_enabled() else None
        return parts[0] if len(parts) == 1 else deepseek.cat(parts, dim=2), attention

    def _expanded(self, query: Tensor, latents: Tensor, run: _Run) -> tuple[Tensor, Attention | None]:
        """The same. Without gradients a few heads at a time: keys and values of all of them are large."""
        rank, batch, time = self.kv_lora_rank, *latents.shape[:2]
        latent, rope = latents[..., :rank], latents[..., rank:].unsqueeze(1)
        width = 2 * self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim
        parts, key, lse = [], latents, latents  # of the last part; only one where they matter
        for head, head_end in _cuts(self.num_attention_heads, batch * time * width, _HELD):
            nope, value = self.kv_b_proj.expand(latent, head, head_end)
            key = deepseek.cat([nope, rope.expand(*nope.shape[:-1], rope.shape[-1])], dim=-1)
            out, lse = run(query[:, head:head_end], key, value, _Part(head, head_end, 0, query.shape[2]))
            parts.append(out)
        attention = Attention(query, key, lse, self.scale) if deepseek.is_grad_enabled() else None
        return parts[0] if len(parts) == 1 else deepseek.cat(parts, dim=1), attention

    def extra_repr(self) -> str:
        return (
            f"num_attention_heads={self.num_attention_heads}, kv_lora_rank={self.kv_lora_rank}, "
            f"head=[{self.qk_nope_head_dim} | {self.qk_rope_head_dim}], v_head_dim={self.v_head_dim}, "
            f"causal={self.causal}, absorb={self.absorb}"
        )


class _FromLatent(Linear):
    """``kv_b_proj``: for each head rows that make its key, then rows that make its value.

    A class of its own so that quantizing a model leaves it: the absorbed way needs the numbers.
    """

    def __init__(self, heads: int, rank: int, key: int, value: int) -> None:
        super().__init__(rank, heads * (key + value), bias=False)
        self.heads, self.key = heads, key

    def by_head(self) -> Tensor:
        """[heads, key + value, rank]."""
        return self.weight.unflatten(0, (self.heads, -1))

    def expand(self, latent: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, heads, time, ...] of latents [batch, time, rank] for the heads first … last - 1."""
        rows = self.weight if last - first == self.heads else self.by_head()[first:last].flatten(0, 1)
        both = F.linear(latent, rows).unflatten(-1, (last - first, -1)).transpose(1, 2)
        return both[..., : self.key], both[..., self.key :]

    def absorb(self, query: Tensor) -> Tensor:
        """Queries [batch, heads, time, key] in the space of latents, [batch, heads, time, rank]."""
        return deepseek.matmul(query, self.by_head()[:, : self.key])

    def values_of(self, latent: Tensor) -> Tensor:
        """Values [batch, heads, time, value] of means of latents [batch, heads, time, rank]."""
        return deepseek.matmul(latent, self.by_head()[:, self.key :].transpose(-2, -1))


guard(__name__)
