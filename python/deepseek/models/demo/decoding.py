"""What decoding with the demo's model remembers between calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepseek import Tensor, cat, zeros
from deepseek.attention.caches.stream import Stream
from deepseek.models.causal_lm import DecodeCache

if TYPE_CHECKING:
    from deepseek.models.demo.language_model import LanguageModel


class DecodeState(DecodeCache):
    """An empty memory for ``model``: a cache of each layer's attention, and the last tokens for the n-gram tables.

    Attributes:
        caches: One for each block, see :mod:`deepseek.attention.caches`.
    """

    def __init__(self, model: LanguageModel) -> None:
        if not hasattr(model, "blocks"):
            raise TypeError(f"DecodeState takes the model it decodes with, got {type(model).__name__}")
        super().__init__(block.new_cache() for block in model.blocks)
        self._history = 0 if model.ngram is None else model.ngram.history
        self._tokens = Stream(self._history, align=1)  # rows [batch, time, 1]

    @property
    def tail(self) -> Tensor | None:
        """The last tokens, int64 [batch, history]; None before the first call."""
        rows = self._tokens.view()
        return None if rows is None else rows[:, -self._history :, 0]

    def extended(self, tokens: Tensor) -> Tensor:
        """Adds tokens [batch, time]; returns them with those before them, [batch, history + time]."""
        rows = tokens.unsqueeze(-1)
        if self._tokens.length == 0:
            rows = cat([zeros(tokens.shape[0], self._history, 1, dtype=tokens.dtype), rows], dim=1)
        held, _ = self._tokens.append(rows)
        return held[:, -(self._history + tokens.shape[1]) :, 0]
