"""A cache of keys and values with the keys by which an indexer selects among them."""

from __future__ import annotations

from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.index_keys import IndexKeys, IndexRows
from deepseek.attention.caches.key_value import FloatCache
from deepseek.attention.caches.stream import Stream


@public
class IndexedCache(FloatCache):  # no DenseCache: a module without an indexer would not fill it
    """Keys and values of all tokens, and the keys of a :class:`~deepseek.attention.SparseIndexer`.

    Args:
        index_dtype: ``"int8"``, or None: as they come.
    """

    def __init__(self, index_dtype: str | None = None) -> None:
        super().__init__()
        self._index = IndexKeys(index_dtype)

    def append_index(self, keys: Tensor) -> IndexRows:
        """Adds the indexer's keys [batch, time, index_head_dim] of the tokens of one :meth:`append`; returns all."""
        return self._index.append(keys)

    def _streams(self) -> dict[str, Stream]:
        return super()._streams() | self._index.streams()

    def _fresh(self) -> IndexedCache:
        return IndexedCache(self._index.dtype)


guard(__name__)
