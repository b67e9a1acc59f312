"""Hyper-parameters of the language model, checked where they enter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from deepseek.models.ranges import check_ranges, setting


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

    vocab_size: int = setting(256, 1, 2**31 - 1)
    dim: int = setting(64, 2, 2**24)
    n_layers: int = setting(2, 1, 2**16)
    n_heads: int = setting(2, 1, 2**16)
    context: int = setting(256, 1, 2**31 - 1, shapes=False)
    n_routed_experts: int = setting(8, 0, 2**16)
    n_shared_experts: int = setting(1, 0, 2**16)
    top_k: int = setting(2, 0, 2**16, shapes=False)
    expert_dim: int = setting(96, 1, 2**24)
    routed_scale: float = setting(1.0, 0, 1e6, above=True, shapes=False)
    bias_update_rate: float = setting(0.001, 0, 1, shapes=False)
    ngram_orders: tuple[int, ...] = setting((2, 3, 4, 6, 8), 2, 64)
    ngram_rows: int = setting(16384, 1, 2**31 - 1)
    ngram_dim: int = setting(32, 1, 2**24)
    rope_theta: float = setting(10000.0, 1, 1e12, shapes=False)
    norm_eps: float = setting(1e-6, 1e-30, 1, shapes=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ngram_orders", tuple(self.ngram_orders))
        check_ranges("model", self, ValueError)
        if self.n_routed_experts + self.n_shared_experts == 0:
            raise ValueError("model.n_routed_experts and model.n_shared_experts must not both be 0")
        if self.dim % self.n_heads or (self.dim // self.n_heads) % 2:
            raise ValueError(
                f"model.dim must be an even multiple of model.n_heads, got dim={self.dim} and n_heads={self.n_heads}"
            )
        if self.n_routed_experts and not 1 <= self.top_k <= self.n_routed_experts:
            raise ValueError(
                f"model.top_k must be between 1 and model.n_routed_experts={self.n_routed_experts}, got {self.top_k}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_heads

    def misfits(self, other: ModelConfig) -> list[str]:
        """Names of the settings by which ``other`` has other weights than this model."""
        names = [item.name for item in fields(self) if item.metadata["shapes"]]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

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
