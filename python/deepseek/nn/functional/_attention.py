"""Attention: the fused core op and the projections around it."""

# mypy: no-implicit-reexport

from __future__ import annotations

import math

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.public import public
from deepseek.nn.functional._basic import dropout, linear


@public
def rope(input: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotary position embedding: pairs of features turned by the angle of their position. (Su et al., 2021)

    Args:
        input: (..., T, D), D even. 16-bit inputs are rotated in float32.
        cos: (T, D / 2), or anything that broadcasts to (..., T, D / 2): cosines of the angles.
        sin: of the same shape: sines of the angles.
        interleaved: features 2i and 2i + 1 are a pair; otherwise i and i + D / 2.

    Returns:
        The shape and dtype of ``input``.
    """
    return _C.rope(input, cos, sin, interleaved)


@public
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key^T * scale + mask) @ value``.

    Args:
        query: (..., heads, L, E).
        key: (..., heads, S, E).
        value: (..., heads, S, Ev).
        attn_mask: broadcastable to (..., heads, L, S); bool (True takes part) or added to the scores.
        dropout_p: probability of dropping an attention weight, applied whenever it is above 0.
        is_causal: position i sees positions 0..i only.
        scale: 1/sqrt(E) when omitted.
        enable_gqa: key and value may have fewer heads, each shared by a group of query heads.

    Returns:
        (..., heads, L, Ev).
    """
    return _C.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)


@public
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    dropout_p: float = 0.0,
    enable_gqa: bool = False,
    query_start: int = 0,
) -> Tensor:
    """Attention with what `scaled_dot_product_attention` has no arguments for.

    The result of a query has the same bits alone, beside other queries, with keys behind it cut off, and on any number
    of threads. A query that sees no key gives zeros.

    Args:
        query: (batch, heads, L, E), or without the first dims.
        key: (batch, heads, S, E).
        value: (batch, heads, S, Ev).
        mask: broadcastable to (batch, heads, L, S); bool (True takes part) or added to the scores. May be combined with
            ``is_causal``.
        sinks: (heads,): for each head a logit that takes its share of the weights and has no value. (Xiao et al., 2023)
        key_scale: (batch, heads, S): ``key`` and ``value`` are int8, as `quantize_rows` gives them, and this is what
            each row of ``key`` is multiplied by. Half the memory of bfloat16 and about 1.6 times as fast; no gradients,
            no dropout. With normal numbers the result is about 0.9 % off (root mean square; bfloat16: 0.3 %).
            Queries are rounded to 16 bits a row: an infinite number, or one beyond float32, makes a result NaN.
        value_scale: (batch, heads, S), for ``value``.
        is_causal: a query sees the keys up to its own position.
        scale: 1/sqrt(E) when omitted.
        window: a query sees keys less than this many positions away.
        softcap: scores become ``softcap * tanh(score / softcap)``.
        dropout_p: probability of dropping an attention weight, applied whenever it is above 0.
        enable_gqa: key and value may have fewer heads, each shared by a group of query heads.
        query_start: position of the first query, for ``is_causal`` and ``window``: the number of keys before it.

    Returns:
        (batch, heads, L, Ev).
    """
    return _C.attention(
        query,
        key,
        value,
        mask=mask,
        sinks=sinks,
        key_scale=key_scale,
        value_scale=value_scale,
        is_causal=is_causal,
        scale=scale,
        window=window,
        softcap=softcap,
        dropout_p=dropout_p,
        enable_gqa=enable_gqa,
        query_start=query_start,
    )


