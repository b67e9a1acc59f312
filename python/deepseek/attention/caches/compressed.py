"""The cache of DeepSeek-V4's compressed attention: a window of rows, and one entry for many tokens beyond it."""

from __future__ import annotations

from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.base import Cache
from deepseek.attention.caches.stream import Stream


class WindowRows:
    """What a compressor remembers: rows of the window that is not complete yet, and the entries of those that are.

    Args:
        ratio: Tokens in a window.
        overlap: An entry is made of its own window and the one before it.
        rewind: So many tokens more are kept.

    Attributes:
        kv, gate: Streams [batch, tokens, width] of what the compressor projects tokens to.
        entries: Stream [batch, windows, head_dim].
    """

    def __init__(self, ratio: int, overlap: bool, rewind: int = 0) -> None:
        self.ratio, self.overlap = ratio, overlap
        reach = 2 * ratio - 1 if overlap else ratio - 1
        self.kv, self.gate = (Stream(reach, rewind, align=1) for _ in range(2))
        self.entries = Stream()

    def append(self, kv: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, int, int]:
        """Adds rows [batch, time, width] and returns those of the windows that are complete now.

        Returns:
            Rows of kv and gate [batch, n, width], and the first and the number of the windows completed. With overlap
            the rows of the window before the first come first, if there is one.
        """
        before, after = self.kv.length // self.ratio, (self.kv.length + kv.shape[1]) // self.ratio
        (all_kv, first), (all_gate, _) = self.kv.append(kv), self.gate.append(gate)
        if after == before:
            return kv[:, :0], gate[:, :0], before, 0
        oldest = max(before - 1, 0) if self.overlap else before
        place, rows = oldest * self.ratio - first, (after - oldest) * self.ratio
        return all_kv.narrow(1, place, rows), all_gate.narrow(1, place, rows), before, after - before


@public
class CompressedCache(Cache):
    """Rows of a window and, for all that came before, an entry for ``ratio`` tokens.

    Memory is O(window) plus head_dim / ratio values a token (DeepSeek-V4's two kinds of layers: 512 / 4, with 128 / 4
    for the indexer, and 512 / 128).

    Args:
        window: A query sees rows less than this many positions away.
        ratio: Tokens that an entry stands for; 0: there are no entries.
        overlap: An entry is made of its own window and the one before it.
        indexed: There are entries for an indexer too.
        rewind: How far :meth:`truncate` can go back.
    """

    def __init__(
        self, window: int, ratio: int = 0, *, overlap: bool = False, indexed: bool = False, rewind: int = 0
    ) -> None:
        if window < 1 or ratio < 0 or rewind < 0:
            raise ValueError(
                f"window must be positive, ratio and rewind not negative, got {window}, {ratio} and {rewind}"
            )
        super().__init__()
        self.window, self.ratio, self.overlap, self.indexed, self.rewind = window, ratio, overlap, indexed, rewind
        self._rows = Stream(window - 1, rewind)
        self._positions = Stream(max(ratio - 1, 0), rewind, align=1)
        self.compressor = WindowRows(ratio, overlap, rewind) if ratio else None
        self.indexer = WindowRows(ratio, overlap, rewind) if ratio and indexed else None

    @property
    def kind(self) -> tuple[int, int, bool, bool]:
        """Window, ratio, overlap, indexed: what must be a layer's."""
        return self.window, self.ratio, self.overlap, self.indexed

    def append(self, rows: Tensor) -> tuple[Tensor, int]:
        """Adds rows [batch, 1, time, head_dim], keys and values in one; returns those in memory, with all that the new
        ones see, and the number of the first."""
        return self._rows.append(rows)

    def append_positions(self, positions: Tensor) -> Tensor:
        """Adds positions [batch, time] and returns those of the first tokens of windows, [batch, windows], as many as
        windows are completed by them."""
        length, time = self._positions.length, positions.shape[1]
        held, first = self._positions.append(positions.unsqueeze(-1))
        before, windows = length // self.ratio, (length + time) // self.ratio - length // self.ratio
        return held.squeeze(-1)[:, before * self.ratio - first :: self.ratio][:, :windows]

    def advance(self, tokens: int) -> None:
        """Counts tokens whose rows have been added to all streams."""
        self._advance(tokens)

    def _streams(self) -> dict[str, Stream]:
        streams = {"rows": self._rows}
        if self.ratio:
            streams["positions"] = self._positions
        for name, part in (("compressor", self.compressor), ("indexer", self.indexer)):
            if part is not None:
                streams |= {f"{name}.kv": part.kv, f"{name}.gate": part.gate, f"{name}.entries": part.entries}
        return streams

    def _rows_after(self, name: str, length: int) -> int:
        return length // self.ratio if name.endswith("entries") else length

    def _fresh(self) -> CompressedCache:
        return CompressedCache(self.window, self.ratio, overlap=self.overlap, indexed=self.indexed, rewind=self.rewind)


guard(__name__)
