"""The caches of multi-head latent attention: one short row a token instead of keys and values of every head."""

from __future__ import annotations

from deepseek import Tensor
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.index_keys import IndexKeys, IndexRows
from deepseek.attention.caches.stream import Stream


class LatentCache(Cache):
    """Normed latents with the rotated shared key behind them: kv_lora_rank + qk_rope_head_dim values a token.

    576 in the shape of DeepSeek-V3, where expanded keys and values are 40,960. (DeepSeek-V2, 2024, section 2.1)
    """

    def __init__(self) -> None:
        super().__init__()
        self._latents = Stream()

    def append(self, latents: Tensor) -> Tensor:
        """Adds latents [batch, time, kv_lora_rank + qk_rope_head_dim]; returns all there are."""
        result, _ = self._latents.append(latents)
        self._advance(latents.shape[-2])
        return result

    def _streams(self) -> dict[str, Stream]:
        return {"latents": self._latents}

    def _fresh(self) -> LatentCache:
        return LatentCache()


class IndexedLatentCache(Cache):
    """Latents as in :class:`LatentCache`, and the keys of the indexer that selects among them.

    Args:
        index_dtype: ``"int8"`` for 8-bit index keys, None: as they come.
    """

    def __init__(self, index_dtype: str | None = None) -> None:
        super().__init__()
        self._latents, self._index = Stream(), IndexKeys(index_dtype)

    def append(self, latents: Tensor, index_keys: Tensor) -> tuple[Tensor, IndexRows]:
        """Adds latents [batch, time, kv_lora_rank + qk_rope_head_dim] and index keys [batch, time, index_head_dim];
        returns all there are.
        """
        result, _ = self._latents.append(latents)
        rows = self._index.append(index_keys)
        self._advance(latents.shape[-2])
        return result, rows

    def _streams(self) -> dict[str, Stream]:
        return {"latents": self._latents, **self._index.streams()}

    def _fresh(self) -> IndexedLatentCache:
        return IndexedLatentCache(self._index.dtype)
