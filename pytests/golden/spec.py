"""The tiny model of the golden test: what make_record.py (PyTorch) and test_golden.py (deepseek) both build.

Needs numpy alone. Weights and tokens are closed formulas, so that no random generator has to agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = Path(__file__).with_name("record.safetensors")

VOCAB, DIM, HEADS, HEAD_DIM = 24, 12, 2, 6
HIDDEN, EXPERTS, EXPERT_HIDDEN, TOP_K = 16, 4, 6, 2
BATCH, TIME = 2, 12
STEPS = 10
EPS = 1e-6
START = 3  # where the weights begin in their sequence: chosen so that no two experts come close to a tie
ROPE_BASE = 10000.0
ADAMW = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}

_ATTENTION = {"attention_norm": (DIM,), "qkv": (3 * DIM, DIM), "out": (DIM, DIM), "ffn_norm": (DIM,)}

# Block 0 has a SwiGLU feed-forward, block 1 a mixture of experts. The head is tied to the embedding.
SHAPES: dict[str, tuple[int, ...]] = {
    "embedding": (VOCAB, DIM),
    **{f"blocks.0.{name}": shape for name, shape in _ATTENTION.items()},
    "blocks.0.gate": (HIDDEN, DIM),
    "blocks.0.up": (HIDDEN, DIM),
    "blocks.0.down": (DIM, HIDDEN),
    **{f"blocks.1.{name}": shape for name, shape in _ATTENTION.items()},
    "blocks.1.router": (EXPERTS, DIM),
    "blocks.1.gate": (EXPERTS, EXPERT_HIDDEN, DIM),
    "blocks.1.up": (EXPERTS, EXPERT_HIDDEN, DIM),
    "blocks.1.down": (EXPERTS, DIM, EXPERT_HIDDEN),
    "final_norm": (DIM,),
}


def weights() -> dict[str, np.ndarray]:
    """Float64 weights: the fractional parts of multiples of the golden ratio, spread evenly around zero (norms: 1)."""
    made, start = {}, START
    for name, shape in SHAPES.items():
        n = int(np.prod(shape))
        spread = (np.arange(start, start + n, dtype=np.float64) * 0.6180339887498949) % 1.0 - 0.5
        centre, scale = (1.0, 0.2) if name.endswith("norm") else (0.0, 3.0 if name.endswith("router") else 0.8)
        made[name] = (centre + scale * spread).reshape(shape).astype(np.float32).astype(np.float64)
        start += n
    return made


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tokens, targets), each int64 [BATCH, TIME], for every step: a walk through the vocabulary, shifted by one."""
    for step in range(STEPS):
        i = np.arange(BATCH * (TIME + 1), dtype=np.int64).reshape(BATCH, TIME + 1)
        walk = (i * i * 5 + i * 7 + step * step * 3 + step * 11) % VOCAB
        yield walk[:, :-1].copy(), walk[:, 1:].copy()


def rope_table() -> tuple[np.ndarray, np.ndarray]:
    """Float64 cos and sin [TIME, HEAD_DIM / 2]."""
    frequencies = ROPE_BASE ** (-np.arange(0, HEAD_DIM, 2, dtype=np.float64) / HEAD_DIM)
    angles = np.arange(TIME, dtype=np.float64)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)
