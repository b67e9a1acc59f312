"""A cache of keys and values that also keeps the means of whole blocks of them."""

from __future__ import annotations

from typing import NamedTuple

from deepseek import Tensor
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.key_value import KeysValues
from deepseek.attention.caches.stream import Stream


class BlockMeans(NamedTuple):
    """Keys, values and means of the whole blocks so far.

    Attributes:
        held: Keys and values in memory, see :class:`KeysValues`.
        keys: [batch, key_heads, blocks, E], means of the keys of each whole block; None while there is none.
        values: [batch, key_heads, blocks, Ev], those of the values; None where they are not kept.
    """

    held: KeysValues
    keys: Tensor | None
    values: Tensor | None


class BlockMeanCache(Cache):
    """Keys and values, and the mean of each block as soon as it is whole.

    Args:
        block_size: Tokens in a block.
        values: Keep the means of the values too.
        reach: Keys and values are kept of so many tokens before the next one, at least ``block_size - 1``; None keeps
            all.
        rewind: With a ``reach``, how far :meth:`truncate` can go back.
    """

    def __init__(self, block_size: int, *, values: bool = False, reach: int | None = None, rewind: int = 0) -> None:
        if block_size < 1 or (reach is not None and reach < block_size - 1):
            raise ValueError(
                f"block_size must be positive and reach at least block_size - 1, got {block_size} and {reach}"
            )
        super().__init__()
        self.block_size, self.with_values, self.reach, self.rewind = block_size, values, reach, rewind
        self._keys, self._values = (Stream(reach, rewind) for _ in range(2))
        self._key_means, self._value_means = Stream(), Stream()

    def append(self, keys: Tensor, values: Tensor) -> BlockMeans:
        """Adds keys [batch, key_heads, time, E] and values [batch, key_heads, time, Ev]; returns all there are."""
        (all_keys, first), (all_values, _) = self._keys.append(keys), self._values.append(values)
        self._advance(keys.shape[-2])
        key_means = self._add(self._key_means, all_keys, first)
        value_means = self._add(self._value_means, all_values, first) if self.with_values else None
        return BlockMeans(KeysValues(all_keys, all_values, first), key_means, value_means)

    def _add(self, means: Stream, rows: Tensor, first: int) -> Tensor | None:
        blocks = self._length // self.block_size
        if blocks > means.length:
            begin = means.length * self.block_size - first
            return means.append(block_means(rows[..., begin:, :], self.block_size, blocks - means.length))[0]
        return means.view()

    def _streams(self) -> dict[str, Stream]:
        streams = {"keys": self._keys, "values": self._values, "key_means": self._key_means}
        return {**streams, "value_means": self._value_means} if self.with_values else streams

    def _rows_after(self, name: str, length: int) -> int:
        return length // self.block_size if name.endswith("means") else length

    def _fresh(self) -> BlockMeanCache:
        return BlockMeanCache(self.block_size, values=self.with_values, reach=self.reach, rewind=self.rewind)


def block_means(rows: Tensor, block_size: int, blocks: int) -> Tensor:
    """Means [..., blocks, E] of the first whole blocks of rows [..., time, E]."""
    return rows[..., : blocks * block_size, :].unflatten(-2, (blocks, block_size)).mean(dim=-2)
