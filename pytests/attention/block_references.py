"""Attention modules written out in NumPy, query by query in float64, from the equations; slow and plain on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def parameters(module: Any) -> dict[str, Array]:
    """Every parameter in float64."""
    return {name: p.detach().double().numpy() for name, p in module.named_parameters()}


def linear(p: dict[str, Array], name: str, x: Array) -> Array:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def heads_of(x: Array, heads: int) -> Array:
    """[L, heads * size] -> [heads, L, size]."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def turn(x: Array, positions: Array, theta: float) -> Array:
    """Pairs (i, i + size / 2) of x [heads, L, size] turned by position * theta ** (-2 i / size)."""
    half = x.shape[-1] // 2
    # The module's tables are float32, so their angles are too.
    frequency = np.array([theta ** -(i / x.shape[-1]) for i in range(0, x.shape[-1], 2)], dtype=np.float32)
    angle = (np.asarray(positions, dtype=np.float32)[:, None] * frequency).astype(np.float64)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max())
    return e / e.sum()


def attend_to(q: Array, k: Array, v: Array, seen: Sequence[int], scale: float) -> Array:
    """One query [E] and the keys [S, E] at the places ``seen``; zeros if there are none."""
    seen = list(seen)
    if not seen:
        return np.zeros(v.shape[1])
    return softmax(k[seen] @ q * scale) @ v[seen]


def best(scores: dict[int, float], n: int) -> list[int]:
    """The n keys of the largest numbers, the first of equals."""
    return sorted(scores, key=lambda j: (-scores[j], j))[:n]


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# --- multi-head attention


def multi_head(m: Any, Q: Array, K: Array, V: Array, sees: Callable[[int, int, int], bool] | None = None) -> Array:
    """Of one sequence [L, d_model] and keys [S, d_model]; ``sees(head, query, key)`` restricts further."""
    p = parameters(m)
    q, k, v = (
        heads_of(linear(p, name, x), n)
        for name, x, n in (
            ("query_proj", Q, m.n_heads),
            ("key_proj", K, m.num_key_value_heads),
            ("value_proj", V, m.num_key_value_heads),
        )
    )
    if m.query_norm is not None:
        q, k = (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p[f"{name}.weight"]
            for x, name, eps in ((q, "query_norm", np.finfo(np.float64).eps), (k, "key_norm", np.finfo(np.float64).eps))
        )
    if m.rope is not None:
        q, k = turn(q, np.arange(len(Q)), m.rope.theta), turn(k, np.arange(len(K)), m.rope.theta)
    if m.gate is not None:
        logits = linear(p, "gate", Q)
        over_heads = np.array([softmax(row) for row in logits]) * m.n_heads
        gates = sigmoid(logits) if m.gating == "sigmoid" else over_heads
    out = np.zeros((len(Q), m.n_heads, m.head_dim))
    for h in range(m.n_heads):
        of = h // (m.n_heads // m.num_key_value_heads)
        for t in range(len(Q)):
            seen = [s for s in range(len(K)) if (s <= t or not m.causal) and (sees is None or sees(h, t, s))]
            scale = 1 / math.sqrt(m.head_dim)
            if type(m.temperature).__name__ == "HeadTemperature":
                scale /= math.exp(p["temperature.log_temperature"][h])
            elif m.temperature is not None:
                scale *= p["temperature.scale"][h] * math.log(max(2, t + 1 if m.causal else len(K)))
            out[t, h] = attend_to(q[h, t], k[of], v[of], seen, scale)
            if m.gate is not None:
                out[t, h] *= gates[t, h]
    return linear(p, "out_proj", out.reshape(len(Q), -1))


# --- mixture of block attention


