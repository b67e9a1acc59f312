"""Attention as functions: sharpened, local, over summaries, over selected keys, and results joined into one."""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._heads import check_whole
from deepseek.attention.caches.blocks import block_means
from deepseek.nn import functional as F


@public
class Attended(NamedTuple):
    """A result that can be joined with others of the same queries: see :func:`merge_attention`.

    Attributes:
        out: [batch, heads, L, Ev], the weighted mean of the values; zeros for a query that sees no key.
        lse: [batch, heads, L], float32 (float64 for float64): logarithm of the sum of exponentiated scores, -inf for a
            query that sees no key.
    """

    out: Tensor
    lse: Tensor


@public
def scaled_dot_product_attention(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    temperature: float | Tensor = 0.1,
    *,
    attention_mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(Q @ K^T / sqrt(E) / temperature) @ V``.

    A temperature below 1 sharpens: 0.1, the default, multiplies the scores by 10, which makes the weights nearly
    one-hot and their gradients small. 1 is :func:`deepseek.nn.functional.scaled_dot_product_attention`, bit for bit.
    Temperatures that are learned or know the length are in :mod:`deepseek.attention.temperature`.

    Args:
        Q: [batch, heads, L, E].
        K: [batch, key_heads, S, E]; key_heads divides heads.
        V: [batch, key_heads, S, Ev].
        temperature: Above 0; a tensor of one number, or [heads] with one for each head, gets gradients.
        attention_mask: Broadcastable to [batch, heads, L, S], bool (True takes part) or added to the scores.
        is_causal: A query sees the keys up to its own position.

    Returns:
        [batch, heads, L, Ev].

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if attention_mask is not None and is_causal:
        raise ValueError("scaled_dot_product_attention: pass either attention_mask or is_causal=True")
    enable_gqa = Q.dim() > 2 and K.dim() > 2 and K.shape[-3] != Q.shape[-3]
    scale: float | None = None
    if isinstance(temperature, Tensor):
        by_head = temperature.dim() > 0
        if by_head and Q.dim() < 3:
            raise ValueError(f"scaled_dot_product_attention: a temperature a head needs heads, got Q {list(Q.shape)}")
        if by_head and list(temperature.shape) != [Q.shape[-3]]:
            raise ValueError(
                f"scaled_dot_product_attention: a tensor of temperatures must be [{Q.shape[-3]}], one a head, or [], "
                f"got {list(temperature.shape)}"
            )
        if not bool((temperature > 0).all()):
            raise ValueError(f"scaled_dot_product_attention: temperatures must be above 0, got {temperature.tolist()}")
        Q = (Q / (temperature.reshape(-1, 1, 1) if by_head else temperature)).to(Q.dtype)
    elif not 0 < temperature < math.inf:
        raise ValueError(f"scaled_dot_product_attention: temperature must be above 0, got {temperature}")
    elif temperature != 1:
        scale = 1.0 / (math.sqrt(Q.shape[-1]) * temperature)
    return F.scaled_dot_product_attention(
        Q, K, V, attn_mask=attention_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )


@public
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    query_start: int = 0,
    sinks: Tensor | None = None,
) -> Attended:
    """:func:`deepseek.nn.functional.attention` with the logarithms of its denominators.

    Args:
        query: [batch, heads, L, E].
        key: [batch, key_heads, S, E]; key_heads divides heads.
        value: [batch, key_heads, S, Ev].
        mask: Broadcastable to [batch, heads, L, S], bool (True takes part) or added to the scores.
        is_causal: A query sees the keys up to its own position.
        scale: 1/sqrt(E) when omitted.
        window: A query sees keys less than this many positions away.
        query_start: Position of the first query: the number of keys before it.
        sinks: [heads]: logits that take their share of the weights and have no value; they are in the logarithms too.
    """
    result = _C._attention(
        query, key, value, mask, sinks, None, is_causal, _scale(scale, query), window or 0, 0.0, 0.0, query_start
    )
    return Attended(result[0], result[1])


