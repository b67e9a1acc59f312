"""What a sparse indexer learns from: its distance to the attention it selects for. (DeepSeek-V3.2, 2025, section 2.1)

The target of a query is the sum over heads of its attention weights, divided by their sum; the loss is the
Kullback-Leibler divergence of ``softmax(I)`` from it, over all visible keys (dense warm-up) or over the selected ones
(sparse stage). Neither the target nor what the indexer reads gets a gradient.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.autograd import Function
from deepseek.autograd.function import once_differentiable
from deepseek.nn import functional as F

# Numbers of one score matrix that is held at a time.
_HELD = 1 << 22


@public
class Attention(NamedTuple):
    """The attention that an indexer learns to predict.

    Attributes:
        query: [batch, heads, L, E].
        key: [batch, key_heads, S, E]; key_heads divides heads.
        lse: [batch, heads, L], logarithms of the denominators, over the keys that took part.
        scale: What products of query and key are multiplied by.
    """

    query: Tensor
    key: Tensor
    lse: Tensor
    scale: float


@public
def indexer_loss(
    query: Tensor,
    key: Tensor,
    weights: Tensor,
    attention: Attention,
    indices: Tensor | None = None,
    *,
    is_causal: bool = True,
    query_start: int = 0,
    ratio: int = 1,
) -> Tensor:
    """The sum over batch and queries of ``KL(target || softmax(I))``, computed a few queries at a time.

    Gradients of ``query``, ``key`` and ``weights`` are computed along with the value, so no matrix of scores is kept
    for the backward pass. There are no second derivatives.

    Args:
        query: [batch, L, index_heads, D], the indexer's.
        key: [batch, S, D], the indexer's.
        weights: [batch, L, index_heads], scaled.
        attention: What it learns to predict.
        indices: int64 [batch, L, n], the selected keys (-1 for none), over which ``attention`` was computed. None: all
            keys a query sees.
        is_causal: A query sees the keys up to its own position.
        query_start: Position of the first query.
        ratio: Without ``indices``, if causal: a key stands for so many positions, and the query at position t sees
            those below (t + 1) // ratio. Each query must see one.

    Returns:
        A scalar, float32 (float64 for float64).
    """

    def chunk(a: int, b: int, q: Tensor, k: Tensor, w: Tensor) -> Tensor:
        with deepseek.no_grad():
            part = attention._replace(query=attention.query[:, :, a:b].detach(), lse=attention.lse[:, :, a:b].detach())
        if indices is None:
            end = (query_start + b) // ratio if is_causal else k.shape[1]
            scores = F.index_scores(q, k[:, :end], w, is_causal=is_causal and ratio == 1, query_start=query_start + a)
            seen = deepseek.ones(1, end, dtype=deepseek.bool)
            if is_causal:
                limits = deepseek.arange(query_start + a + 1, query_start + b + 1) // ratio
                seen = deepseek.arange(end) < limits.unsqueeze(-1)
            if ratio > 1:
                scores = deepseek.where(seen, scores, -math.inf)
            return _divergence(_dense_target(part, end, seen), scores)
        chosen = indices[:, a:b]
        seen = chosen >= 0
        if is_causal:
            seen = seen & (chosen <= deepseek.arange(query_start + a, query_start + b).unsqueeze(-1))
        places = chosen.clamp(min=0)
        scores = deepseek.where(seen, _scores_at(q, k, w, places), -math.inf)
        return _divergence(_target_at(part, places, seen), scores)

    heads, groups, width = attention.query.shape[1], attention.key.shape[1], attention.key.shape[3]
    if indices is None:
        held = key.shape[1] * max(query.shape[2], heads)
    else:
        held = indices.shape[2] * max(query.shape[2], heads, key.shape[2], groups * width)
    step = max(1, _HELD // max(1, query.shape[0] * held))
    result: Tensor = _ByChunks.apply(query, key, weights, chunk, step)
    return result


class _ByChunks(Function):
    """The sum of a function of a few queries at a time, and its gradients with the values."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, weights: Tensor, chunk: Callable[..., Tensor], step: int
    ) -> Tensor:
        learns = any(ctx.needs_input_grad[:3])
        wide = deepseek.float64 if query.dtype is deepseek.float64 else deepseek.float32
        total = deepseek.zeros((), dtype=wide)
        by_query, by_weights = [], []
        by_key = deepseek.zeros_like(key)
        for a in range(0, query.shape[1], step):
            b = min(a + step, query.shape[1])
            parts = [t.detach() for t in (query[:, a:b], key, weights[:, a:b])]
            if not learns:
                total = total + chunk(a, b, *parts)
                continue
            for part in parts:
                part.requires_grad_()
            with deepseek.enable_grad():
                value = chunk(a, b, *parts)
            dq, dk, dw = deepseek.autograd.grad(value, parts)
            total = total + value.detach()
            by_query.append(dq)
            by_weights.append(dw)
            by_key = by_key + dk
        if learns:
            ctx.gradients = deepseek.cat(by_query, dim=1), by_key, deepseek.cat(by_weights, dim=1)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *((g * grad).to(g.dtype) for g in ctx.gradients), None, None


