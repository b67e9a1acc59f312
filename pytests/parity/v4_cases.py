"""Random DeepSeek-V4 configurations, with transformers' modules, ours with the same weights, and inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import deepseek
import numpy as np
import torch
from deepseek.attention import CompressedAttention
from transformers import DeepseekV4Config
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as v4

LAYER_TYPES = ("sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention")


@dataclass
class AttentionCase:
    config: Any
    theirs: Any
    ours: CompressedAttention
    x: np.ndarray
    grad: np.ndarray

    def tensors(self) -> tuple[torch.Tensor, deepseek.Tensor]:
        return torch.tensor(self.x).requires_grad_(), deepseek.tensor(self.x).requires_grad_()


def random_config(number: int, layer_type: str, **more: Any) -> Any:
    """A configuration of one layer."""
    rng = np.random.default_rng([number, LAYER_TYPES.index(layer_type)])
    groups = int(rng.choice([1, 2, 4]))
    rope = int(rng.choice([2, 4, 8]))
    head_dim = rope + int(rng.choice([0, 2, 8, 24]))
    scaling = {}
    if rng.random() < 0.7:
        scaling = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64, "beta_fast": 32,
                   "beta_slow": 1}  # fmt: skip
    return DeepseekV4Config(
        vocab_size=64,
        hidden_size=int(rng.choice([16, 24, 40])),
        num_hidden_layers=1,
        num_attention_heads=groups * int(rng.choice([1, 2, 3])),
        head_dim=head_dim,
        q_lora_rank=int(rng.choice([8, 20])),
        o_lora_rank=int(rng.choice([4, 12])),
        o_groups=groups,
        partial_rotary_factor=rope / head_dim,
        sliding_window=int(rng.integers(1, 20)),
        layer_types=[layer_type],
        compress_rates={
            "compressed_sparse_attention": int(rng.integers(2, 6)),
            "heavily_compressed_attention": int(rng.integers(2, 13)),
        },
        compress_rope_theta=float(rng.choice([160000.0, 1000.0])),
        rope_theta=float(rng.choice([10000.0, 100.0])),
        rope_parameters=scaling,
        index_n_heads=int(rng.integers(1, 5)),
        index_head_dim=rope + int(rng.choice([0, 4])),
        index_topk=int(rng.integers(1, 9)),
        rms_norm_eps=float(rng.choice([1e-6, 1e-3])),
        attn_implementation="eager",
        **more,
    )


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights; norms near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.dim() == 1 or "position_bias" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)


def weights(module: torch.nn.Module) -> dict[str, deepseek.Tensor]:
    return {name: deepseek.tensor(t.detach().numpy()) for name, t in module.state_dict().items()}


def random_case(number: int, layer_type: str) -> AttentionCase:
    config = random_config(number, layer_type)
    theirs = v4.DeepseekV4Attention(config, 0)
    fill(theirs, number)
    ours = CompressedAttention.from_config(config, 0)
    ours.load_state_dict(weights(theirs))
    rng = np.random.default_rng([number, 7])
    batch, time = int(rng.integers(1, 4)), int(rng.choice([1, 2, 5, 23, 60, 61]))
    x, grad = (rng.normal(size=(batch, time, config.hidden_size)).astype(np.float32) for _ in range(2))
    return AttentionCase(config, theirs, ours, x, grad)


def window_mask(config: Any, real: torch.Tensor) -> torch.Tensor:
    """[batch, 1, time, time] added to the scores; ``real`` bool [batch, time]."""
    time = real.shape[1]
    distance = torch.arange(time).unsqueeze(1) - torch.arange(time)
    seen = (distance >= 0) & (distance < config.sliding_window) & real[:, None, None, :]
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


@contextmanager
def stable_topk() -> Iterator[None]:
    """torch's topk as a stable sort: of equal scores (exact zeros behind the indexer's relu) the first is taken, as
    here. Which one torch's own takes is not defined."""

    def topk(scores: torch.Tensor, k: int, dim: int = -1, **_: Any) -> Any:
        values, indices = scores.sort(dim=dim, descending=True, stable=True)
        return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))

    own, torch.Tensor.topk = torch.Tensor.topk, topk  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.Tensor.topk = own  # type: ignore[method-assign]


def run_theirs(config: Any, layer: Any, x: torch.Tensor, real: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
    """The output of transformers' attention or decoder layer."""
    batch, time = x.shape[:2]
    positions = torch.arange(time).unsqueeze(0).expand(batch, -1)
    rotary = v4.DeepseekV4RotaryEmbedding(config)
    embeddings = {kind: rotary(x, position_ids=positions, layer_type=kind) for kind in ("main", "compress")}
    mask = window_mask(config, torch.ones(batch, time, dtype=torch.bool) if real is None else real)
    with stable_topk():
        result = layer(
            x, position_embeddings=embeddings, position_ids=positions, attention_mask=mask, cache=None, **more
        )
    return result[0] if isinstance(result, tuple) else result


def assert_near(ours: Any, theirs: torch.Tensor, tolerance: float, what: str = "") -> None:
    """To ``tolerance`` of the largest number, or of 1."""
    want = theirs.detach().numpy()
    allowed = tolerance * max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(ours.detach().numpy(), want, rtol=0, atol=allowed, err_msg=what)
