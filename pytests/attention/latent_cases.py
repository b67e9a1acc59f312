"""Small modules of multi-head latent attention, and what they should give."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
from deepseek.attention import MultiHeadLatentAttention
from latent_references import latent_attention, parameters

SIZES: dict[str, Any] = {
    "hidden_size": 20,
    "num_attention_heads": 3,
    "q_lora_rank": 10,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
}
YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8, "mscale": 0.7, "mscale_all_dim": 1.2}
INDEX: dict[str, Any] = {"index_topk": 6, "index_n_heads": 4, "index_head_dim": 8}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "queries of x": {"q_lora_rank": None},
    "bias": {"attention_bias": True},
    "halves": {"rope_interleave": False},
    "yarn": {"rope_scaling": YARN},
    "not causal": {"causal": False},
    "indexer": INDEX,
    "indexer, yarn, not causal": {**INDEX, "rope_scaling": YARN, "causal": False},
}


def make(seed: int = 0, **settings: Any) -> MultiHeadLatentAttention:
    deepseek.manual_seed(seed)
    module = MultiHeadLatentAttention(**{**SIZES, **settings})
    with deepseek.no_grad():
        for name, p in module.named_parameters():
            p.add_(deepseek.randn_like(p) * (0.2 if "norm" in name or p.dim() == 1 else 0.0))
    return module


def tokens(batch: int = 2, time: int = 14, seed: int = 1) -> deepseek.Tensor:
    deepseek.manual_seed(seed)
    return deepseek.randn(batch, time, SIZES["hidden_size"])


def reference(module: MultiHeadLatentAttention, x: deepseek.Tensor, settings: dict[str, Any]) -> np.ndarray:
    return latent_attention(
        parameters(module),
        x.double().numpy(),
        heads=module.num_attention_heads,
        nope=module.qk_nope_head_dim,
        rope=module.qk_rope_head_dim,
        value=module.v_head_dim,
        scaling=settings.get("rope_scaling"),
        interleaved=settings.get("rope_interleave", True),
        causal=settings.get("causal", True),
        index_heads=settings.get("index_n_heads", 0),
        index_topk=settings.get("index_topk", 0),
    )
