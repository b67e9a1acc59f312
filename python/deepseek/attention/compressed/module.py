"""DeepSeek-V4's attention: one shared key that is also the value, a window, and compressed entries beyond it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, Self

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention._wide import WideParameters, WideRMSNorm
from deepseek.attention.caches import Cache
from deepseek.attention.caches.compressed import CompressedCache
from deepseek.attention.compressed.branches import attend_complete, join
from deepseek.attention.compressed.compressor import Compressor
from deepseek.attention.compressed.configuration import LAYER_TYPES, SPARSE, check_settings, settings_from_config
from deepseek.attention.compressed.indexer import EntryIndexer
from deepseek.attention.compressed.rotation import TailRotation
from deepseek.attention.functional import Attended, attend, merge_attention, sparse_attention
from deepseek.attention.indexer_loss import Attention
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.nn import functional as F
from deepseek.nn import init
from deepseek.nn.modules import Linear
from deepseek.nn.modules.module import Module
from deepseek.nn.parameter import Parameter

_ELEMENTS = 1 << 24  # of queries in memory at once, where no gradients are recorded


class GroupedLinear(Module):
    """Linear maps of groups of features side by side, without bias.

    [..., groups * in_features] -> [..., groups * out_features], weight [groups * out_features, in_features].
    """

    def __init__(self, in_features: int, out_features: int, groups: int) -> None:
        super().__init__()
        self.in_features, self.out_features, self.groups = in_features, out_features, groups
        self.weight = Parameter(deepseek.empty(groups * out_features, in_features))
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rows = x.reshape(-1, self.groups, self.in_features).transpose(0, 1)
        weight = self.weight.reshape(self.groups, self.out_features, self.in_features).transpose(1, 2)
        return (rows @ weight).transpose(0, 1).reshape(*x.shape[:-1], self.groups * self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, groups={self.groups}"


@public
class CompressedAttention(WideParameters, SequenceModule):
    """Causal attention of DeepSeek-V4: to a window token by token, and to one entry for ``compress_ratio`` tokens of
    all that came before. [batch, time, hidden_size] -> the same. (DeepSeek-V4, 2026, section 2.3)

    - One key head for all query heads, its rows also the values: normed, the last ``qk_rope_head_dim`` features
      turned. The output's last features are turned back by the query's position, so that they depend on distances only.
    - Queries come from a latent of ``q_lora_rank`` and are normed by head, without weights.
    - ``layer_type`` says what there is beside the window: nothing (``"sliding_attention"``), entries of 4 tokens of
      which an indexer picks ``index_topk`` for each query (``"compressed_sparse_attention"``, CSA), or all entries of
      128 tokens (``"heavily_compressed_attention"``, HCA). Token t sees entry w if ``w < (t + 1) // compress_ratio``,
      and so does the indexer; recent tokens are seen by both the window and the entries.
    - All keys are under one softmax, with a logit ``sinks`` for each head that takes its share and has no value.
    - The heads' outputs are projected in ``o_groups`` groups to ``o_lora_rank`` each, and together to the output.

    Parameter names are those of ``transformers``' DeepseekV4Attention, so that its ``state_dict()`` loads;
    :mod:`deepseek.attention.compressed.hub_names` has the names of the published checkpoints.

    The indexer learns from a loss of its own: set ``compressor.indexer.stage`` and add :attr:`indexer_loss` to the
    model's loss. In a module of 16 bits the norms' weights, the sinks and the position biases stay float32.

    Work is O(time * (sliding_window + entries seen)): keys outside of window and selection are never computed. Where
    no gradients are recorded a long input is computed in pieces, in bounded memory.

    Args:
        hidden_size: Width of input and output.
        num_attention_heads: Query heads.
        layer_type: See above.
        head_dim: Width of a head.
        qk_rope_head_dim: So many of its last features are turned.
        q_lora_rank: Width of the queries' latent.
        o_lora_rank: Width of a group's projected output.
        o_groups: Groups of heads; divides ``num_attention_heads``.
        sliding_window: A query sees tokens less than this many positions away, itself included.
        compress_ratio: Tokens in a window of the compressor; 4 or 128 by the layer type when omitted.
        rope_theta: Base of the frequencies of sliding layers.
        compress_rope_theta: Base of those of the others, for all they turn.
        rope_scaling: How the frequencies of the others are stretched, see
            :class:`~deepseek.attention.rotary.RotaryEmbedding`. Cosines and sines are not multiplied by YaRN's factor
            unless it has an ``attention_factor``.
        index_n_heads, index_head_dim, index_topk: Of the indexer.
        rms_norm_eps: Of all norms.

    Attributes:
        compressor: None in a sliding layer; its ``indexer`` is None in an HCA layer.

    Raises:
        ValueError: settings that do not fit together.
    """

    caches = (CompressedCache,)

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        layer_type: str = SPARSE,
        *,
        head_dim: int = 512,
        qk_rope_head_dim: int = 64,
        q_lora_rank: int = 1024,
        o_lora_rank: int = 1024,
        o_groups: int = 8,
        sliding_window: int = 128,
        compress_ratio: int | None = None,
        rope_theta: float = 10000.0,
        compress_rope_theta: float = 160000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        index_n_heads: int = 64,
        index_head_dim: int = 128,
        index_topk: int = 512,
        rms_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_settings({name: value for name, value in locals().items() if name not in ("self", "__class__")})
        kind = LAYER_TYPES[layer_type]
        self.width = self.hidden_size = hidden_size
        self.num_heads, self.head_dim, self.layer_type = num_attention_heads, head_dim, layer_type
        self.sliding_window = sliding_window
        self.compress_ratio = kind.ratio if compress_ratio is None or not kind.ratio else compress_ratio
        self.overlap, self.scale, self.eps = kind.overlap, head_dim**-0.5, rms_norm_eps
        if kind.ratio:
            scaling = {**(rope_scaling or {}), "rope_theta": compress_rope_theta}
            scaling.setdefault("attention_factor", 1.0)
            rotary = RotaryEmbedding(qk_rope_head_dim, compress_rope_theta, scaling, interleaved=True)
        else:
            rotary = RotaryEmbedding(qk_rope_head_dim, rope_theta, interleaved=True)
        self.rotation = TailRotation(rotary)

        self.q_a_proj = Linear(hidden_size, q_lora_rank, bias=False)
        self.q_a_norm = WideRMSNorm(q_lora_rank, eps=rms_norm_eps)
        self.q_b_proj = Linear(q_lora_rank, num_attention_heads * head_dim, bias=False)
        self.kv_proj = Linear(hidden_size, head_dim, bias=False)
        self.kv_norm = WideRMSNorm(head_dim, eps=rms_norm_eps)
        self.o_a_proj = GroupedLinear(num_attention_heads * head_dim // o_groups, o_lora_rank, o_groups)
        self.o_b_proj = Linear(o_groups * o_lora_rank, hidden_size, bias=False)
        self.sinks = Parameter(deepseek.zeros(num_attention_heads))
        self.compressor: Compressor | None = None
        if kind.ratio:
            self.compressor = Compressor(hidden_size, head_dim, self.compress_ratio, kind.overlap, rms_norm_eps)
            self.compressor.indexer = (
                EntryIndexer(
                    hidden_size,
                    q_lora_rank,
                    index_n_heads,
                    index_head_dim,
                    index_topk,
                    self.compress_ratio,
                    rms_norm_eps,
                )
                if kind.indexed
                else None
            )

    @classmethod
    def from_config(cls, config: Any, layer_idx: int) -> Self:
        """The attention of layer ``layer_idx`` of a checkpoint.

        Args:
            config: The checkpoint's configuration: a mapping or an object with attributes, with the keys of the hub
                (``compress_ratios`` of 0, 4, 128; ``rope_scaling``) or of transformers (``layer_types``,
                ``compress_rates``, ``rope_parameters``). Keys that say nothing about attention are ignored.
            layer_idx: Number of the layer, from 0.

        Raises:
            ValueError: no such layer, or a setting that is missing or wrong.
            NotImplementedError: a model that computes something else (DeepSeek-V4.1).
        """
        return cls(**settings_from_config(config, layer_idx))

    def new_cache(self, rewind: int = 0) -> CompressedCache:
        """An empty cache; ``rewind`` is how many tokens :meth:`~deepseek.attention.Cache.truncate` can take back."""
        return CompressedCache(
            self.sliding_window,
            self.compress_ratio,
            overlap=self.overlap,
            indexed=self._indexer is not None,
            rewind=rewind,
        )

    @property
    def indexer_loss(self) -> Tensor | None:
        """What the indexer learns from the last forward, with ``compressor.indexer.stage`` set; else None."""
        return None if self._indexer is None else self._indexer.loss

    def forward(
        self,
        x: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        if self._indexer is not None:
            self._indexer.forget_loss()
        return super().forward(x, attention_mask=attention_mask, positions=positions, cache=cache)

    @property
    def _indexer(self) -> EntryIndexer | None:
        return None if self.compressor is None else self.compressor.indexer

    def attend(self, batch: Batch) -> Tensor:
        x = batch.x
        cache = self.new_cache() if batch.cache is None else batch.cache
        assert isinstance(cache, CompressedCache)
        kind = (self.sliding_window, self.compress_ratio, self.overlap, self._indexer is not None)
        if cache.kind != kind:
            raise ValueError(
                f"CompressedAttention: the cache was made for window, ratio, overlap, indexed = {cache.kind}, this "
                f"layer needs {kind}; use its new_cache()"
            )
        time, start = x.shape[1], cache.length
        positions = batch.positions
        if positions is None:
            positions = deepseek.arange(start, start + time)
        positions = positions.to(deepseek.int64)
        step = max(64, _ELEMENTS // (x.shape[0] * self.num_heads * self.head_dim))
        if deepseek.is_grad_enabled() or time <= step:
            return self._extend(x, positions, cache)
        pieces = [
            self._extend(x[:, at : at + step], positions[..., at : at + step], cache) for at in range(0, time, step)
        ]
        return deepseek.cat(pieces, dim=1)

    def _extend(self, x: Tensor, positions: Tensor, cache: CompressedCache) -> Tensor:
        """The result for the tokens x that come after those in the cache."""
        start, time = cache.length, x.shape[1]
        tables = self.rotation.tables(positions, self.head_dim)
        latent = self.q_a_norm(self.q_a_proj(x))
        query = self.q_b_proj(latent).unflatten(-1, (self.num_heads, self.head_dim))
        query = F.rms_norm(query, (self.head_dim,), None, self.eps)
        query = self.rotation.turn(query, tables).transpose(1, 2)
        new = self.rotation.turn(self.kv_norm(self.kv_proj(x)).unsqueeze(2), tables).transpose(1, 2)
        rows, first = cache.append(new)
        near = attend(
            query,
            rows,
            rows,
            is_causal=True,
            scale=self.scale,
            window=self.sliding_window,
            query_start=start - first,
            sinks=self.sinks,
        )
        out = near.out
        if self.compressor is not None:
            out = self._with_entries(near, x, latent, query, positions, cache)
        cache.advance(time)
        turned = self.rotation.turn(out.transpose(1, 2), tables, back=True)
        return self.o_b_proj(self.o_a_proj(turned.flatten(-2)))

    def _with_entries(
        self, near: Attended, x: Tensor, latent: Tensor, query: Tensor, positions: Tensor, cache: CompressedCache
    ) -> Tensor:
        """Attention to the window's keys, given as ``near``, and to entries: [batch, heads, time, head_dim]."""
        assert self.compressor is not None
        assert cache.compressor is not None
        start, time, indexer = cache.length, x.shape[1], self._indexer
        starts = cache.append_positions(positions.expand(x.shape[:2]))
        entries = self.compressor.extend(x, starts, self.rotation, cache.compressor).unsqueeze(1)
        early = time  # so many tokens attend to all the entries they see
        if indexer is not None:
            assert cache.indexer is not None
            with contextlib.nullcontext() if indexer.learns else deepseek.no_grad():
                keys = indexer.extend(x.detach(), starts, self.rotation, cache.indexer)
            if not (indexer.learns and indexer.stage == "dense"):
                early = min(max(self.compress_ratio * (indexer.topk + 1) - 1 - start, 0), time)
        if entries.shape[2] == 0:
            return near.out
        parts, indices = [], None
        if early > 0:
            parts.append(attend_complete(query[:, :, :early], entries, start, self.compress_ratio, self.scale))
        if early < time:
            assert indexer is not None
            late = (x[:, early:], latent[:, early:], positions[..., early:])
            indices = indexer.select(*late, self.rotation, keys, start + early)
            chosen = sparse_attention(query[:, :, early:], entries, entries, indices, is_causal=False, scale=self.scale)
            parts.append(chosen)
        out, lse = merge_attention([near, join(parts)])
        if indexer is not None and indexer.learns:
            attention = Attention(query, entries, lse, self.scale)
            indexer.learn(x, latent, positions, self.rotation, keys, attention, start, indices)
        return out

    def extra_repr(self) -> str:
        return (
            f"{self.hidden_size}, num_attention_heads={self.num_heads}, head_dim={self.head_dim}, "
            f"layer_type={self.layer_type!r}, sliding_window={self.sliding_window}, "
            f"compress_ratio={self.compress_ratio}"
        )


guard(__name__)
