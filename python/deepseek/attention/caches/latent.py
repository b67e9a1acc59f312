"""The caches of multi-head latent attention: one short row a token instead of keys and values of every head."""

from __future__ import annotations

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.index_keys import IndexKeys, IndexRows
from deepseek.attention.caches.stream import Stream
from deepseek.nn import functional as F

_TILE = 128  # numbers of a latent that share a scale
_LARGEST = 448.0  # of float8_e4m3fn


@public
class LatentCache(Cache):
    """Normed latents with the rotated shared key behind them: kv_lora_rank + qk_rope_head_dim values a token.

    576 in the shape of DeepSeek-V3, where expanded keys and values are 40,960. (DeepSeek-V2, 2024, section 2.1)

    Args:
        dtype: None, as they come; or ``"fp8"``: the latent in float8_e4m3fn with a float32 scale for every 128 numbers,
            the shared key in bfloat16, 656 bytes a token in the shape of V3. (FlashMLA, 2025) All are read by way of
            the dtype that came in, so decoding takes longer than from a cache without it; no gradients.
        rope: Width of the shared key (for ``"fp8"``).
    """

    def __init__(self, dtype: str | None = None, rope: int = 64) -> None:
        if dtype not in (None, "fp8"):
            raise ValueError(f"latents are held as they come (None) or as 'fp8', got {dtype!r}")
        super().__init__()
        self.dtype, self.rope = dtype, rope
        self._latents, self._scale, self._key = (Stream() for _ in range(3))

    def append(self, latents: Tensor) -> Tensor:
        """Adds latents [batch, time, kv_lora_rank + qk_rope_head_dim]; returns all there are, as they are held.

        Raises:
            RuntimeError: the cache holds fp8, gradients are recorded and latents require one.
        """
        held = self._latents.append(latents)[0] if self.dtype is None else self._append_fp8(latents)
        self._advance(latents.shape[-2])
        return held

    def _append_fp8(self, latents: Tensor) -> Tensor:
        if deepseek.is_grad_enabled() and latents.requires_grad:
            raise RuntimeError("a cache in fp8 has no gradients; decode under deepseek.no_grad(), or use dtype=None")
        rank = latents.shape[-1] - self.rope
        with deepseek.no_grad():
            tiles = F.pad(latents[..., :rank].to(deepseek.float32), (0, -rank % _TILE)).unflatten(-1, (-1, _TILE))
            most = tiles.abs().amax(dim=-1) / _LARGEST
            scale = deepseek.where(most > 0, most, 1.0)  # [batch, time, tiles]
            codes = (tiles / scale.unsqueeze(-1)).flatten(2)[..., :rank].to(deepseek.float8_e4m3fn)
            key = self._key.append(latents[..., rank:].to(deepseek.bfloat16))[0]
            codes, scale = self._latents.append(codes)[0], self._scale.append(scale)[0]
            wide = F.pad(codes.to(deepseek.float32), (0, -rank % _TILE)).unflatten(-1, (-1, _TILE))
            wide = (wide * scale.unsqueeze(-1)).flatten(2)[..., :rank]
            return deepseek.cat([wide.to(latents.dtype), key.to(latents.dtype)], dim=-1)

    def _streams(self) -> dict[str, Stream]:
        latents = {"latents": self._latents}
        return latents if self.dtype is None else latents | {"scale": self._scale, "key": self._key}

    def _fresh(self) -> LatentCache:
        return LatentCache(self.dtype, self.rope)


@public
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


guard(__name__)
