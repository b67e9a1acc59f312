"""The cache of native sparse attention: what its three branches remember."""

from __future__ import annotations

from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.key_value import KeysValues
from deepseek.attention.caches.stream import Stream, append_both


@public
class NativeSparseCache(Cache):
    """Keys and values of all tokens for the selected branch, of the last ones for the window, and compressed ones.

    Compressed rows are made as their blocks become whole; of what they are made of only the last
    ``compress_block - 1`` tokens are kept, of the window's ``window - 1`` (in chunks of 512), and ``rewind`` more.

    Args:
        compress_block: Tokens a compressed row stands for.
        compress_stride: Tokens from one compressed row to the next.
        window: A query's window sees keys less than this many positions away.
        shared: The branches share keys and values, so that the window reads those of the selected branch.
        rewind: How far :meth:`truncate` can go back.
    """

    def __init__(
        self,
        compress_block: int = 32,
        compress_stride: int = 16,
        window: int = 512,
        shared: bool = False,
        rewind: int = 0,
    ) -> None:
        super().__init__()
        if min(compress_block, compress_stride, window) < 1 or rewind < 0:
            raise ValueError(
                "compress_block, compress_stride and window must be positive and rewind not negative, got "
                f"{compress_block}, {compress_stride}, {window} and {rewind}"
            )
        self.compress_block, self.compress_stride = compress_block, compress_stride
        self.window, self.shared, self.rewind = window, shared, rewind
        self._raw_keys, self._raw_values = (Stream(compress_block - 1, rewind, align=1) for _ in range(2))
        self._compressed_keys, self._compressed_values = Stream(), Stream()
        self._keys, self._values = Stream(), Stream()
        self._window_keys, self._window_values = (Stream(window - 1, rewind) for _ in range(2))

    @property
    def compressed(self) -> int:
        """Compressed rows so far."""
        return self._compressed_keys.length

    def append_raw(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Adds what compressed rows are made of, [batch, key_heads, time, E]; returns what is in memory."""
        all_keys, all_values, first = append_both(self._raw_keys, keys, self._raw_values, values)
        return KeysValues(all_keys, all_values, first)

    def append_compressed(self, keys: Tensor, values: Tensor) -> None:
        """Adds compressed rows [batch, key_heads, rows, E]."""
        self._compressed_keys.append(keys)
        self._compressed_values.append(values)

    def compressed_rows(self) -> tuple[Tensor, Tensor] | None:
        """All compressed keys and values; None while there are none."""
        keys, values = self._compressed_keys.view(), self._compressed_values.view()
        return None if keys is None or values is None else (keys, values)

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Adds keys and values of the selected branch; returns all there are. The tokens count from here on."""
        all_keys, all_values, first = append_both(self._keys, keys, self._values, values)
        self._advance(keys.shape[-2])
        return KeysValues(all_keys, all_values, first)

    def append_window(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Adds keys and values of the window; returns those in memory."""
        all_keys, all_values, first = append_both(self._window_keys, keys, self._window_values, values)
        return KeysValues(all_keys, all_values, first)

    def _streams(self) -> dict[str, Stream]:
        streams = {
            "keys": self._keys,
            "values": self._values,
            "raw_keys": self._raw_keys,
            "raw_values": self._raw_values,
            "compressed_keys": self._compressed_keys,
            "compressed_values": self._compressed_values,
        }
        return (
            streams
            if self.shared
            else {**streams, "window_keys": self._window_keys, "window_values": self._window_values}
        )

    def _rows_after(self, name: str, length: int) -> int:
        if not name.startswith("compressed"):
            return length
        return whole_blocks(length, self.compress_block, self.compress_stride)

    def _fresh(self) -> NativeSparseCache:
        return NativeSparseCache(self.compress_block, self.compress_stride, self.window, self.shared, self.rewind)


def whole_blocks(tokens: int, block: int, stride: int) -> int:
    """How many blocks of ``block`` tokens, one every ``stride``, are whole after ``tokens``."""
    return 0 if tokens < block else (tokens - block) // stride + 1


guard(__name__)
