"""What decoding remembers between calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepseek import Tensor
from deepseek.attention.caches import SlidingCache

if TYPE_CHECKING:
    from deepseek.models.language_model import LanguageModel


class DecodeState:
    """An empty memory for ``model``: a cache of each layer's attention, and the last tokens for the n-gram tables.

    Attributes:
        caches: One for each block, see :mod:`deepseek.attention.caches`.
        tail: The last tokens, int64 [batch, history]; None before the first call.
    """

    def __init__(self, model: LanguageModel) -> None:
        if not hasattr(model, "blocks"):
            raise TypeError(f"DecodeState takes the model it decodes with, got {type(model).__name__}")
        self.caches = [block.new_cache() for block in model.blocks]
        self.tail: Tensor | None = None

    @property
    def position(self) -> int:
        """Tokens seen so far."""
        return self.caches[0].length

    @property
    def runs_on(self) -> bool:
        """Whether no distance between tokens exceeds the trained ones, however many come."""
        return all(isinstance(cache, SlidingCache) for cache in self.caches)

    @property
    def nbytes(self) -> int:
        """Bytes that the caches hold."""
        return sum(cache.nbytes for cache in self.caches)