def block_mixture(m: Any, x: Array) -> tuple[Array, list[list[list[int]]]]:
    """The result for one sequence [L, dim], and the blocks of each head and query, the own one first."""
    p, length, size = parameters(m), len(x), m.block_size
    q, k, v = (
        heads_of(linear(p, name, x), n)
        for name, n in (("q_proj", m.num_heads), ("k_proj", m.num_key_value_heads), ("v_proj", m.num_key_value_heads))
    )
    if m.rope is not None:
        q, k = (turn(a, np.arange(length), m.rope.theta) for a in (q, k))
    members = m.num_heads // m.num_key_value_heads
    out, chosen = np.zeros((length, m.num_heads, m.head_dim)), []
    for h in range(m.num_heads):
        of, lists = h // members, []
        means = [k[of][j : j + size].mean(0) for j in range(0, length, size)]
        alike = range(of * members, (of + 1) * members) if m.selector.shared else [h]
        for t in range(length):
            own = t // size
            others = range(own) if m.causal else [j for j in range(len(means)) if j != own]
            lists.append(
                [own, *best({j: sum(float(q[i, t] @ means[j]) for i in alike) for j in others}, m.selector.top_k)]
            )
            seen = [s for s in range(length) if s // size in lists[t] and (s <= t or not m.causal)]
            out[t, h] = attend_to(q[h, t], k[of], v[of], seen, 1 / math.sqrt(m.head_dim))
        chosen.append(lists)
    return linear(p, "o_proj", out.reshape(length, -1)), chosen


# --- native sparse attention


def compressed(p: dict[str, Array], name: str, rows: Array, block: int, stride: int) -> Array:
    """[L, E] -> [blocks, E], whole blocks only."""
    result = []
    for begin in range(0, len(rows) - block + 1, stride):
        flat = (rows[begin : begin + block] + p[f"{name}.position"]).reshape(-1)
        result.append(linear(p, f"{name}.down", gelu(linear(p, f"{name}.up", flat))))
    return np.array(result).reshape(-1, rows.shape[1])


def overlap_scores(weights: Array, block: int, stride: int, select: int, blocks: int) -> dict[int, float]:
    """Each compressed row gives its weight to a block once for every stride of tokens they share."""
    scores = dict.fromkeys(range(blocks), 0.0)
    for i, weight in enumerate(weights):
        for token in range(i * stride, i * stride + block, stride):
            if token // select in scores:
                scores[token // select] += float(weight)
    return scores


def native_sparse(m: Any, x: Array) -> tuple[Array, list[list[set[int]]]]:
    """The result for one sequence [L, dim], and the blocks of each key head and query."""
    p, length, s = parameters(m), len(x), m.selector
    block, stride, groups = m.compress_block, m.compress_stride, m.num_key_value_heads
    members = m.num_heads // groups
    q = heads_of(linear(p, "q_proj", x), m.num_heads)
    keys = heads_of(linear(p, "k_proj", x), p["k_proj.weight"].shape[0] // m.head_dim)
    values = heads_of(linear(p, "v_proj", x), p["v_proj.weight"].shape[0] // m.value_head_dim)
    sets = len(keys) // groups
    k = [keys[min(i, sets - 1) * groups :][:groups] for i in range(3)]
    v = [values[min(i, sets - 1) * groups :][:groups] for i in range(3)]
    turned_q = q
    if m.rope is not None:
        k[1:] = [turn(a, np.arange(length), m.rope.theta) for a in k[1:]]
        turned_q = turn(q, np.arange(length), m.rope.theta)
    gates = sigmoid(linear(p, "gate_proj", x)).reshape(length, 3, m.num_heads)
    out, chosen = np.zeros((length, m.num_heads, m.value_head_dim)), []
    for g in range(groups):
        kc = compressed(p, "compress_keys", k[0][g], block, stride)
        vc = compressed(p, "compress_values", v[0][g], block, stride)
        lists: list[set[int]] = []
        for t in range(length):
            heads = range(g * members, (g + 1) * members)
            whole = [i for i in range(len(kc)) if i * stride + block <= t + 1]
            own = t // s.select
            total = dict.fromkeys(range(own + 1), 0.0)
            for h in heads:
                weights = softmax(kc[whole] @ q[h, t] * m.scale) if whole else np.zeros(0)
                for j, score in overlap_scores(weights, block, stride, s.select, own + 1).items():
                    total[j] += score
            for j in total:
                if j < s.initial or j > own - s.local:
                    total[j] = math.inf
            lists.append(set(best(total, s.count)))
            in_blocks = [i for i in range(t + 1) if i // s.select in lists[t]]
            window = range(max(0, t - m.window + 1), t + 1)
            for h in heads:
                parts = (
                    attend_to(q[h, t], kc, vc, whole, m.scale),
                    attend_to(turned_q[h, t], k[1][g], v[1][g], in_blocks, m.scale),
                    attend_to(turned_q[h, t], k[2][g], v[2][g], window, m.scale),
                )
                out[t, h] = sum(gates[t, i, h] * part for i, part in enumerate(parts))
        chosen.append(lists)
    return linear(p, "o_proj", out.reshape(length, -1)), chosen


# --- hierarchical attention


def hierarchical(m: Any, x: Array, task: str | None = None) -> Array:
    """The result for one sequence [L, dim]."""
    p, length = parameters(m), len(x)
    q, k, v = (
        heads_of(y, n)
        for y, n in (
            (linear(p, "q_proj", x) + adapted(p, x, task), m.num_heads),
            (linear(p, "k_proj", x), m.num_key_value_heads),
            (linear(p, "v_proj", x), m.num_key_value_heads),
        )
    )
    if m.rope is not None:
        q, k = (turn(a, np.arange(length), m.rope.theta) for a in (q, k))
    gated = f"tasks.{task}.gates"
    if gated + ".weight" in p:
        gates = sigmoid(linear(p, gated, x)).reshape(length, 2, m.num_heads)
    out = np.zeros((length, m.num_heads, m.head_dim))
    for h in range(m.num_heads):
        of = h // (m.num_heads // m.num_key_value_heads)
        for t in range(length):
            branch = {"local": local, "selected": selected}.get(m.layer_type, over_paragraphs)
            out[t, h] = branch(m, q[h, t], k[of], v[of], t)
            if gated + ".weight" in p:
                out[t, h] = gates[t, 1, h] * out[t, h] + gates[t, 0, h] * local(m, q[h, t], k[of], v[of], t)
    return linear(p, "o_proj", out.reshape(length, -1))


def adapted(p: dict[str, Array], x: Array, task: str | None) -> Array | float:
    name = f"tasks.{task}.adapt"
    return linear(p, f"{name}.up", linear(p, f"{name}.down", x)) if f"{name}.up.weight" in p else 0.0


def local_mask(m: Any, length: int) -> Array:
    """bool [L, L]: which keys a query of a local layer sees."""
    apart = np.arange(length)[:, None] - np.arange(length)
    return (np.abs(apart) < m.window) & ((apart >= 0) | (not m.causal))


def local(m: Any, q: Array, k: Array, v: Array, t: int) -> Array:
    return attend_to(q, k, v, np.flatnonzero(local_mask(m, len(k))[t]).tolist(), 1 / math.sqrt(m.head_dim))


def over_paragraphs(m: Any, q: Array, k: Array, v: Array, t: int) -> Array:
    size, own = m.paragraph, t // m.paragraph
    weights, values = [], []
    for j in range(-(-len(k) // size)):
        block = slice(j * size, min((j + 1) * size, len(k)))
        if abs(j - own) <= 1:  # one by one
            for s in range(block.start, block.stop):
                if s <= t or not m.causal:
                    weights.append(math.exp(q @ k[s] / math.sqrt(m.head_dim)))
                    values.append(v[s])
        elif j < own or not m.causal:  # the mean, as often as it stands for keys
            mean = k[block].mean(0)
            weights.append((block.stop - block.start) * math.exp(q @ mean / math.sqrt(m.head_dim)))
            values.append(v[block].mean(0))
    return np.array(weights) @ np.array(values) / sum(weights)


def selected(m: Any, q: Array, k: Array, v: Array, t: int) -> Array:
    size, own = m.paragraph, t // m.paragraph
    others = range(own) if m.causal else [j for j in range(-(-len(k) // size)) if j != own]
    chosen = [own, *best({j: float(q @ k[j * size : (j + 1) * size].mean(0)) for j in others}, m.selector.top_k)]
    seen = [s for s in range(len(k)) if s // size in chosen and (s <= t or not m.causal)]
    return attend_to(q, k, v, seen, 1 / math.sqrt(m.head_dim))
