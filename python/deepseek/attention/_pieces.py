"""Queries a few thousand at a time: what keeps the memory of a long prefill near that of its keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import deepseek
from deepseek import Tensor
from deepseek.attention._sequence import Batch

QUERIES_AT_ONCE = 2048
_RECORDED_AT_ONCE = 1024  # whose gradients exist at a time: less memory, no slower


class Piece(NamedTuple):
    """Some of the tokens of a batch, as queries.

    Attributes:
        x: [batch, time, width].
        start: Place of the first one among the keys.
        positions: int64 [time] or [batch, time], or None: they follow ``start``.
        mask: Pairs [batch or 1, heads or 1, time, keys], or None.
        tags: One value for each sequence, or None.
    """

    x: Tensor
    start: int
    positions: Tensor | None = None
    mask: Tensor | None = None
    tags: Sequence[Any] | None = None

    @classmethod
    def of(cls, batch: Batch) -> Piece:
        """All tokens of a batch; made before they enter the cache."""
        return cls(batch.x, batch.start, batch.positions, batch.mask, batch.tags)

    def part(self, begin: int, end: int) -> Piece:
        """The tokens begin … end - 1 of it."""
        positions = None if self.positions is None else self.positions[..., begin:end]
        mask = None if self.mask is None else self.mask[:, :, begin:end]
        return Piece(self.x[:, begin:end], self.start + begin, positions, mask, self.tags)


def in_pieces(piece: Piece, attend: Callable[[Piece], Tensor], *, always: bool = False) -> Tensor:
    """``attend(piece)`` [batch, time, width], a few thousand tokens at a time.

    A token's result does not depend on those beside it, so the bits are the same. Where gradients are recorded each
    piece adds its own to those of all keys and values: by default all is one piece then, with ``always`` it is not.
    """
    time, recorded = piece.x.shape[1], deepseek.is_grad_enabled()
    size = _RECORDED_AT_ONCE if recorded else QUERIES_AT_ONCE
    if time <= size or (recorded and not always):
        return attend(piece)
    return deepseek.cat([attend(piece.part(at, min(at + size, time))) for at in range(0, time, size)], dim=1)
