"""Names of the published DeepSeek-V4 checkpoints beside those of the modules here (which are transformers')."""

from __future__ import annotations

from collections.abc import Mapping

from deepseek import Tensor
from deepseek._binding.missing import guard

__all__ = ["ATTENTION_NAMES", "HYPER_CONNECTION_NAMES", "attention_state_from_hub"]

_COMPRESSOR = {
    "wkv.weight": "kv_proj.weight",
    "wgate.weight": "gate_proj.weight",
    "ape": "position_bias",
    "norm.weight": "kv_norm.weight",
}
# Below layers.N.attn there: below layers.N.self_attn here.
ATTENTION_NAMES: dict[str, str] = {
    "wq_a.weight": "q_a_proj.weight",
    "q_norm.weight": "q_a_norm.weight",
    "wq_b.weight": "q_b_proj.weight",
    "wkv.weight": "kv_proj.weight",
    "kv_norm.weight": "kv_norm.weight",
    "wo_a.weight": "o_a_proj.weight",
    "wo_b.weight": "o_b_proj.weight",
    "attn_sink": "sinks",
    **{f"compressor.{hub}": f"compressor.{own}" for hub, own in _COMPRESSOR.items()},
    **{f"indexer.compressor.{hub}": f"compressor.indexer.{own}" for hub, own in _COMPRESSOR.items()},
    "indexer.wq_b.weight": "compressor.indexer.q_b_proj.weight",
    "indexer.weights_proj.weight": "compressor.indexer.scorer.weights_proj.weight",
}
# Below layers.N, and of the whole model for the head.
HYPER_CONNECTION_NAMES: dict[str, str] = {
    **{f"hc_attn_{name}": f"attn_hc.{name}" for name in ("fn", "base", "scale")},
    **{f"hc_ffn_{name}": f"ffn_hc.{name}" for name in ("fn", "base", "scale")},
    **{f"hc_head_{name}": f"hc_head.hc_{name}" for name in ("fn", "base", "scale")},
}


def attention_state_from_hub(state: Mapping[str, Tensor], layer_idx: int) -> dict[str, Tensor]:
    """The state dict of a layer's :class:`~deepseek.attention.CompressedAttention`, of a published checkpoint.

    Args:
        state: Tensors by the checkpoint's names, of all layers or some.
        layer_idx: Number of the layer.

    Raises:
        ValueError: the layer is not there, or a tensor of it has no counterpart (as scales of quantized weights:
            dequantize first).
    """
    prefix = f"layers.{layer_idx}.attn."
    names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
    if not names:
        raise ValueError(f"the checkpoint has no tensors {prefix}*")
    unknown = [name for name in names if name not in ATTENTION_NAMES]
    if unknown:
        raise ValueError(
            f"{prefix}{unknown[0]} has no counterpart in CompressedAttention; quantized weights must be "
            "dequantized first"
        )
    return {ATTENTION_NAMES[name]: state[prefix + name] for name in names}


guard(__name__)
