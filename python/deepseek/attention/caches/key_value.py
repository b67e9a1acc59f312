"""Caches of keys and values: all of them, those of a window, and in few bits."""

from __future__ import annotations

from typing import NamedTuple

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.stream import Stream, append_both
from deepseek.nn import functional as F


@public
class KeysValues(NamedTuple):
    """What attention reads.

    Attributes:
        keys: [batch, key_heads, time, E].
        values: [batch, key_heads, time, Ev].
        first: Position of the first of them.
        key_scale, value_scale: [batch, key_heads, time] where keys and values are int8, else None.
    """

    keys: Tensor
    values: Tensor
    first: int = 0
    key_scale: Tensor | None = None
    value_scale: Tensor | None = None


class FloatCache(Cache):
    """Keys and values in the dtype they come in, in two streams of equal reach."""

    def __init__(self, reach: int | None = None, rewind: int = 0) -> None:
        super().__init__()
        self._keys, self._values = (Stream(reach, rewind) for _ in range(2))

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Adds keys [batch, key_heads, time, E] and values [batch, key_heads, time, Ev]; returns all in memory."""
        all_keys, all_values, first = append_both(self._keys, keys, self._values, values)
        self._advance(keys.shape[-2])
        return KeysValues(all_keys, all_values, first)

    def _streams(self) -> dict[str, Stream]:
        return {"keys": self._keys, "values": self._values}


@public
class DenseCache(FloatCache):
    """Keys and values of all tokens, in the dtype they come in."""

    def __init__(self) -> None:
        super().__init__()

    def _fresh(self) -> DenseCache:
        return DenseCache()


@public
class SlidingCache(FloatCache):  # no DenseCache: who needs all keys must not get this one
    """Keys and values of the last tokens: memory for ``window + rewind`` (and up to 512 more), however many come.

    Args:
        window: A query sees keys less than this many positions away.
        rewind: How far :meth:`truncate` can go back.
    """

    def __init__(self, window: int, rewind: int = 0) -> None:
        if window < 1 or rewind < 0:
            raise ValueError(f"window must be positive and rewind not negative, got {window} and {rewind}")
        super().__init__(window - 1, rewind)
        self.window, self.rewind = window, rewind

    def _fresh(self) -> SlidingCache:
        return SlidingCache(self.window, self.rewind)


@public
class QuantizedCache(Cache):
    """Keys and values in 8 bits: half the memory of bfloat16, a quarter of float32.

    Attention reads what the cache holds for the new tokens too, so decoding gives the bits of a prefill with such a
    cache. No gradients.

    Args:
        dtype: ``"int8"`` (one scale a row; the attention kernel reads it as it is) or ``"fp8"`` (float8_e4m3fn with one
            scale a row; read by way of the dtype that came in).
    """

    def __init__(self, dtype: str = "int8") -> None:
        if dtype not in ("int8", "fp8"):
            raise ValueError(f"a quantized cache holds 'int8' or 'fp8', got {dtype!r}")
        super().__init__()
        self.dtype = dtype
        self._keys, self._key_scale, self._values, self._value_scale = (Stream() for _ in range(4))

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Adds keys [batch, key_heads, time, E] and values [batch, key_heads, time, Ev]; returns all, as they are held.

        Raises:
            RuntimeError: gradients are recorded and keys or values require one.
        """
        if deepseek.is_grad_enabled() and (keys.requires_grad or values.requires_grad):
            raise RuntimeError("a quantized cache has no gradients; decode under deepseek.no_grad(), or use DenseCache")
        with deepseek.no_grad():
            key_codes, key_scale = self._add(self._keys, self._key_scale, keys)
            value_codes, value_scale = self._add(self._values, self._value_scale, values)
        self._advance(keys.shape[-2])
        if self.dtype == "int8":
            return KeysValues(key_codes, value_codes, 0, key_scale.squeeze(-1), value_scale.squeeze(-1))
        wide = [
            (codes.to(deepseek.float32) * scale).to(given.dtype)
            for codes, scale, given in ((key_codes, key_scale, keys), (value_codes, value_scale, values))
        ]
        return KeysValues(wide[0], wide[1])

    def _add(self, codes: Stream, scales: Stream, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self.dtype == "int8":
            new, scale = F.quantize_rows(rows)
        else:
            most = rows.abs().amax(dim=-1).to(deepseek.float32) / 448.0  # the largest number of float8_e4m3fn
            scale = deepseek.where(most > 0, most, 1.0)
            new = (rows.to(deepseek.float32) / scale.unsqueeze(-1)).to(deepseek.float8_e4m3fn)
        return codes.append(new)[0], scales.append(scale.unsqueeze(-1))[0]

    def _streams(self) -> dict[str, Stream]:
        return {
            "keys": self._keys,
            "key_scale": self._key_scale,
            "values": self._values,
            "value_scale": self._value_scale,
        }

    def _fresh(self) -> QuantizedCache:
        return QuantizedCache(self.dtype)


guard(__name__)
