"""Native sparse attention: compressed, selected and near keys, weighed by gates. (Yuan et al., 2025)"""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._compression import BlockCompressor, BlockSelector, attend_compressed
from deepseek.attention._heads import (
    check_whole,
    checked_heads,
    join_heads,
    projections,
    rotary_for,
    rotated,
    split_heads,
)
from deepseek.attention._pieces import Piece, in_pieces
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention.caches import KeysValues
from deepseek.attention.caches.native_sparse import NativeSparseCache, whole_blocks
from deepseek.attention.functional import attend, sparse_attention
from deepseek.nn import Linear


class _Branches(NamedTuple):
    """What queries attend to, all of key_heads heads."""

    compressed: tuple[Tensor, Tensor] | None
    selected: KeysValues
    window: KeysValues


@public
class NativeSparseAttention(SequenceModule):
    """Three branches of attention, each with its gate: ``sum_c g_c * Attn(q, K_c, V_c)``, ``g = sigmoid(gate_proj(x))``

    - compressed: one key and value for ``compress_block`` tokens, one every ``compress_stride``, by a small MLP that
      knows the place within the block. A query sees those whose block is whole. Neither these keys nor their queries
      are turned by positions.
    - selected: the ``num_selected`` blocks of ``select_block`` keys whose compressed rows have the largest weights, the
      same for all query heads of a key head, the first of equals; ``num_initial`` first and ``num_local`` last blocks
      always. The choice has no gradient.
    - window: the last ``window`` keys.

    (DeepSeek, "Native Sparse Attention", 2025, arXiv 2502.11089, equations 5 to 12.) Tokens that a query reads:
    L / compress_stride + num_selected * select_block + window.

    Args:
        dim: Width.
        num_heads: Number of heads; divides ``dim`` unless ``head_dim`` is given.
        num_key_value_heads: Heads of keys and values, each shared by a group of query heads; as many as those by
            default. The paper has 64 heads in 4 groups.
        compress_block: Tokens a compressed row stands for.
        compress_stride: Tokens from one compressed row to the next; divides ``compress_block`` and ``select_block``.
        select_block: Keys in a selected block, a multiple of 16.
        num_selected: Selected blocks, those that always are included.
        num_initial: Blocks at the start that are always selected.
        num_local: Blocks up to the query's own that are always selected, at least 1.
        window: Keys in the window.
        shared_projections: One projection of keys and values for all branches instead of one for each, and no keys and
            values of the window in the cache.
        head_dim: Features of queries and keys of a head, ``dim / num_heads`` by default.
        value_head_dim: Features of values of a head, ``head_dim`` by default.
        compress_hidden: Width inside the MLP, ``2 * head_dim`` (of values ``2 * value_head_dim``) by default.
        causal: Must be True: compressed rows are only defined for blocks of the past.
        rope_theta: Base of the rotary frequencies of the other two branches; None turns nothing.
        rope_scaling: As in :class:`RotaryEmbedding`.
        bias: Projections have a bias.
        dtype: Of the parameters.

    Raises:
        ValueError: numbers that do not fit each other.
        NotImplementedError: ``causal=False``.
    """

    caches = (NativeSparseCache,)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        *,
        compress_block: int = 32,
        compress_stride: int = 16,
        select_block: int = 64,
        num_selected: int = 16,
        num_initial: int = 1,
        num_local: int = 2,
        window: int = 512,
        shared_projections: bool = False,
        head_dim: int | None = None,
        value_head_dim: int | None = None,
        compress_hidden: int | None = None,
        causal: bool = True,
        rope_theta: float | None = 10000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        bias: bool = False,
        dtype: deepseek.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not causal:
            raise NotImplementedError(f"{name} is causal only: compressed rows stand for whole blocks of the past")
        self.num_key_value_heads, self.head_dim = checked_heads(name, dim, num_heads, num_key_value_heads, head_dim)
        self.value_head_dim = self.head_dim if value_head_dim is None else value_head_dim
        check_whole(
            name,
            compress_block=compress_block,
            compress_stride=compress_stride,
            select_block=select_block,
            num_selected=num_selected,
            num_initial=num_initial,
            num_local=num_local,
            window=window,
            value_head_dim=value_head_dim,
            compress_hidden=compress_hidden,
        )
        hidden = [2 * size if compress_hidden is None else compress_hidden for size in self._sizes]
        _check_positive(name, compress_block, compress_stride, window, self.value_head_dim, *hidden)
        _check_blocks(name, compress_block, compress_stride, select_block)
        _check_counts(name, num_selected, num_initial, num_local)
        self.width, self.num_heads, self.causal = dim, num_heads, causal
        self.window, self.select_block, self.shared_projections = window, select_block, shared_projections
        self.compress_block, self.compress_stride = compress_block, compress_stride
        self.scale = 1.0 / math.sqrt(self.head_dim)
        self.selector = BlockSelector(
            compress_block, compress_stride, select_block, num_selected, num_initial, num_local
        )
        self.rope = rotary_for(self.head_dim, rope_theta, rope_scaling)
        key_heads = self.num_key_value_heads * (1 if shared_projections else 3)  # compressed, selected, window
        self.q_proj, self.k_proj, self.v_proj = projections(
            dim, num_heads, key_heads, self.head_dim, self.value_head_dim, bias=bias, dtype=dtype
        )
        self.gate_proj = Linear(dim, 3 * num_heads, dtype=dtype)
        self.o_proj = Linear(num_heads * self.value_head_dim, dim, bias=bias, dtype=dtype)
        self.compress_keys, self.compress_values = (
            BlockCompressor(size, compress_block, compress_stride, width, dtype)
            for size, width in zip(self._sizes, hidden, strict=True)
        )

    @property
    def _sizes(self) -> tuple[int, int]:
        """Features of keys and of values."""
        return self.head_dim, self.value_head_dim

    def new_cache(self, rewind: int = 0) -> NativeSparseCache:
        """An empty cache whose :meth:`truncate` can go back by ``rewind`` tokens at least."""
        return NativeSparseCache(
            self.compress_block, self.compress_stride, self.window, self.shared_projections, rewind
        )

    def attend(self, batch: Batch) -> Tensor:
        """The result for sequences without padding."""
        piece = Piece.of(batch)
        branches = self._branches(batch)
        return in_pieces(piece, lambda some: self._queries_attend(some, branches))

    def selected_blocks(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        """The blocks that queries of x [batch, L, dim] select: int64 [batch, key_heads, L, n], -1 for none."""
        with deepseek.no_grad():
            query = split_heads(self.q_proj(x), self.num_heads)
            return self._compressed(query, self._branches(Batch(x, positions)).compressed, 0)[1]

    def _queries_attend(self, piece: Piece, branches: _Branches) -> Tensor:
        query = split_heads(self.q_proj(piece.x), self.num_heads)
        compressed, lists = self._compressed(query, branches.compressed, piece.start)
        (query,) = rotated(self.rope, piece, query)
        gates = deepseek.sigmoid(split_heads(self.gate_proj(piece.x), 3))  # [batch, 3, L, heads]
        gates = gates.transpose(2, 3).unsqueeze(-1)
        out = gates[:, 1] * self._selected(query, branches.selected, lists, piece.start)
        out = out + gates[:, 2] * self._near(query, branches.window, piece.start)
        if compressed is not None:
            out = out + gates[:, 0] * compressed
        result: Tensor = self.o_proj(join_heads(out))
        return result

    def _compressed(
        self, query: Tensor, rows: tuple[Tensor, Tensor] | None, start: int
    ) -> tuple[Tensor | None, Tensor]:
        """The compressed branch (None while there are no rows) and the lists of blocks by its weights."""
        groups = query.unflatten(1, (self.num_key_value_heads, self.num_heads // self.num_key_value_heads))
        if rows is None:
            return None, self.selector.lists(groups, None, None, start, self.scale)
        result = attend_compressed(query, *rows, start, self.compress_block, self.compress_stride, self.scale)
        lse = result.lse.unflatten(1, groups.shape[1:3])
        return result.out, self.selector.lists(groups, rows[0], lse, start, self.scale)

    def _selected(self, query: Tensor, held: KeysValues, lists: Tensor, start: int) -> Tensor:
        return sparse_attention(
            query,
            held.keys,
            held.values,
            block_lists=lists,
            block_size=self.select_block,
            scale=self.scale,
            query_start=start,
        ).out

    def _near(self, query: Tensor, held: KeysValues, start: int) -> Tensor:
        here = start - held.first
        return attend(
            query, held.keys, held.values, is_causal=True, scale=self.scale, window=self.window, query_start=here
        ).out

    def _branches(self, batch: Batch) -> _Branches:
        """Keys and values of the three branches; enters the cache."""
        keys, values = (
            list(split_heads(x, x.shape[-1] // size).split(self.num_key_value_heads, dim=1))
            for x, size in zip((self.k_proj(batch.x), self.v_proj(batch.x)), self._sizes, strict=True)
        )
        raw = KeysValues(keys[0], values[0])
        turned_keys = rotated(self.rope, Piece.of(batch), *(keys if self.shared_projections else keys[1:]))
        selected = KeysValues(turned_keys[0], values[-2 if len(values) > 1 else 0])
        window = KeysValues(turned_keys[-1], values[-1])
        if batch.cache is None:
            blocks = whole_blocks(batch.x.shape[1], self.compress_block, self.compress_stride)
            compressed = (self.compress_keys(raw.keys), self.compress_values(raw.values)) if blocks else None
            return _Branches(compressed, selected, window)
        cache = cast(NativeSparseCache, batch.cache)
        self._check_settings(cache)
        self._compress_into(cache, raw)
        held = cache.append(selected.keys, selected.values)
        near = held if cache.shared else cache.append_window(window.keys, window.values)
        return _Branches(cache.compressed_rows(), held, near)

    def _compress_into(self, cache: NativeSparseCache, raw: KeysValues) -> None:
        """Adds the compressed rows of blocks that became whole."""
        keys, values, first, *_ = cache.append_raw(raw.keys, raw.values)
        tokens = first + keys.shape[2]
        if whole_blocks(tokens, self.compress_block, self.compress_stride) == cache.compressed:
            return
        begin = cache.compressed * self.compress_stride - first
        cache.append_compressed(self.compress_keys(keys[:, :, begin:]), self.compress_values(values[:, :, begin:]))

    def _check_settings(self, cache: NativeSparseCache) -> None:
        own = (self.compress_block, self.compress_stride, self.window, self.shared_projections)
        its = (cache.compress_block, cache.compress_stride, cache.window, cache.shared)
        if own != its:
            raise ValueError(
                f"{type(self).__name__}: the cache was made for (compress_block, compress_stride, window, "
                f"shared_projections) = {its}, the module has {own}; see new_cache()"
            )


def _check_positive(name: str, block: int, stride: int, window: int, *widths: int) -> None:
    if min(block, stride, window, *widths) < 1:
        raise ValueError(
            f"{name}: compress_block, compress_stride, window, value_head_dim and compress_hidden must be positive, "
            f"got {block}, {stride}, {window}, {widths[0]} and {widths[-1]}"
        )


def _check_blocks(name: str, block: int, stride: int, select: int) -> None:
    if select < 16 or select % 16:
        raise ValueError(f"{name}: select_block must be a positive multiple of 16, got {select}")
    if block % stride or select % stride:
        raise ValueError(
            f"{name}: compress_stride {stride} must divide compress_block {block} and select_block {select}"
        )


def _check_counts(name: str, selected: int, initial: int, local: int) -> None:
    if initial < 0 or local < 1 or selected < initial + local:
        raise ValueError(
            f"{name}: num_initial must not be negative, num_local at least 1 and num_selected at least their sum, got "
            f"{initial}, {local} and {selected}"
        )


guard(__name__)
