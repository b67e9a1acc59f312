"""Random configurations of DeepSeek's attention for transformers and for us, with the same weights."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import deepseek
import numpy as np
import torch
from deepseek.attention import MultiHeadLatentAttention

VERSIONS = ("V2", "V3", "V32")


@dataclass
class Oracle:
    """A configuration, transformers' attention and ours."""

    number: int
    version: str
    config: Any
    theirs: torch.nn.Module
    rotary: torch.nn.Module
    ours: MultiHeadLatentAttention
    rng: np.random.Generator

    def __str__(self) -> str:
        return f"{self.version} case {self.number}: {self.ours} {self.config.rope_parameters}"

    def run(self, x: torch.Tensor, real: np.ndarray | None = None) -> torch.Tensor:
        """Their result for x [batch, time, width]; of padding, False in ``real`` [batch, time], it means nothing."""
        batch, time, _ = x.shape
        seen = np.ones((batch, time), dtype=bool) if real is None else real
        positions = torch.from_numpy(np.maximum(seen.cumsum(1) - 1, 0))
        pairs = np.tril(np.ones((time, time), dtype=bool)) & seen[:, None, :]
        pairs = pairs | np.eye(time, dtype=bool)  # padding sees itself, or it would be NaN
        mask = torch.where(torch.from_numpy(pairs)[:, None], 0.0, -torch.inf)
        with stable_topk():
            result: torch.Tensor = self.theirs(
                hidden_states=x, position_embeddings=self.rotary(x, positions), attention_mask=mask
            )[0]
        return result


@contextlib.contextmanager
def stable_topk() -> Iterator[None]:
    """torch does not say which of equal scores it takes; here it takes the first, as we do."""
    usual = torch.Tensor.topk

    def first(scores: torch.Tensor, k: int, dim: int = -1) -> Any:
        values, indices = torch.sort(scores, dim=dim, descending=True, stable=True)
        return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))

    torch.Tensor.topk = first
    try:
        yield
    finally:
        torch.Tensor.topk = usual


def rope(rng: np.random.Generator) -> dict[str, Any]:
    theta = float(rng.choice([10000.0, 500.0, 50000.0]))
    kind = rng.choice(["default", "linear", "yarn", "yarn", "yarn"])
    if kind == "default":
        return {"rope_type": "default", "rope_theta": theta}
    settings: dict[str, Any] = {"rope_type": str(kind), "rope_theta": theta, "factor": float(rng.choice([1.5, 4, 40]))}
    if kind == "linear":
        return settings
    settings["original_max_position_embeddings"] = int(rng.choice([8, 16, 4096]))
    for name, values in (
        ("beta_fast", [32, 8]),
        ("beta_slow", [1, 2]),
        ("mscale", [1.0, 0.707]),
        ("mscale_all_dim", [1.0, 0.707]),
        ("truncate", [True, False]),
        ("attention_factor", [0.9]),
    ):
        if rng.random() < (0.15 if name == "attention_factor" else 0.7):
            settings[name] = rng.choice(values).item()
    return settings


def feed_forward(version: str, rng: np.random.Generator) -> dict[str, Any]:
    """For decoder layers: the first is dense, the second a mixture of experts."""
    groups = int(rng.choice([1, 2, 3]))
    settings = {
        "num_hidden_layers": 2,
        "first_k_dense_replace": 1,
        "intermediate_size": 32,
        "moe_intermediate_size": 12,
        "n_routed_experts": groups * 4,
        "num_experts_per_tok": int(rng.integers(1, 5)),
        "n_shared_experts": int(rng.integers(1, 3)),
        "n_group": groups,
        "topk_group": int(rng.integers(1, groups + 1)),
        "routed_scaling_factor": float(rng.choice([1.0, 2.5])),
    }
    if version == "V2":
        settings["topk_method"] = "greedy" if groups == 1 else "group_limited_greedy"
    return settings


def random_oracle(version: str, number: int) -> Oracle:
    """A function of the version and the number alone."""
    rng = np.random.default_rng([number, VERSIONS.index(version)])
    heads = int(rng.integers(1, 6))
    settings: dict[str, Any] = {
        "hidden_size": heads * int(rng.choice([6, 8, 11])),  # V2's configuration insists on a multiple
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": None if version != "V32" and rng.random() < 0.4 else int(rng.choice([8, 12])),
        "kv_lora_rank": int(rng.choice([6, 12, 32])),
        "qk_nope_head_dim": int(rng.choice([4, 8, 10])),
        "qk_rope_head_dim": int(rng.choice([4, 8])),
        "v_head_dim": int(rng.choice([4, 8, 12])),
        "attention_bias": bool(rng.random() < 0.3),
        "rms_norm_eps": float(rng.choice([1e-6, 1e-2])),
        "max_position_embeddings": 64,
        "rope_parameters": rope(rng),
    }
    if version == "V3":
        settings["rope_interleave"] = bool(rng.random() < 0.7)
    if version == "V32":
        settings["index_n_heads"] = int(rng.choice([2, 4, 8]))
        settings["index_head_dim"] = settings["qk_rope_head_dim"] + int(rng.choice([0, 4, 8]))
        settings["index_topk"] = int(rng.choice([1, 4, 9, 50]))
    settings |= feed_forward(version, rng)
    module = importlib.import_module(
        f"transformers.models.deepseek_{version.lower()}.modeling_deepseek_{version.lower()}"
    )
    config = getattr(module, f"Deepseek{version}Config")(**settings)
    config._attn_implementation = "eager"
    torch.manual_seed(number)
    theirs = getattr(module, f"Deepseek{version}Attention")(config, 0)
    with torch.no_grad():
        for p in theirs.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.2)  # norms and biases start as ones and zeros
    ours = MultiHeadLatentAttention.from_config(config)
    ours.load_state_dict(as_ours(theirs))
    rotary = getattr(module, f"Deepseek{version}RotaryEmbedding")(config)
    return Oracle(number, version, config, theirs, rotary, ours, rng)


def as_ours(module: torch.nn.Module) -> dict[str, deepseek.Tensor]:
    return {name: deepseek.tensor(p.detach().numpy()) for name, p in module.state_dict().items()}
