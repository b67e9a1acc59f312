"""DynamicSparseAttention in plain NumPy, one query at a time, by the rule its documentation states."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def project(attention: Any, x: Any) -> list[np.ndarray]:
    """Queries, keys and values [batch, heads, time, head_dim]."""
    layers = (attention.query_proj, attention.key_proj, attention.value_proj)
    made = [x.detach().numpy() @ layer.weight.detach().numpy().T for layer in layers]
    return [m.reshape(*m.shape[:2], -1, attention.head_dim).transpose(0, 2, 1, 3) for m in made]


def attend(attention: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The module's result, each query of a head reading the keys of mask [batch, key_heads, time, time]."""
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(t, group, axis=1) for t in (k, v))
    if mask.shape[1] != q.shape[1]:
        mask = np.repeat(mask, group, axis=1)
    scores = np.where(mask, q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = weights / weights.sum(-1, keepdims=True) @ v
    return out.transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[2], -1) @ attention.out_proj.weight.detach().numpy().T


def budget(visible: int, sparsity_ratio: float, max_keys: int | None, mass: float | None) -> int:
    if max_keys is not None:
        return min(max_keys, visible)
    return visible if mass is not None else max(1, int(sparsity_ratio * visible))


def selected_blocks(
    q: np.ndarray, k: np.ndarray, size: int, *, causal: bool, sparsity_ratio: float = 0.3, max_keys: int | None = None,
    mass: float | None = None,
) -> np.ndarray:  # fmt: skip
    """bool [batch, key_heads, time, time]."""
    batch, heads, time, _ = q.shape
    mask = np.zeros((batch, k.shape[1], time, time), bool)
    group = heads // k.shape[1]
    for b, h, t in np.ndindex(mask.shape[:3]):
        visible = t + 1 if causal else time
        queries, keys = q[b, h * group : (h + 1) * group, t], k[b, h]
        blocks = [np.arange(start, min(start + size, time)) for start in range(0, visible, size)]
        own = t // size
        means = np.array([keys[block].mean(0) for block in blocks])
        if mass is None:
            rank = means @ queries.mean(0)
        else:
            rank = estimated_weights(queries, keys, blocks, means, own, visible).sum(0)
        most = -(-budget(visible, sparsity_ratio, max_keys, mass) // size)
        chosen = [own] if most < 2 or own == 0 else [own, 0]
        for j in sorted(range(len(blocks)), key=lambda j: (-rank[j], j)):
            enough = mass is not None and mass < 1 and rank[chosen].sum() >= mass * group
            if len(chosen) < most and not enough and j not in chosen:
                chosen.append(j)
        for j in chosen:
            mask[b, h, t, blocks[j][blocks[j] < visible]] = True
    return mask


def estimated_weights(
    queries: np.ndarray, keys: np.ndarray, blocks: list[np.ndarray], means: np.ndarray, own: int, visible: int
) -> np.ndarray:
    """[heads, blocks]: as if each key of a block were its mean, but in the own block."""
    scale = 1 / math.sqrt(keys.shape[-1])
    weights = np.exp(queries @ means.T * scale) * [len(block) for block in blocks]
    seen = blocks[own][blocks[own] < visible]
    weights[:, own] = np.exp(queries @ keys[seen].T * scale).sum(-1)
    return weights / weights.sum(-1, keepdims=True)


def selected_keys(
    scores: np.ndarray, *, causal: bool, sparsity_ratio: float = 0.3, max_keys: int | None = None,
    mass: float | None = None,
) -> np.ndarray:  # fmt: skip
    """bool [batch, 1, time, time] of an indexer's scores [batch, time, time]."""
    mask = np.zeros((scores.shape[0], 1, *scores.shape[1:]), bool)
    for b, t in np.ndindex(scores.shape[:2]):
        visible = t + 1 if causal else scores.shape[2]
        row = scores[b, t, :visible]
        order = sorted(range(visible), key=lambda j: (-row[j], j))[: budget(visible, sparsity_ratio, max_keys, mass)]
        weights = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        total = 0.0
        for j in order:
            if mass is None or mass == 1 or total < mass:
                mask[b, 0, t, j] = True
            total += weights[j]
    return mask
