"""Attention for DeepSeek-style models: modules [batch, time, width] -> [batch, time, width] that train and decode.

Functions are in :mod:`~deepseek.attention.functional`, caches in :mod:`~deepseek.attention.caches`; docs/attention.md
says which block to choose.
"""

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.attention._learning import set_indexer_stage as set_indexer_stage
from deepseek.attention._learning import sum_of_indexer_losses as sum_of_indexer_losses
from deepseek.attention.block_mixture import MixtureOfBlockAttention as MixtureOfBlockAttention
from deepseek.attention.caches import BlockMeansCache as BlockMeansCache
from deepseek.attention.caches import Cache as Cache
from deepseek.attention.caches import CompressedCache as CompressedCache
from deepseek.attention.caches import DenseCache as DenseCache
from deepseek.attention.caches import IndexedCache as IndexedCache
from deepseek.attention.caches import IndexedLatentCache as IndexedLatentCache
from deepseek.attention.caches import LatentCache as LatentCache
from deepseek.attention.caches import NativeSparseCache as NativeSparseCache
from deepseek.attention.caches import QuantizedCache as QuantizedCache
from deepseek.attention.caches import SlidingCache as SlidingCache
from deepseek.attention.compressed import CompressedAttention as CompressedAttention
from deepseek.attention.dynamic import DynamicSparseAttention as DynamicSparseAttention
from deepseek.attention.functional import Attended as Attended
from deepseek.attention.functional import dynamic_block_attention as dynamic_block_attention
from deepseek.attention.functional import global_attention as global_attention
from deepseek.attention.functional import local_attention as local_attention
from deepseek.attention.functional import merge_attention as merge_attention
from deepseek.attention.functional import mix_weights as mix_weights
from deepseek.attention.functional import scaled_dot_product_attention as scaled_dot_product_attention
from deepseek.attention.functional import sparse_attention as sparse_attention
from deepseek.attention.hierarchical import HierarchicalAttention as HierarchicalAttention
from deepseek.attention.hyper_connections import HyperConnection as HyperConnection
from deepseek.attention.hyper_connections import HyperHead as HyperHead
from deepseek.attention.hyper_connections import sinkhorn as sinkhorn
from deepseek.attention.indexer import SparseIndexer as SparseIndexer
from deepseek.attention.latent import MultiHeadLatentAttention as MultiHeadLatentAttention
from deepseek.attention.multi_head import MultiHeadAttention as MultiHeadAttention
from deepseek.attention.native_sparse import NativeSparseAttention as NativeSparseAttention
from deepseek.attention.rotary import RotaryEmbedding as RotaryEmbedding
from deepseek.attention.temperature import HeadTemperature as HeadTemperature
from deepseek.attention.temperature import LengthTemperature as LengthTemperature

gather(__name__)
guard(__name__)
