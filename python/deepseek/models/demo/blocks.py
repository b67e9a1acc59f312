"""The attention and the feed-forward that a configuration names."""

from __future__ import annotations

from typing import Any

from deepseek import nn
from deepseek.attention import (
    CompressedAttention,
    MixtureOfBlockAttention,
    MultiHeadLatentAttention,
    NativeSparseAttention,
)
from deepseek.attention._sequence import SequenceModule
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.models.demo.config import ModelConfig
from deepseek.models.demo.dense_attention import DenseAttention
from deepseek.models.demo.layers import FeedForward
from deepseek.moe import DeepseekMoE


def attention_for(config: ModelConfig, layer: int, rotary: RotaryEmbedding) -> SequenceModule:
    """The attention of layer ``layer``, from 0. Dense layers share ``rotary``."""
    if config.attention == "dense":
        return DenseAttention(config, rotary)
    return _KINDS[config.attention](config, layer)


def feed_forward_for(config: ModelConfig) -> nn.Module:
    """The feed-forward of a layer."""
    if config.ffn == "dense":
        return FeedForward(config.dim, config.ffn_dim)
    if config.routed:
        return DeepseekMoE(
            config.dim,
            config.expert_dim,
            config.n_routed_experts,
            config.top_k,
            n_shared_experts=config.n_shared_experts,
            topk_method="noaux_tc",  # balanced by a bias that only takes part in the choice (DeepSeek-V3)
            scoring_func="sigmoid",
            norm_topk_prob=True,
            routed_scaling_factor=config.routed_scale,
            layout="fused",
        )
    return FeedForward(config.dim, config.expert_dim * config.n_shared_experts)


def _latent(config: ModelConfig, layer: int) -> SequenceModule:
    sparse = config.attention == "dsa"
    return MultiHeadLatentAttention(
        config.dim,
        config.n_heads,
        config.q_lora_rank or None,
        config.kv_lora_rank,
        config.qk_nope_head_dim,
        config.qk_rope_head_dim,
        config.v_head_dim,
        rope_theta=config.rope_theta,
        rms_norm_eps=config.norm_eps,
        index_topk=config.index_topk if sparse else None,
        index_n_heads=config.index_n_heads,
        index_head_dim=config.index_head_dim,
    )


def _moba(config: ModelConfig, layer: int) -> SequenceModule:
    return MixtureOfBlockAttention(
        config.dim,
        config.n_heads,
        block_size=config.block_size,
        top_k=config.selected_blocks - 1,  # beside a query's own
        rope_theta=config.rope_theta,
    )


def _nsa(config: ModelConfig, layer: int) -> SequenceModule:
    return NativeSparseAttention(
        config.dim,
        config.n_heads,
        compress_block=config.block_size,
        compress_stride=config.block_size // 2,
        select_block=config.block_size,
        num_selected=config.selected_blocks,
        window=config.window,
        rope_theta=config.rope_theta,
    )


def _v4(config: ModelConfig, layer: int) -> SequenceModule:
    sparse = layer % 2 == 0
    return CompressedAttention(
        config.dim,
        config.n_heads,
        "compressed_sparse_attention" if sparse else "heavily_compressed_attention",
        head_dim=config.head_dim,
        qk_rope_head_dim=config.qk_rope_head_dim,
        q_lora_rank=config.q_lora_rank,
        o_lora_rank=config.o_lora_rank,
        o_groups=config.o_groups,
        sliding_window=config.window,
        compress_ratio=config.csa_ratio if sparse else config.hca_ratio,
        rope_theta=config.rope_theta,
        compress_rope_theta=config.rope_theta,
        index_n_heads=config.index_n_heads,
        index_head_dim=config.index_head_dim,
        index_topk=config.index_topk,
        rms_norm_eps=config.norm_eps,
    )


_KINDS: dict[str, Any] = {"mla": _latent, "dsa": _latent, "nsa": _nsa, "moba": _moba, "v4": _v4}