@public
def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    *,
    sinks: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`attention` within each of several sequences of different lengths that are packed one after another.

    Args:
        query: (tokens, heads, E).
        key: (tokens, heads, E), the tokens of all key sequences.
        value: (tokens, heads, Ev).
        cu_seq_q: (sequences + 1,) integers: where each query sequence starts, and the number of tokens.
        cu_seq_k: the same for keys and values.

    The others are those of `attention`; positions count from the start of each sequence.

    Returns:
        (tokens, heads, Ev), with the bits that each sequence has alone.
    """
    return _C.varlen_attention(
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        sinks=sinks,
        is_causal=is_causal,
        scale=scale,
        window=window,
        softcap=softcap,
        enable_gqa=enable_gqa,
    )


@public
def block_sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_indices: Tensor,
    *,
    block_size: int = 64,
    group: int = 1,
    is_causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    query_start: int = 0,
) -> Tensor:
    """Attention to selected blocks of keys: what `attention` gives under the mask of the selection, at its share of the
    cost. (NSA, Yuan et al., 2025; MoBA, Lu et al., 2025)

    The bits are those of `attention` with that mask; only gradients of key and value in bfloat16 may round differently.
    Blocks smaller than 64 keys cost as much as 64.

    Args:
        query: (batch, heads, L, E).
        key: (batch, key_heads, S, E); key_heads divides heads, each key head is shared by a group of query heads.
        value: (batch, key_heads, S, Ev).
        block_indices: int64, (batch, key_heads, ceil(L / group), n): numbers of blocks in any order. -1 selects
            nothing, and a block named twice counts once.
        block_size: keys in a block, a multiple of 16.
        group: so many queries one after another share a selection.
        is_causal: a query sees the selected keys up to its own position.
        scale: 1/sqrt(E) when omitted.
        window: a query sees selected keys less than this many positions away.
        query_start: position of the first query, for ``is_causal`` and ``window``: the number of keys before it.

    Returns:
        (batch, heads, L, Ev). A query that sees no key gives zeros.
    """
    return _C.block_sparse_attention(
        query,
        key,
        value,
        block_indices,
        block_size=block_size,
        group=group,
        is_causal=is_causal,
        scale=scale,
        window=window,
        query_start=query_start,
    )


@public
def token_sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    token_indices: Tensor,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    query_start: int = 0,
) -> Tensor:
    """Attention of each query to selected keys, for all its heads the same. (DeepSeek-V3.2, 2025)

    The bits are those of `attention` over the selected keys alone, side by side in ascending order. Gradients are those
    of `attention` under the mask of the selection, to rounding. The more heads share a key head, the faster: with 16 of
    size 128 a selected key takes less than twice the time that dense attention spends on a key.

    Args:
        query: (batch, heads, L, E).
        key: (batch, key_heads, S, E); key_heads divides heads, often it is 1.
        value: (batch, key_heads, S, Ev).
        token_indices: int64, (batch, L, n): positions of keys in any order. -1 selects nothing, and a key named twice
            counts once.
        is_causal: a query sees the selected keys up to its own position.
        scale: 1/sqrt(E) when omitted.
        window: a query sees selected keys less than this many positions away.
        query_start: position of the first query, for ``is_causal`` and ``window``: the number of keys before it.

    Returns:
        (batch, heads, L, Ev). A query that sees no key gives zeros.
    """
    return _C.token_sparse_attention(
        query,
        key,
        value,
        token_indices,
        is_causal=is_causal,
        scale=scale,
        window=window,
        query_start=query_start,
    )


@public
def index_scores(
    query: Tensor,
    key: Tensor,
    weights: Tensor,
    *,
    query_scale: Tensor | None = None,
    key_scale: Tensor | None = None,
    is_causal: bool = False,
    query_start: int = 0,
) -> Tensor:
    """Scores to pick keys by: ``sum over heads of weights * relu(query @ key^T)``. (DeepSeek-V3.2, 2025)

    Args:
        query: (batch, L, heads, D), floating; or int8, with ``query_scale`` and ``key_scale``, as `quantize_rows` gives
            them. Products of int8 are exact integers; they have no gradients.
        key: (batch, S, D), of the same dtype: all heads share it.
        weights: (batch, L, heads).
        query_scale: (batch, L, heads), what each row of an int8 query is multiplied by.
        key_scale: (batch, S).
        is_causal: keys behind a query's own position get -inf.
        query_start: position of the first query, for ``is_causal``: the number of keys before it.

    Returns:
        (batch, L, S), float32 (float64 for float64).
    """
    if query_scale is None and key_scale is None:
        return _C._index_scores(query, key, weights, is_causal, query_start)
    if query_scale is None or key_scale is None:
        raise ValueError("index_scores: pass both query_scale and key_scale (int8 query and key), or neither")
    return _C._index_scores_int8(query, query_scale, key, key_scale, weights, is_causal, query_start)


@public
def quantize_rows(input: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes and one scale for each row of the last dim: ``input`` is about ``codes * scales[..., None]``."""
    codes, scales = _C._quantize_rows(input)
    return codes, scales


def _canonical_mask(mask: Tensor | None, name: str, dtype: deepseek.dtype) -> Tensor | None:
    """A mask as numbers to add to the scores: True of a bool mask becomes -inf (means: leave out)."""
    if mask is None:
        return None
    if mask.dtype == deepseek.bool:
        return deepseek.zeros(mask.shape, dtype=dtype).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported, got {mask.dtype}")
    return mask.to(dtype)


def _multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    in_proj_weights: tuple[Tensor, Tensor, Tensor],
    in_proj_biases: tuple[Tensor | None, Tensor | None, Tensor | None],
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    mask: Tensor | None,
    dropout_p: float,
    need_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention of batch-first tensors.

    Args:
        query: (N, L, E).
        key: (N, S, Ek).
        value: (N, S, Ev).
        mask: None or numbers to add, broadcastable to (N, heads, L, S).

    Returns:
        output (N, L, E), and the weights (N, heads, L, S) or None.
    """
    batch, target_len, embed_dim = query.shape
    head_dim = embed_dim // num_heads

    def heads(x: Tensor, part: int) -> Tensor:  # (N, T, E?) -> (N, heads, T, head_dim)
        projected = linear(x, in_proj_weights[part], in_proj_biases[part])
        return projected.reshape(batch, x.shape[1], num_heads, head_dim).transpose(1, 2)

    q, k, v = heads(query, 0), heads(key, 1), heads(value, 2)
    weights: Tensor | None = None
    if need_weights:
        scores = deepseek.matmul(q * (1.0 / math.sqrt(head_dim)), k.transpose(-2, -1))  # (N, heads, L, S)
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        weights = dropout(_C.softmax(scores, -1), dropout_p, training=dropout_p > 0.0)
        mixed = deepseek.matmul(weights, v)
    else:
        mixed = scaled_dot_product_attention(q, k, v, mask, dropout_p)
    merged = mixed.transpose(1, 2).reshape(batch, target_len, embed_dim)
    return linear(merged, out_proj_weight, out_proj_bias), weights
