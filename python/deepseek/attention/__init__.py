"""Attention for DeepSeek-style models: modules [batch, time, width] -> [batch, time, width] that train and decode.

Functions are in :mod:`~deepseek.attention.functional`, caches in :mod:`~deepseek.attention.caches`; docs/attention.md
says which block to choose.
"""

from deepseek._binding.missing import guard
from deepseek.attention._learning import set_indexer_stage, sum_of_indexer_losses
from deepseek.attention.block_mixture import MixtureOfBlockAttention
from deepseek.attention.caches import (
    BlockMeansCache,
    Cache,
    CompressedCache,
    DenseCache,
    IndexedCache,
    IndexedLatentCache,
    LatentCache,
    NativeSparseCache,
    QuantizedCache,
    SlidingCache,
)
from deepseek.attention.compressed import CompressedAttention
from deepseek.attention.dynamic import DynamicSparseAttention
from deepseek.attention.functional import (
    Attended,
    dynamic_block_attention,
    global_attention,
    local_attention,
    merge_attention,
    mix_weights,
    scaled_dot_product_attention,
    sparse_attention,
)
from deepseek.attention.hierarchical import HierarchicalAttention
from deepseek.attention.hyper_connections import HyperConnection, HyperHead, sinkhorn
from deepseek.attention.indexer import SparseIndexer
from deepseek.attention.latent import MultiHeadLatentAttention
from deepseek.attention.multi_head import MultiHeadAttention
from deepseek.attention.native_sparse import NativeSparseAttention
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.attention.temperature import HeadTemperature, LengthTemperature

__all__ = [
    "Attended",
    "BlockMeansCache",
    "Cache",
    "CompressedAttention",
    "CompressedCache",
    "DenseCache",
    "DynamicSparseAttention",
    "HeadTemperature",
    "HierarchicalAttention",
    "HyperConnection",
    "HyperHead",
    "IndexedCache",
    "IndexedLatentCache",
    "LatentCache",
    "LengthTemperature",
    "MixtureOfBlockAttention",
    "MultiHeadAttention",
    "MultiHeadLatentAttention",
    "NativeSparseAttention",
    "NativeSparseCache",
    "QuantizedCache",
    "RotaryEmbedding",
    "SlidingCache",
    "SparseIndexer",
    "dynamic_block_attention",
    "global_attention",
    "local_attention",
    "merge_attention",
    "mix_weights",
    "scaled_dot_product_attention",
    "set_indexer_stage",
    "sinkhorn",
    "sparse_attention",
    "sum_of_indexer_losses",
]

guard(__name__)