@public
def sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    indices: Tensor | None = None,
    *,
    block_lists: Tensor | None = None,
    block_size: int = 64,
    is_causal: bool = True,
    scale: float | None = None,
    window: int | None = None,
    query_start: int = 0,
) -> Attended:
    """Attention of each query to the keys it selected; the others cost nothing.

    Pass ``indices`` (single keys, the same for all heads; DeepSeek-V3.2) or ``block_lists`` (blocks of keys, for each
    key head; NSA, MoBA). In both -1 selects nothing and the order does not matter.

    Args:
        query: [batch, heads, L, E].
        key: [batch, key_heads, S, E]; key_heads divides heads.
        value: [batch, key_heads, S, Ev].
        indices: int64 [batch, L, n], positions of keys.
        block_lists: int64 [batch, key_heads, L, n], numbers of blocks.
        block_size: Keys in a block, a multiple of 16.
        is_causal: A query sees the selected keys up to its own position.
        scale: 1/sqrt(E) when omitted.
        window: A query sees selected keys less than this many positions away.
        query_start: Position of the first query: the number of keys before it.

    Returns:
        The output [batch, heads, L, Ev] and the logarithms of the denominators [batch, heads, L].

    Raises:
        ValueError: both sorts of selection, or neither.
        IndexError: a key or block that is not there.
    """
    if (indices is None) == (block_lists is None):
        raise ValueError("sparse_attention: pass either indices (keys) or block_lists (blocks of keys)")
    place = (is_causal, _scale(scale, query), window or 0, query_start)
    if indices is not None:
        return Attended(*_C._token_sparse_attention(query, key, value, indices, *place))
    assert block_lists is not None
    return Attended(*_C._block_sparse_attention(query, key, value, block_lists, block_size, 1, *place))


@public
def merge_attention(parts: Sequence[tuple[Tensor, Tensor]], sinks: Tensor | None = None) -> Attended:
    """Attention over the keys of all parts at once, from the results over each. The parts must not share keys.

    ``out = sum(exp(lse_i) * out_i) / sum(exp(lse_i))``, computed without overflow; parts without keys count nothing.

    Args:
        parts: Pairs (out [batch, heads, L, Ev], lse [batch, heads, L]) of the same queries.
        sinks: [heads]: logits that take their share of the weights and have no value.

    Returns:
        The same pair of all keys; zeros and -inf for a query that sees none.
    """
    if not parts:
        raise ValueError("merge_attention needs at least one pair (out, lse)")
    if len(parts) == 1 and sinks is None:
        return Attended(*parts[0])
    logs = [lse for _, lse in parts]
    if sinks is not None:
        logs.append(sinks.to(logs[0].dtype).reshape(-1, 1).expand(logs[0].shape))
    stacked = deepseek.stack(logs, dim=-1)  # [batch, heads, L, parts]
    total = deepseek.logsumexp(stacked, dim=-1)
    # Where no part has a key, exp(-inf - 0) gives shares of 0 instead of NaN.
    shares = deepseek.exp(stacked - deepseek.where(total == -math.inf, 0.0, total).unsqueeze(-1))
    if len(logs) == 2 and len(parts) == 2 and parts[0][0].dtype is shares.dtype:
        return Attended(deepseek.lerp(parts[0][0], parts[1][0], shares[..., 1:2]), total)  # one pass
    out = shares[..., 0:1] * parts[0][0]
    for i in range(1, len(parts)):
        out = out + shares[..., i : i + 1] * parts[i][0]
    return Attended(out.to(parts[0][0].dtype), total)


