"""Multi-head latent attention and its indexer as plain loops and float64 NumPy, written from the papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray


def parameters(module: Any) -> dict[str, Array]:
    return {name: p.detach().double().numpy() for name, p in module.state_dict().items()}


def frequencies(dim: int, theta: float, scaling: dict[str, Any] | None) -> tuple[Array, float]:
    """Angles a position, and what cosines and sines are multiplied by."""
    plain = np.array([theta ** (-2 * i / dim) for i in range(dim // 2)])
    if scaling is None or scaling["type"] != "yarn":
        return plain, 1.0
    s, original = scaling["factor"], scaling["original_max_position_embeddings"]

    def dimension(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(dimension(scaling.get("beta_slow", 1))), dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    mscale, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    both = mscale and all_dim
    factor = magnitude(s, mscale) / magnitude(s, all_dim) if both else magnitude(s, 1)
    return plain / s * ramp + plain * (1 - ramp), factor


def magnitude(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1


def softmax_scale(width: int, scaling: dict[str, Any] | None) -> float:
    scale = width**-0.5
    if scaling is not None and scaling["type"] == "yarn" and scaling.get("mscale_all_dim"):
        scale *= magnitude(scaling["factor"], scaling["mscale_all_dim"]) ** 2
    return scale


def rotate(x: Array, position: int, angles: tuple[Array, float], interleaved: bool) -> Array:
    """One vector."""
    frequency, factor = angles
    out, half = x.copy(), len(x) // 2
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        cos, sin = math.cos(position * frequency[i]) * factor, math.sin(position * frequency[i]) * factor
        out[a], out[b] = x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin
    return out


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def index_scores(
    p: dict[str, Array],
    x: Array,
    source: Array,
    *,
    heads: int,
    rope: int,
    angles: tuple[Array, float],
    prefix: str = "",
) -> Array:
    """I [time, time] of one sequence, of all pairs."""
    q = (source @ p[prefix + "wq_b.weight"].T).reshape(len(x), heads, -1)
    k = x @ p[prefix + "wk.weight"].T
    k = k - k.mean(-1, keepdims=True)
    k = k / np.sqrt((k * k).mean(-1, keepdims=True) + 1e-6) * p[prefix + "k_norm.weight"] + p[prefix + "k_norm.bias"]
    w = x @ p[prefix + "weights_proj.weight"].T
    for t in range(len(x)):
        k[t, :rope] = rotate(k[t, :rope], t, angles, False)
        for h in range(heads):
            q[t, h, :rope] = rotate(q[t, h, :rope], t, angles, False)
    products = np.maximum(np.einsum("thd,sd->ths", q, k), 0)
    return np.einsum("ths,th->ts", products, w) / math.sqrt(q.shape[-1] * heads)


def best(scores: Array, visible: int, most: int) -> list[int]:
    """The first of the best."""
    return sorted(range(visible), key=lambda s: (-scores[s], s))[:most]


def latent_attention(
    p: dict[str, Array],
    x: Array,
    *,
    heads: int,
    nope: int,
    rope: int,
    value: int,
    theta: float = 10000.0,
    scaling: dict[str, Any] | None = None,
    interleaved: bool = True,
    causal: bool = True,
    index_heads: int = 0,
    index_topk: int = 0,
) -> Array:
    """One sequence [time, width]."""
    angles = frequencies(rope, theta, scaling)

    def linear(name: str, t: Array) -> Array:
        return t @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)

    source = rms_norm(linear("q_a_proj", x), p["q_a_layernorm.weight"], 1e-6) if "q_a_proj.weight" in p else x
    q = linear("q_b_proj" if "q_a_proj.weight" in p else "q_proj", source).reshape(len(x), heads, nope + rope)
    both = linear("kv_a_proj_with_mqa", x)
    rank = both.shape[1] - rope
    kv = linear("kv_b_proj", rms_norm(both[:, :rank], p["kv_a_layernorm.weight"], 1e-6))
    kv = kv.reshape(len(x), heads, nope + value)
    chosen = None
    if index_topk:
        chosen = index_scores(p, x, source, heads=index_heads, rope=rope, angles=angles, prefix="indexer.")
    out = np.zeros((len(x), heads, value))
    shared = [rotate(both[s, rank:], s, angles, interleaved) for s in range(len(x))]
    for t in range(len(x)):
        visible = t + 1 if causal else len(x)
        keys = list(range(visible)) if chosen is None else best(chosen[t], visible, index_topk)
        for h in range(heads):
            turned = rotate(q[t, h, nope:], t, angles, interleaved)
            scores = np.array([q[t, h, :nope] @ kv[s, h, :nope] + turned @ shared[s] for s in keys])
            out[t, h] = softmax(scores * softmax_scale(nope + rope, scaling)) @ kv[keys, h, nope:]
    return linear("o_proj", out.reshape(len(x), -1))
