"""DeepSeek-V4's attention and hyper-connections from their equations, token by token, in float64 with NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]


def weights_of(module: Any) -> Weights:
    return {name: t.double().numpy() for name, t in module.state_dict().items()}


def rms_norm(x: np.ndarray, eps: float, weight: Any = 1.0) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def frequencies(dim: int, theta: float, scaling: dict[str, Any] | None) -> np.ndarray:
    """Plain, or by YaRN: features that turn often within the original context stay, slow ones are divided."""
    plain = theta ** -(np.arange(0, dim, 2) / dim)
    if not scaling:
        return plain
    original = scaling["original_max_position_embeddings"]
    low, high = (
        dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (scaling["beta_fast"], scaling["beta_slow"])
    )
    low, high = max(math.floor(low), 0), min(math.ceil(high), dim - 1)
    share = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return plain * (1 - share) + plain / scaling["factor"] * share


def turn(x: np.ndarray, position: float, freqs: np.ndarray) -> np.ndarray:
    """The last pairs (2i, 2i + 1) of x [..., width] as complex numbers times e^(i angle)."""
    kept, turned = x[..., : -2 * len(freqs)], x[..., -2 * len(freqs) :]
    z = (turned[..., 0::2] + 1j * turned[..., 1::2]) * np.exp(1j * position * freqs)
    return np.concatenate([kept, np.stack([z.real, z.imag], -1).reshape(turned.shape)], -1)


def entries(w: Weights, x: np.ndarray, ratio: int, overlap: bool, eps: float, freqs: np.ndarray) -> np.ndarray:
    """[windows, head_dim]; w is of a compressor."""
    kv, gate = x @ w["kv_proj.weight"].T, x @ w["gate_proj.weight"].T
    width = len(w["kv_norm.weight"])
    result = []
    for i in range(len(x) // ratio):
        slots = []
        if overlap and i > 0:
            slots += [(t, slice(0, width)) for t in range((i - 1) * ratio, i * ratio)]
        slots += [(t, slice(-width, None)) for t in range(i * ratio, (i + 1) * ratio)]
        logits = np.stack([gate[t, part] + w["position_bias"][t % ratio, part] for t, part in slots])
        values = np.stack([kv[t, part] for t, part in slots])
        mean = (softmax(logits, 0) * values).sum(0)
        result.append(turn(rms_norm(mean, eps, w["kv_norm.weight"]), i * ratio, freqs))
    return np.stack(result) if result else np.zeros((0, width))


def index_scores(
    w: Weights, x: np.ndarray, latent: np.ndarray, keys: np.ndarray, t: int, freqs: np.ndarray
) -> np.ndarray:
    """Of all entries, for token t."""
    heads = w["scorer.weights_proj.weight"].shape[0]
    query = turn((w["q_b_proj.weight"] @ latent[t]).reshape(heads, -1), t, freqs)
    weight = w["scorer.weights_proj.weight"] @ x[t]
    return weight @ np.maximum(query @ keys.T, 0) / math.sqrt(query.size)


def attention(w: Weights, x: np.ndarray, s: dict[str, Any], losses: list[float] | None = None) -> np.ndarray:
    """[time, hidden_size] of one sequence; ``s`` are the settings of CompressedAttention, all of them.

    ``losses`` gets, for each token that sees an entry, the divergence of the indexer from the attention to what it
    picked.
    """
    heads, width, eps, ratio = s["num_attention_heads"], s["head_dim"], s["rms_norm_eps"], s.get("compress_ratio")
    sliding = s["layer_type"] == "sliding_attention"
    freqs = (
        frequencies(s["qk_rope_head_dim"], s["rope_theta"], None)
        if sliding
        else frequencies(s["qk_rope_head_dim"], s["compress_rope_theta"], s["rope_scaling"])
    )
    latent = rms_norm(x @ w["q_a_proj.weight"].T, eps, w["q_a_norm.weight"])
    query = rms_norm((latent @ w["q_b_proj.weight"].T).reshape(len(x), heads, width), eps)
    rows = rms_norm(x @ w["kv_proj.weight"].T, eps, w["kv_norm.weight"])
    sparse = s["layer_type"] == "compressed_sparse_attention"
    if not sliding:
        own = part(w, "compressor.")
        compressed = entries(own, x, ratio, sparse, eps, freqs)
        if sparse:
            index = part(own, "indexer.")
            index_keys = entries(index, x, ratio, True, eps, freqs)
    out = []
    for t in range(len(x)):
        near = range(max(0, t + 1 - s["sliding_window"]), t + 1)
        keys = [turn(rows[i], i, freqs) for i in near]
        if not sliding:
            picked = range((t + 1) // ratio)
            if sparse:
                scores = index_scores(index, x, latent, index_keys, t, freqs)[: (t + 1) // ratio]
                picked = np.argsort(-scores, kind="stable")[: s["index_topk"]]
            keys += [compressed[i] for i in picked]
        stacked = np.stack(keys)
        logits = turn(query[t], t, freqs) @ stacked.T * width**-0.5
        weights = softmax(np.concatenate([logits, w["sinks"][:, None]], 1))[:, :-1]
        if losses is not None and sparse and len(picked):
            target = weights[:, len(near) :].sum(0)
            target /= target.sum()
            logs = np.log(softmax(index_scores(index, x, latent, index_keys, t, freqs)[picked]))
            losses.append(float((target * (np.log(target) - logs)).sum()))
        turned_back = turn(weights @ stacked, -t, freqs)  # [heads, width]
        groups = turned_back.reshape(s["o_groups"], -1)
        maps = w["o_a_proj.weight"].reshape(s["o_groups"], s["o_lora_rank"], -1)
        out.append(w["o_b_proj.weight"] @ np.concatenate([m @ g for m, g in zip(maps, groups, strict=True)]))
    return np.stack(out)


def part(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): a for name, a in w.items() if name.startswith(prefix)}


def hyper_weights(w: Weights, x: np.ndarray, rounds: int, eps: float, norm_eps: float) -> tuple[np.ndarray, ...]:
    """pre [n], post [n], comb [n, n] of one token's streams x [n, D]."""
    n = len(x)
    h = w["fn"] @ rms_norm(x.reshape(-1), norm_eps)
    parts = h * np.repeat(w["scale"], [n, n, n * n]) + w["base"]
    comb = softmax(parts[2 * n :].reshape(n, n)) + eps
    comb = comb / (comb.sum(0, keepdims=True) + eps)
    for _ in range(rounds - 1):
        comb = comb / (comb.sum(1, keepdims=True) + eps)
        comb = comb / (comb.sum(0, keepdims=True) + eps)
    return sigmoid(parts[:n]) + eps, 2 * sigmoid(parts[n : 2 * n]), comb


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
