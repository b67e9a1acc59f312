"""Rotary embedding of the last features of wider heads."""

from __future__ import annotations

import deepseek
from deepseek import Tensor
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.nn import functional as F


class TailRotation:
    """Turns the last ``rotary.dim`` features of each head and leaves those before as they are.

    Tables cover the whole head (the others are turned by 0), which is one pass over it instead of two slices and a
    ``cat``. Pairs are 2i and 2i + 1.
    """

    def __init__(self, rotary: RotaryEmbedding) -> None:
        self.rotary = rotary

    def tables(self, positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [..., time, width / 2], of integer positions [..., time], for heads of ``width``."""
        with deepseek.no_grad():
            cos, sin = self.rotary.tables(positions)
            plain = [*positions.shape, (width - self.rotary.dim) // 2]
            return deepseek.cat([deepseek.ones(plain), cos], dim=-1), deepseek.cat([deepseek.zeros(plain), sin], dim=-1)

    def turn(self, x: Tensor, tables: tuple[Tensor, Tensor], *, back: bool = False) -> Tensor:
        """Turns x [batch, time, heads, width] by tables [time or batch, time, width / 2], or back."""
        cos, sin = (t.unsqueeze(-2) for t in tables)
        return F.rope(x, cos, -sin if back else sin, interleaved=True)
