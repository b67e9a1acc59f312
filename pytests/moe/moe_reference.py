"""Routers and experts as the papers write them, in plain NumPy: one token at a time, float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SCORES = {
    "softmax": lambda z: np.exp(z - z.max()) / np.exp(z - z.max()).sum(),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "sqrtsoftplus": lambda z: np.sqrt(np.logaddexp(0, z)),
}


@dataclass(frozen=True)
class Rule:
    """How a token's experts are chosen."""

    top_k: int
    scoring: str = "softmax"
    n_group: int = 1
    topk_group: int = 1
    group_score: str = "max"
    norm: bool = False
    scale: float = 1.0


def best(values: np.ndarray, k: int) -> list[int]:
    """The k largest, the first of equal ones."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]


def route(
    x: np.ndarray, weight: np.ndarray, rule: Rule, bias: Any = 0.0, table: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and indices [T, k]; table [T, k] says the experts where it is given."""
    weights, indices = [], []
    for t, token in enumerate(x):
        s = SCORES[rule.scoring](weight @ token)
        choice = s + bias
        if rule.topk_group < rule.n_group:
            groups = choice.reshape(rule.n_group, -1)
            tops = [g.max() if rule.group_score == "max" else np.sort(g)[-2:].sum() for g in groups]
            kept = best(np.array(tops), rule.topk_group)
            choice = np.array([g if i in kept else np.full_like(g, -np.inf) for i, g in enumerate(groups)]).reshape(-1)
        chosen = best(choice, rule.top_k) if table is None else list(table[t])
        w = s[chosen]
        weights.append((w / (w.sum() + 1e-20) if rule.norm else w) * rule.scale)
        indices.append(chosen)
    return np.array(weights).reshape(-1, rule.top_k), np.array(indices, dtype=np.int64).reshape(-1, rule.top_k)


def swiglu(gate: np.ndarray, up: np.ndarray, limit: float | None) -> np.ndarray:
    if limit is not None:
        gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate / (1 + np.exp(-gate)) * up


def feed_forward(x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray, limit: float | None) -> np.ndarray:
    return down @ swiglu(gate @ x, up @ x, limit)


def mixture(
    x: np.ndarray, weights: np.ndarray, indices: np.ndarray, experts: list[Any], shared: Any, limit: float | None
) -> np.ndarray:
    """experts: (gate, up, down) each; shared: the same or None. Index -1 is no expert."""
    out = np.zeros_like(x)
    for t, k in np.ndindex(indices.shape):
        if indices[t, k] >= 0:
            out[t] += weights[t, k] * feed_forward(x[t], *experts[indices[t, k]], limit)
    if shared is not None:
        out += np.array([feed_forward(token, *shared, limit) for token in x]).reshape(x.shape)
    return out
