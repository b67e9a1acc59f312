"""Reading the configuration of a checkpoint: of transformers 4 and 5, as an object or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIZES = ("hidden_size", "num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_OPTIONS = (
    "q_lora_rank",
    "rope_theta",
    "attention_bias",
    "rope_interleave",
    "rms_norm_eps",
    "max_position_embeddings",
    "index_topk",
    "index_n_heads",
    "index_head_dim",
)


def latent_attention(config: Any) -> dict[str, Any]:
    """Keywords of :class:`~deepseek.attention.MultiHeadLatentAttention`; keys of other parts are ignored."""
    missing = [name for name in _SIZES if read(config, name) is None]
    if missing:
        raise ValueError(f"MultiHeadLatentAttention: the configuration has no {', '.join(missing)}")
    found = {name: read(config, name) for name in (*_SIZES, *_OPTIONS)}
    return {name: value for name, value in found.items() if value is not None} | {"rope_scaling": rope_settings(config)}


def rope_settings(config: Any) -> dict[str, Any] | None:
    """``rope_parameters`` (transformers 5), else ``rope_scaling``."""
    settings = read(config, "rope_parameters")
    if settings is None:
        settings = read(config, "rope_scaling")
    return None if settings is None else dict(settings)


def read(config: Any, name: str) -> Any:
    """The setting, None where there is none."""
    value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    return None if isinstance(value, AttributeError) else value  # transformers marks settings it took away so


def with_original_length(scaling: Mapping[str, Any] | None, length: int | None) -> dict[str, Any] | None:
    """Scaling that says how long the original context was: as long as the model's, unless it does."""
    if scaling is None:
        return None
    given = dict(scaling)
    if given.get("original_max_position_embeddings") is None and length is not None:
        given["original_max_position_embeddings"] = length
    return given


def check_positive(name: str, **sizes: int | None) -> None:
    """Refuses sizes below 1; None means that there is none."""
    for size, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}: {size} must be positive, got {value}")
