"""Caches: what attention remembers of a sequence between calls. Start a sequence with an empty one for each layer."""

from deepseek._binding.missing import guard
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.blocks import BlockMeansCache
from deepseek.attention.caches.compressed import CompressedCache
from deepseek.attention.caches.index_keys import IndexKeys, IndexRows
from deepseek.attention.caches.indexed import IndexedCache
from deepseek.attention.caches.key_value import DenseCache, KeysValues, QuantizedCache, SlidingCache
from deepseek.attention.caches.latent import IndexedLatentCache, LatentCache
from deepseek.attention.caches.native_sparse import NativeSparseCache

__all__ = [
    "BlockMeansCache",
    "Cache",
    "CompressedCache",
    "DenseCache",
    "IndexKeys",
    "IndexRows",
    "IndexedCache",
    "IndexedLatentCache",
    "KeysValues",
    "LatentCache",
    "NativeSparseCache",
    "QuantizedCache",
    "SlidingCache",
]

guard(__name__)
