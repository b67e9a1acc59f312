"""Hyper-parameters of the language model, checked where they enter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a :class:`deepseek.models.LanguageModel`.

    The defaults are the model of ``deepseek demo``: bytes in, bytes out.

    Attributes:
        vocab_size: Number of token ids (256: plain bytes).
        dim: Width of the residual stream.
        n_layers: Number of transformer blocks.
        n_heads: Attention heads; ``dim`` must be divisible by it and the quotient must be even (RoPE pairs).
        context: Longest sequence the attention was trained on, in tokens.
        n_routed_experts: Experts the router chooses from; 0 leaves only the shared experts (a dense model).
        n_shared_experts: Experts that every token passes through.
        top_k: Routed experts per token.
        expert_dim: Hidden width of one expert.
        routed_scale: Factor on the normalised gate weights of the routed experts.
        bias_update_rate: Step of the load-balancing bias (DeepSeek-V3, section 2.1.2); 0 turns balancing off.
        ngram_orders: Orders n of the hashed n-gram memories added to the token embedding (DeepSeek Engram).
        ngram_rows: Rows of each n-gram table.
        ngram_dim: Width of one n-gram row.
        rope_theta: Base of the rotary frequencies.
        norm_eps: Epsilon of every RMSNorm.
    """

    vocab_size: int = 256
    dim: int = 64
    n_layers: int = 2
    n_heads: int = 2
    context: int = 256
    n_routed_experts: int = 8
    n_shared_experts: int = 1
    top_k: int = 2
    expert_dim: int = 96
    routed_scale: float = 1.0
    bias_update_rate: float = 0.001
    ngram_orders: tuple[int, ...] = (2, 3, 4, 6, 8)
    ngram_rows: int = 16384
    ngram_dim: int = 32
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "ngram_orders", tuple(self.ngram_orders))
        for name in ("vocab_size", "dim", "n_layers", "n_heads", "context", "expert_dim", "ngram_rows", "ngram_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.n_routed_experts < 0 or self.n_shared_experts < 0 or self.n_routed_experts + self.n_shared_experts == 0:
            raise ValueError(
                "model.n_routed_experts and model.n_shared_experts must not be negative and not both be 0, got "
                f"{self.n_routed_experts} and {self.n_shared_experts}"
            )
        if self.dim % self.n_heads or (self.dim // self.n_heads) % 2:
            raise ValueError(
                f"model.dim must be an even multiple of model.n_heads, got dim={self.dim} and n_heads={self.n_heads}"
            )
        if self.n_routed_experts and not 1 <= self.top_k <= self.n_routed_experts:
            raise ValueError(
                f"model.top_k must be between 1 and model.n_routed_experts={self.n_routed_experts}, got {self.top_k}"
            )
        if any(order < 2 for order in self.ngram_orders):
            raise ValueError(f"model.ngram_orders must all be at least 2, got {list(self.ngram_orders)}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_heads

    def to_dict(self) -> dict[str, Any]:
        """Returns plain scalars and lists, as saved in checkpoints and TOML."""
        return {**asdict(self), "ngram_orders": list(self.ngram_orders)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Builds a config; an unknown name is a ValueError that lists the known ones."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown model setting {unknown[0]!r}; known: {', '.join(known)}")
        return cls(**values)
