"""Caches: what attention remembers of a sequence between calls. Start a sequence with an empty one for each layer."""

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.attention.caches.base import Cache as Cache
from deepseek.attention.caches.blocks import BlockMeansCache as BlockMeansCache
from deepseek.attention.caches.compressed import CompressedCache as CompressedCache
from deepseek.attention.caches.index_keys import IndexKeys as IndexKeys
from deepseek.attention.caches.index_keys import IndexRows as IndexRows
from deepseek.attention.caches.indexed import IndexedCache as IndexedCache
from deepseek.attention.caches.key_value import DenseCache as DenseCache
from deepseek.attention.caches.key_value import KeysValues as KeysValues
from deepseek.attention.caches.key_value import QuantizedCache as QuantizedCache
from deepseek.attention.caches.key_value import SlidingCache as SlidingCache
from deepseek.attention.caches.latent import IndexedLatentCache as IndexedLatentCache
from deepseek.attention.caches.latent import LatentCache as LatentCache
from deepseek.attention.caches.native_sparse import NativeSparseCache as NativeSparseCache

gather(__name__)
guard(__name__)