def _divergence(target: Tensor, scores: Tensor) -> Tensor:
    """The sum of KL(target || softmax(scores)), both [batch, L, n]; keys that are left out have score -inf."""
    some = target > 0
    logs = deepseek.where(some, deepseek.log_softmax(scores, -1), 0.0)
    entropy = deepseek.where(some, deepseek.log(deepseek.where(some, target, 1.0)), 0.0)
    return (target * (entropy - logs)).sum()


def _normalized(weights: Tensor, seen: Tensor) -> Tensor:
    weights = deepseek.where(seen, weights, 0.0)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)


def _dense_target(attention: Attention, end: int, seen: Tensor) -> Tensor:
    """[batch, L, end]; ``seen`` is bool [L or 1, end]."""
    with deepseek.no_grad():
        query, key, lse, scale = attention
        batch, heads, length, width = query.shape
        groups = key.shape[1]
        shared = query.reshape(batch, groups, heads // groups * length, width)  # the queries of a key head
        scores = deepseek.matmul(_wide(shared), _wide(key[:, :, :end].detach()).transpose(-2, -1)) * scale
        weights = deepseek.exp(scores.reshape(batch, heads, length, end) - lse.unsqueeze(-1)).sum(1)
        return _normalized(weights, seen)


def _target_at(attention: Attention, places: Tensor, seen: Tensor) -> Tensor:
    """[batch, L, n], at the places [batch, L, n]."""
    with deepseek.no_grad():
        query, key, lse, scale = attention
        batch, heads, length, width = query.shape
        groups, chosen = key.shape[1], places.shape[2]
        rows = _rows_at(key.detach().transpose(1, 2).flatten(2), places)  # [batch, L, n, groups * width]
        rows = _wide(rows).reshape(batch, length, chosen, groups, width).permute(0, 1, 3, 4, 2)
        shared = query.reshape(batch, groups, heads // groups, length, width).permute(0, 3, 1, 2, 4)
        scores = deepseek.matmul(_wide(shared), rows).reshape(batch, length, heads, chosen) * scale
        weights = deepseek.exp(scores - lse.transpose(1, 2).unsqueeze(-1)).sum(2)
        return _normalized(weights, seen)


def _scores_at(query: Tensor, key: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    """The indexer's scores [batch, L, n] of the keys at the places [batch, L, n]."""
    products = deepseek.matmul(_wide(query), _wide(_rows_at(key, places)).transpose(-2, -1))  # [batch, L, heads, n]
    return (deepseek.relu(products) * weights.unsqueeze(-1).to(products.dtype)).sum(2)


def _rows_at(rows: Tensor, places: Tensor) -> Tensor:
    """[batch, L, n, width]: rows [batch, S, width] at the places [batch, L, n]."""
    batch, length, chosen = places.shape
    first = deepseek.arange(batch).reshape(-1, 1, 1) * rows.shape[1]
    return rows.flatten(0, 1).index_select(0, (places + first).flatten()).reshape(batch, length, chosen, -1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype is deepseek.float64 else x.to(deepseek.float32)


guard(__name__)