@public
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, block_size: int = 64, *, is_causal: bool = True, query_start: int = 0
) -> Attended:
    """Attention to the query's own block of keys and the one before it (and the one after, if not causal): O(L).

    Args:
        q: [batch, heads, L, E].
        k: [batch, key_heads, S, E].
        v: [batch, key_heads, S, Ev].
        block_size: Keys in a block, a multiple of 16.
        is_causal: A query sees the keys up to its own position.
        query_start: Position of the first query.
    """
    _check_block_size("local_attention", block_size)
    blocks = _blocks(k.shape[-2], block_size)
    own = (deepseek.arange(query_start, query_start + q.shape[-2]) // block_size).unsqueeze(-1)  # [L, 1]
    near = own + deepseek.tensor([-1, 0] if is_causal else [-1, 0, 1])
    near = deepseek.where(near < blocks, near, -1).clamp(min=-1)
    lists = near.expand(k.shape[0], k.shape[1], *near.shape).contiguous()
    return sparse_attention(
        q, k, v, block_lists=lists, block_size=block_size, is_causal=is_causal, query_start=query_start
    )


@public
def global_attention(
    q: Tensor, k: Tensor, v: Tensor, block_size: int = 64, *, is_causal: bool = True, query_start: int = 0
) -> Attended:
    """Attention to the means of the blocks that :func:`local_attention` leaves out: O(L * S / block_size).

    A mean counts as much as the keys it stands for, so with equal keys in each block the two together are attention to
    all keys.

    Args and result: see :func:`local_attention`.
    """
    _check_block_size("global_attention", block_size)
    queries, keys = q.shape[-2], k.shape[-2]
    blocks = keys // block_size if is_causal else _blocks(keys, block_size)
    if blocks == 0:
        nothing = deepseek.zeros(*q.shape[:-1], 0, dtype=k.dtype)
        return attend(q, k[..., :0, :], v[..., :0, :], mask=nothing.to(deepseek.bool))
    means, values = (block_means(t, block_size, blocks) for t in (k, v))
    own = (deepseek.arange(query_start, query_start + queries) // block_size).unsqueeze(-1)  # [L, 1]
    others = deepseek.arange(blocks)
    seen = others < own - 1 if is_causal else (others - own).abs() > 1  # [L, blocks]
    counts = (keys - others * block_size).clamp(max=block_size).to(q.dtype)
    weight = deepseek.where(seen, deepseek.log(counts), -math.inf)
    return attend(q, means, values, mask=weight)


@public
def mix_weights(local: tuple[Tensor, Tensor], global_: tuple[Tensor, Tensor], gates: Tensor | None = None) -> Tensor:
    """Joins a local and a global result: by one softmax over the keys of both, or by gates.

    Args:
        local, global_: Pairs (out, lse) of the same queries, as :func:`local_attention` and :func:`global_attention`
            give them.
        gates: [batch, heads, L, 2], what each counts, for instance sigmoids of the query (NSA). None: one softmax.

    Returns:
        [batch, heads, L, Ev].
    """
    for name, part in (("local", local), ("global_", global_)):
        if isinstance(part, Tensor):
            raise TypeError(f"mix_weights: {name} must be a pair (out, lse): the output alone does not say its weight")
    if gates is not None and gates.shape[-1] != 2:
        raise ValueError(f"mix_weights: gates must be [..., 2], one for each result, got {list(gates.shape)}")
    if gates is None:
        return merge_attention([local, global_]).out
    return gates[..., 0:1] * local[0] + gates[..., 1:2] * global_[0]


@public
def dynamic_block_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_size: int = 64,
    *,
    is_causal: bool = True,
    query_start: int = 0,
) -> Tensor:
    """Near keys one by one, far ones as means of blocks, under one softmax: :func:`local_attention` and
    :func:`global_attention` joined by :func:`mix_weights`.

    Args:
        query: [batch, heads, L, E].
        key: [batch, key_heads, S, E]; key_heads divides heads.
        value: [batch, key_heads, S, Ev].
        block_size: Keys in a block, a multiple of 16.
        is_causal: A query sees the keys up to its own position.
        query_start: Position of the first query.

    Returns:
        [batch, heads, L, Ev].
    """
    near = local_attention(query, key, value, block_size, is_causal=is_causal, query_start=query_start)
    far = global_attention(query, key, value, block_size, is_causal=is_causal, query_start=query_start)
    return mix_weights(near, far)


def _scale(scale: float | None, query: Tensor) -> float:
    return 1.0 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale


def _check_block_size(name: str, block_size: int) -> None:
    check_whole(name, block_size=block_size)
    if block_size < 16 or block_size % 16:
        raise ValueError(f"{name}: block_size must be a positive multiple of 16, got {block_size}")


def _blocks(keys: int, block_size: int) -> int:
    return -(-keys // block_size)


guard(__name__)
