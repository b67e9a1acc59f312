"""Attention to compressed entries: to all that are complete, or to those that an indexer picked."""

from __future__ import annotations

import deepseek
from deepseek import Tensor
from deepseek.attention.functional import Attended, attend

_WINDOWS = 8  # of queries that go to the kernel together; at most so many of its entries are masked in vain
_LEAST_ROWS = 512


def visible_entries(start: int, time: int, ratio: int) -> Tensor:
    """How many entries the tokens at start … start + time - 1 see, int64 [time].

    Entry w stands for the tokens up to (w + 1) * ratio - 1: token t sees those with ``w < (t + 1) // ratio``.
    """
    return (deepseek.arange(start + 1, start + time + 1)) // ratio


def attend_complete(query: Tensor, entries: Tensor, start: int, ratio: int, scale: float) -> Attended:
    """Attention of each query to the entries of all windows that are complete with its own token.

    Args:
        query: [batch, heads, time, head_dim], of the tokens from ``start`` on.
        entries: [batch, 1, windows, head_dim], keys and values in one.
        start: Place of the first query.
        ratio: Tokens in a window.
        scale: Of the scores.
    """
    time = query.shape[2]
    step = max(_WINDOWS * ratio, _LEAST_ROWS)
    parts = []
    for at in range(0, time, step):
        rows = min(step, time - at)
        least, most = (start + at + 1) // ratio, (start + at + rows) // ratio
        seen = entries[:, :, :most]
        mask = None
        if least < most:
            limits = visible_entries(start + at, rows, ratio).unsqueeze(-1)
            mask = (deepseek.arange(most) < limits).reshape(1, 1, rows, most)
        parts.append(attend(query[:, :, at : at + rows], seen, seen, mask=mask, scale=scale))
    return join(parts)


def join(parts: list[Attended]) -> Attended:
    """Results of queries one after another as one."""
    if len(parts) == 1:
        return parts[0]
    return Attended(deepseek.cat([p.out for p in parts], dim=2), deepseek.cat([p.lse for p in parts], dim=2))
