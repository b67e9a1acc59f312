"""What DeepSeek-V4 makes of the tokens beyond its window: one entry for each window of ``ratio`` tokens."""

from __future__ import annotations

import math

import deepseek
from deepseek import Tensor
from deepseek.attention._wide import WideParameters, WideRMSNorm
from deepseek.attention.caches.compressed import WindowRows
from deepseek.attention.compressed.rotation import TailRotation
from deepseek.nn.modules import Linear
from deepseek.nn.parameter import Parameter


class Compressor(WideParameters):
    """Entries of windows: the mean of their tokens' rows, weighted per feature by a softmax over the tokens.

    ``entry_w = kv_norm(sum_j softmax_j(gate_j + position_bias_j) * kv_j)``, its last features turned to the position of
    the window's first token. With ``overlap`` tokens are projected to two series: entry w is made of the first series
    of window w - 1 and the second one of window w, under one softmax. The first window has none before it; what is
    missing has weight 0. (DeepSeek-V4, 2026, sections 2.3.1 and 2.3.2)

    Args:
        hidden_size: Width of the tokens.
        head_dim: Width of an entry.
        ratio: Tokens in a window.
        overlap: Two series, see above.
        eps: Of the norm.
    """

    def __init__(self, hidden_size: int, head_dim: int, ratio: int, overlap: bool, eps: float) -> None:
        super().__init__()
        self.head_dim, self.ratio, self.overlap = head_dim, ratio, overlap
        width = 2 * head_dim if overlap else head_dim
        self.kv_proj = Linear(hidden_size, width, bias=False)
        self.gate_proj = Linear(hidden_size, width, bias=False)
        self.position_bias = Parameter(deepseek.zeros(ratio, width))
        self.kv_norm = WideRMSNorm(head_dim, eps=eps)

    def extend(self, x: Tensor, starts: Tensor, rotation: TailRotation, rows: WindowRows) -> Tensor:
        """Adds tokens.

        Args:
            x: [batch, time, hidden_size].
            starts: Positions [batch, windows] of the first tokens of the windows they complete.
            rotation: Turns entries.
            rows: What is remembered; grows.

        Returns:
            All entries so far, [batch, windows, head_dim].
        """
        kv, gate, first, windows = rows.append(self.kv_proj(x), self.gate_proj(x))
        if windows == 0:
            return rows.entries.append(kv[..., : self.head_dim])[0]
        pooled = self.kv_norm(self._pool(kv, gate, first, windows)).unsqueeze(2)
        return rows.entries.append(rotation.turn(pooled, rotation.tables(starts, self.head_dim)).squeeze(2))[0]

    def _pool(self, kv: Tensor, gate: Tensor, first: int, windows: int) -> Tensor:
        """Weighted means [batch, windows, head_dim] of rows as :meth:`WindowRows.append` gives them."""
        dtype = kv.dtype
        exact = deepseek.promote_types(dtype, deepseek.float32)
        kv, gate = (t.unflatten(1, (-1, self.ratio)).to(exact) for t in (kv, gate))
        gate = gate + self.position_bias.to(exact)
        if self.overlap:
            kv, gate = self._overlapped(kv, 0.0, first), self._overlapped(gate, -math.inf, first)
        return (kv * gate.softmax(dim=2)).sum(dim=2).to(dtype)

    def _overlapped(self, x: Tensor, missing: float, first: int) -> Tensor:
        """[batch, windows, 2 ratio, head_dim]: the first series of the window before, the second of its own."""
        before, own = x[..., : self.head_dim], x[..., self.head_dim :]
        if first > 0:  # x begins with the window before
            own = own[:, 1:]
        else:
            before = deepseek.cat([deepseek.full_like(before[:, :1], missing), before], dim=1)
        return deepseek.cat([before[:, :-1], own], dim=2)
