"""Caches of keys and values with what a selector reads beside them: means of blocks, or the keys of an indexer."""

from __future__ import annotations

import deepseek
from deepseek import Tensor
from deepseek.attention.caches.index_keys import IndexKeys, IndexRows
from deepseek.attention.caches.key_value import DenseCache, KeysValues
from deepseek.attention.caches.stream import Stream


class BlockMeansCache(DenseCache):
    """Keys and values of all tokens, and the mean key of each complete block.

    A mean is made once, when its block is complete, of the keys that the cache holds; it has no gradient.

    Args:
        block_size: Keys in a block.

    Raises:
        ValueError: ``block_size`` is not positive.
    """

    def __init__(self, block_size: int = 64) -> None:
        if block_size < 1:
            raise ValueError(f"BlockMeansCache: block_size must be positive, got {block_size}")
        super().__init__()
        self.block_size = block_size
        self._means = Stream()

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Adds keys [batch, key_heads, time, E] and values [batch, key_heads, time, Ev]; returns all there are."""
        held = super().append(keys, values)
        size, done, complete = self.block_size, self._means.length, self.length // self.block_size
        if complete > done:
            with deepseek.no_grad():
                blocks = held.keys[..., done * size : complete * size, :].detach()
                self._means.append(blocks.unflatten(-2, (complete - done, size)).mean(dim=-2))
        return held

    def means(self) -> Tensor | None:
        """[batch, key_heads, length // block_size, E]; None before the first block is complete."""
        return self._means.view()

    def _streams(self) -> dict[str, Stream]:
        return super()._streams() | {"means": self._means}

    def _rows_after(self, name: str, length: int) -> int:
        return length // self.block_size if name == "means" else length

    def _fresh(self) -> BlockMeansCache:
        return BlockMeansCache(self.block_size)


class IndexedCache(DenseCache):
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
