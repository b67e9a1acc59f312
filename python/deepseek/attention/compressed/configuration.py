"""Kinds of DeepSeek-V4 layers, and the settings of one from a checkpoint's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from deepseek.attention._configuration import check_positive, read, rope_settings

SLIDING = "sliding_attention"
SPARSE = "compressed_sparse_attention"
HEAVY = "heavily_compressed_attention"


class LayerKind(NamedTuple):
    """What a layer has beside its window.

    Attributes:
        ratio: Tokens that an entry stands for in the published models; 0: no entries.
        overlap: An entry is made of two windows.
        indexed: An indexer picks entries.
        legacy: Its name in older configurations, ``compress_rate_…``.
    """

    ratio: int
    overlap: bool
    indexed: bool
    legacy: str


LAYER_TYPES = {
    SLIDING: LayerKind(0, False, False, ""),
    SPARSE: LayerKind(4, True, True, "compress_rate_csa"),
    HEAVY: LayerKind(128, False, False, "compress_rate_hca"),
}
_BY_RATIO = {kind.ratio: name for name, kind in LAYER_TYPES.items()}
_PLAIN = (
    "head_dim",
    "q_lora_rank",
    "o_lora_rank",
    "o_groups",
    "sliding_window",
    "index_n_heads",
    "index_head_dim",
    "index_topk",
    "rms_norm_eps",
)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for settings of CompressedAttention that do not fit together."""
    name = "CompressedAttention"
    layer_type = settings["layer_type"]
    if layer_type not in LAYER_TYPES:
        raise ValueError(f"{name}: layer_type must be one of {', '.join(map(repr, LAYER_TYPES))}, got {layer_type!r}")
    sizes = {key: value for key, value in settings.items() if isinstance(value, int)}
    if not LAYER_TYPES[layer_type].ratio:
        sizes.pop("compress_ratio", None)  # says nothing here
    check_positive(name, **sizes)
    if settings["num_attention_heads"] % settings["o_groups"]:
        raise ValueError(
            f"{name}: o_groups must divide num_attention_heads, got {settings['o_groups']} and "
            f"{settings['num_attention_heads']}"
        )
    turned = settings["qk_rope_head_dim"]
    indexed = ["index_head_dim"] if LAYER_TYPES[layer_type].indexed else []
    for key in ("head_dim", *indexed):
        if turned % 2 or settings[key] % 2 or turned > settings[key]:
            raise ValueError(
                f"{name}: the last qk_rope_head_dim features of a head are turned in pairs: it and {key} must be even, "
                f"and it not larger; got {turned} and {settings[key]}"
            )


def settings_from_config(config: Any, layer_idx: int) -> dict[str, Any]:
    """Keyword arguments of CompressedAttention, see its ``from_config``."""

    def get(key: str, default: Any = None) -> Any:
        value = read(config, key)
        return default if value is None else value

    if get("kv_source_layer_ids") is not None:
        raise NotImplementedError(
            "CompressedAttention is DeepSeek-V4's; this configuration (kv_source_layer_ids) is DeepSeek-V4.1's, whose "
            "layers share entries"
        )
    if get("attention_dropout", 0.0):
        raise NotImplementedError(
            f"CompressedAttention has no dropout of attention weights, got attention_dropout={get('attention_dropout')}"
        )
    result: dict[str, Any] = {key: get(key) for key in _PLAIN if get(key) is not None}
    for key in ("hidden_size", "num_attention_heads"):
        if get(key) is None:
            raise ValueError(f"a configuration of DeepSeek-V4 needs {key}")
        result[key] = get(key)
    layer_type = _layer_type(get, layer_idx)
    kind = LAYER_TYPES[layer_type]
    result["layer_type"] = layer_type
    if kind.ratio:
        rates = get("compress_rates", {})
        result["compress_ratio"] = get(kind.legacy, rates.get(layer_type, kind.ratio))
    part = get("partial_rotary_factor")
    turned = get("qk_rope_head_dim")
    if turned is None and part is not None and "head_dim" in result:
        turned = int(result["head_dim"] * part)
    if turned is not None:
        result["qk_rope_head_dim"] = turned
    return result | _rotary_settings(get, rope_settings(config) or {})


def _layer_type(get: Any, layer_idx: int) -> str:
    types, ratios = get("layer_types"), get("compress_ratios")
    if types is None and ratios is None:
        raise ValueError("a configuration of DeepSeek-V4 needs layer_types or compress_ratios")
    given = types if types is not None else ratios
    if not 0 <= layer_idx < len(given):
        raise ValueError(f"layer_idx must be from 0 to {len(given) - 1}, got {layer_idx}")
    if types is not None:
        return str(types[layer_idx])
    if ratios[layer_idx] not in _BY_RATIO:
        raise ValueError(f"compress_ratios must be of {', '.join(map(str, _BY_RATIO))}, got {ratios[layer_idx]}")
    return _BY_RATIO[ratios[layer_idx]]


def _rotary_settings(get: Any, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """rope_theta, compress_rope_theta and rope_scaling of either layout."""
    result = {key: get(key) for key in ("rope_theta", "compress_rope_theta") if get(key) is not None}
    if isinstance(scaling.get("main"), Mapping) and isinstance(scaling.get("compress"), Mapping):
        main, scaling = scaling["main"], scaling["compress"]
        if main.get("rope_type", "default") != "default":
            raise NotImplementedError(f"sliding layers of DeepSeek-V4 have plain rotary frequencies, got {dict(main)}")
        result |= {"rope_theta": main["rope_theta"], "compress_rope_theta": scaling["rope_theta"]}
    settings = {k: v for k, v in scaling.items() if k not in ("rope_theta", "partial_rotary_factor")}
    return result | ({"rope_scaling": settings} if settings else {})
