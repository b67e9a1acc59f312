"""Multi-head attention with a gate on each head, for self and cross attention."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._heads import checked_heads, join_heads, projections, rotary_for, rotated, split_heads
from deepseek.attention._pieces import Piece, in_pieces
from deepseek.attention._sequence import Batch, SequenceModule, check_pairs
from deepseek.attention.caches import Cache, DenseCache, KeysValues, QuantizedCache
from deepseek.attention.temperature import HeadTemperature, LengthTemperature
from deepseek.nn import Linear, RMSNorm
from deepseek.nn import functional as F


@public
class MultiHeadAttention(SequenceModule):
    """Attention of all heads in one product, each head's output gated by the query's own token.

    ``out_proj(concat_h(g_h(x) * softmax(q_h k_h^T / sqrt(E)) v_h))`` with ``g = sigmoid(gate(x))``, x the token that
    the query comes from. (Qiu et al., "Gated Attention for Large Language Models", 2025, arXiv 2505.06708: a gate for
    each head after attention.) Called ``m(Q, K, V)``, or ``m(x)`` for self attention.

    Args:
        d_model: Width of queries, keys, values and results.
        n_heads: Number of heads; divides ``d_model`` unless ``head_dim`` is given.
        num_key_value_heads: Heads of keys and values, each shared by a group of query heads; as many as those by
            default.
        head_dim: Features of a head, ``d_model / n_heads`` by default.
        gate: True for the sigmoid; ``"softmax"`` for weights over the heads, times their number (Mixture of Heads, Jin
            et al., 2024, arXiv 2410.11842, without its selection); False for none.
        causal: A query sees keys up to its own place. Needed for a cache.
        rope_theta: Base of the rotary frequencies; None, the default, turns nothing.
        rope_scaling: As in :class:`RotaryEmbedding`.
        qk_norm: RMS norm of the queries and keys of each head, before they are turned.
        temperature: :class:`HeadTemperature` or :class:`LengthTemperature` of ``n_heads`` heads.
        bias: Projections have a bias (the gate always has one).
        dtype: Of the parameters.

    Raises:
        ValueError: numbers of heads that do not fit, an unknown ``gate``.
    """

    caches = (DenseCache, QuantizedCache)
    takes_pair_masks = True

    def __init__(
        self,
        d_model: int = 512,
        n_heads: int = 8,
        *,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        gate: bool | str = True,
        causal: bool = False,
        rope_theta: float | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
        qk_norm: bool = False,
        temperature: HeadTemperature | LengthTemperature | None = None,
        bias: bool = False,
        dtype: deepseek.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.num_key_value_heads, self.head_dim = checked_heads(name, d_model, n_heads, num_key_value_heads, head_dim)
        if not isinstance(gate, bool) and gate not in ("sigmoid", "softmax"):
            raise ValueError(f"{name}: gate must be True ('sigmoid'), False or 'softmax', got {gate!r}")
        _check_temperature(name, temperature, n_heads)
        self.width = self.d_model = d_model
        self.n_heads = self.heads = n_heads
        self.causal = causal
        self.gating = "sigmoid" if gate is True else gate
        self.rope = rotary_for(self.head_dim, rope_theta, rope_scaling)
        self.query_proj, self.key_proj, self.value_proj = projections(
            d_model, n_heads, self.num_key_value_heads, self.head_dim, bias=bias, dtype=dtype
        )
        self.out_proj = Linear(n_heads * self.head_dim, d_model, bias=bias, dtype=dtype)
        self.gate = Linear(d_model, n_heads, dtype=dtype) if gate else None
        self.query_norm = RMSNorm(self.head_dim, dtype=dtype) if qk_norm else None
        self.key_norm = RMSNorm(self.head_dim, dtype=dtype) if qk_norm else None
        self.temperature = temperature

    def new_cache(self) -> DenseCache:
        """An empty cache, for causal self attention. :class:`QuantizedCache` fits too."""
        self._check_causal()
        return DenseCache()

    def forward(
        self,
        Q: Tensor,
        K: Tensor | None = None,
        V: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            Q: [batch, L, d_model], what queries (and gates) come from.
            K: [batch, S, d_model], what keys come from; Q when omitted.
            V: [batch, S, d_model], what values come from; K when omitted.
            attention_mask: Padding of the keys [batch, S], True (or nonzero) for real ones, on any side; or pairs
                [batch or 1, heads or 1, L, S], bool (True takes part) or added to the scores. In self attention padding
                of the keys is that of the queries, which give zeros, and with a cache it may be [batch, earlier + L]. A
                query that sees no key gives what a head output of zeros gives.
            positions: Integers [L] or [batch, L] for the rotary angles, of self attention; real tokens are numbered
                from 0 by default, in cross attention those of queries and keys alike.
            cache: What came before, of causal self attention; the new tokens are added to it.

        Returns:
            [batch, L, d_model].

        Raises:
            RuntimeError: a shape does not fit.
            ValueError: a cache for attention that is not causal, or for cross attention.
        """
        if K is None and V is not None:
            raise ValueError(f"{type(self).__name__}: values without keys; call m(Q, K, V), m(Q, K) or m(x)")
        if K is None or (K is Q and (V is None or V is Q)):
            return super().forward(Q, attention_mask=attention_mask, positions=positions, cache=cache)
        V = K if V is None else V
        if cache is not None or positions is not None:
            raise ValueError(f"{type(self).__name__}: cache and positions are for self attention, m(x)")
        self._check_cross(Q, K, V)
        if 0 in (Q.shape[0], Q.shape[1]):
            return Q.clone()
        if attention_mask is None or attention_mask.dim() != 2:
            if attention_mask is not None:
                check_pairs(type(self).__name__, attention_mask, Q.shape[0], self.n_heads, Q.shape[1], K.shape[1])
            return self._cross(Q, K, V, attention_mask)
        return self._cross_padded(Q, K, V, attention_mask)

    def attend(self, batch: Batch) -> Tensor:
        """Self attention of sequences without padding."""
        piece = Piece.of(batch)
        (key,) = rotated(self.rope, piece, self._keys(batch.x))
        held = KeysValues(key, split_heads(self.value_proj(batch.x), self.num_key_value_heads))
        if batch.cache is not None:
            held = cast(DenseCache | QuantizedCache, batch.cache).append(held.keys, held.values)
        return self._attend_to(held, piece)

    def _cross(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None) -> Tensor:
        (key,) = rotated(self.rope, Piece(K, 0), self._keys(K))
        held = KeysValues(key, split_heads(self.value_proj(V), self.num_key_value_heads))
        return self._attend_to(held, Piece(Q, 0, mask=mask))

    def _cross_padded(self, Q: Tensor, K: Tensor, V: Tensor, real: Tensor) -> Tensor:
        """Padding of the keys: each sequence sees its real keys only, as if the others were not there."""
        if list(real.shape) != list(K.shape[:2]):
            raise RuntimeError(
                f"{type(self).__name__}: attention_mask must be {list(K.shape[:2])} (padding of the keys) or pairs "
                f"[batch or 1, heads or 1, {Q.shape[1]}, {K.shape[1]}], got {list(real.shape)}"
            )
        real = real.to(deepseek.bool)
        if bool(real.all()):
            return self._cross(Q, K, V, None)
        rows = []
        for b in range(Q.shape[0]):
            kept = real[b].nonzero().squeeze(-1)
            keys, values = (x[b : b + 1].index_select(1, kept) for x in (K, V))
            rows.append(self._cross(Q[b : b + 1], keys, values, None))
        return deepseek.cat(rows)

    def _queries(self, x: Tensor) -> Tensor:
        query = split_heads(self.query_proj(x), self.n_heads)
        return query if self.query_norm is None else self.query_norm(query)

    def _keys(self, x: Tensor) -> Tensor:
        key = split_heads(self.key_proj(x), self.num_key_value_heads)
        return key if self.key_norm is None else self.key_norm(key)

    def _attend_to(self, held: KeysValues, piece: Piece) -> Tensor:
        return in_pieces(piece, lambda some: self._queries_attend(some, held))

    def _queries_attend(self, piece: Piece, held: KeysValues) -> Tensor:
        (query,) = rotated(self.rope, piece, self._queries(piece.x))
        if isinstance(self.temperature, LengthTemperature):
            query = self.temperature(query, piece.start, None if self.causal else held.keys.shape[2])
        elif self.temperature is not None:
            query = self.temperature(query)
        out = F.attention(
            query,
            held.keys,
            held.values,
            mask=piece.mask,
            key_scale=held.key_scale,
            value_scale=held.value_scale,
            is_causal=self.causal,
            enable_gqa=self.num_key_value_heads != self.n_heads,
            query_start=piece.start,
        )
        if self.gate is not None:
            out = out * self._gates(piece.x)
        result: Tensor = self.out_proj(join_heads(out))
        return result

    def _gates(self, x: Tensor) -> Tensor:
        """[batch, heads, L, 1]."""
        assert self.gate is not None
        logits = self.gate(x).transpose(1, 2).unsqueeze(-1)
        return deepseek.sigmoid(logits) if self.gating == "sigmoid" else F.softmax(logits, dim=1) * self.n_heads

    def _check_cross(self, Q: Tensor, K: Tensor, V: Tensor) -> None:
        for name, x in (("Q", Q), ("K", K), ("V", V)):
            if x.dim() != 3 or x.shape[2] != self.d_model or x.shape[0] != Q.shape[0]:
                raise RuntimeError(
                    f"{type(self).__name__}: {name} must be [batch, time, {self.d_model}], got {list(x.shape)} beside "
                    f"Q {list(Q.shape)}"
                )
        if K.shape[1] != V.shape[1]:
            raise RuntimeError(
                f"{type(self).__name__}: keys and values must be of the same tokens, got {K.shape[1]} and {V.shape[1]}"
            )


def _check_temperature(name: str, temperature: HeadTemperature | LengthTemperature | None, heads: int) -> None:
    if temperature is None:
        return
    if not isinstance(temperature, HeadTemperature | LengthTemperature):
        raise TypeError(f"{name}: temperature must be a HeadTemperature or LengthTemperature, got {temperature!r}")
    own = temperature.log_temperature if isinstance(temperature, HeadTemperature) else temperature.scale
    if own.shape[0] != heads:
        raise ValueError(f"{name}: the temperature has {own.shape[0]} heads, attention {heads}")


guard(__name__)
