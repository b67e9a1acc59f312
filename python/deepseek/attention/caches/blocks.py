"""A cache of keys and values that also keeps the means of whole blocks of them."""

from __future__ import annotations

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.key_value import KeysValues
from deepseek.attention.caches.stream import Stream, append_both


@public
class BlockMeansCache(Cache):
    """Keys and values, and the mean key of each block as soon as it is whole.

    Args:
        block_size: Tokens in a block.
        values: Keep the means of the values too, for attention to the means: gradients flow through both. Otherwise the
            mean keys only serve a choice and have none.
        reach: Keys and values are kept of so many tokens before the next one, at least ``block_size - 1``; None keeps
            all.
        rewind: With a ``reach``, how far :meth:`truncate` can go back.

    Raises:
        ValueError: ``block_size`` is not positive, or ``reach`` too short.
    """

    def __init__(
        self, block_size: int = 64, *, values: bool = False, reach: int | None = None, rewind: int = 0
    ) -> None:
        if block_size < 1 or (reach is not None and reach < block_size - 1):
            raise ValueError(
                f"BlockMeansCache: block_size must be positive and reach at least block_size - 1, got {block_size} and "
                f"{reach}"
            )
        super().__init__()
        self.block_size, self.with_values, self.reach, self.rewind = block_size, values, reach, rewind
        self._keys, self._values = (Stream(reach, rewind) for _ in range(2))
        self._means, self._value_means = Stream(), Stream()

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Adds keys [batch, key_heads, time, E] and values [batch, key_heads, time, Ev]; returns all in memory."""
        all_keys, all_values, first = append_both(self._keys, keys, self._values, values)
        self._advance(keys.shape[-2])
        with deepseek.set_grad_enabled(self.with_values and deepseek.is_grad_enabled()):
            self._add(self._means, all_keys, first)
            if self.with_values:
                self._add(self._value_means, all_values, first)
        return KeysValues(all_keys, all_values, first)

    def means(self) -> Tensor | None:
        """Mean keys [batch, key_heads, length // block_size, E]; None before the first block is whole."""
        return self._means.view()

    def value_means(self) -> Tensor | None:
        """Mean values [batch, key_heads, length // block_size, Ev]; None before the first block or without them."""
        return self._value_means.view()

    def _add(self, means: Stream, rows: Tensor, first: int) -> None:
        blocks = self._length // self.block_size - means.length
        if blocks > 0:
            begin = means.length * self.block_size - first
            means.append(block_means(rows[..., begin:, :], self.block_size, blocks))

    def _streams(self) -> dict[str, Stream]:
        streams = {"keys": self._keys, "values": self._values, "means": self._means}
        return {**streams, "value_means": self._value_means} if self.with_values else streams

    def _rows_after(self, name: str, length: int) -> int:
        return length // self.block_size if name.endswith("means") else length

    def _fresh(self) -> BlockMeansCache:
        return BlockMeansCache(self.block_size, values=self.with_values, reach=self.reach, rewind=self.rewind)


def block_means(rows: Tensor, block_size: int, blocks: int) -> Tensor:
    """Means [..., blocks, E] of the first blocks of rows [..., time, E]; the last may have fewer rows."""
    whole = min(blocks, rows.shape[-2] // block_size)
    means = rows[..., : whole * block_size, :].unflatten(-2, (whole, block_size)).mean(dim=-2)
    if whole == blocks:
        return means
    return deepseek.cat([means, rows[..., whole * block_size :, :].mean(dim=-2, keepdim=True)], dim=-2)


guard(__name__)
