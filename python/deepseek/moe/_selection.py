"""Pieces of choosing experts that look at more than one score at a time."""

from __future__ import annotations

import math

import deepseek
from deepseek import Tensor


def keep_best_groups(choice: Tensor, groups: int, kept: int, score: str) -> Tensor:
    """``choice`` (T, E) with -inf outside each token's ``kept`` best of ``groups`` groups of neighbours.

    A group is judged by its largest value (``score="max"``) or by the sum of its two largest (``"top2"``), where a
    second one of -inf adds nothing. Minus infinity, because a score plus its bias may be below any other number.
    """
    by_group = choice.view(-1, groups, choice.shape[1] // groups)
    if score == "max":
        value = by_group.amax(dim=-1)
    else:
        first, second = deepseek.topk(by_group, 2, dim=-1)[0].unbind(-1)
        value = first + second.masked_fill(second == -math.inf, 0.0)
    best = deepseek.topk(value, kept, dim=-1)[1]  # (T, kept)
    outside = deepseek.ones(value.shape, dtype=deepseek.bool).scatter(1, best, False)  # (T, groups)
    return by_group.masked_fill(outside.unsqueeze(-1), -math.inf).view(choice.shape)


def without_padding(rows: Tensor, padding: Tensor | None) -> Tensor:
    """Rows (T, D) with zeros where padding (T, 1) is True: what padding holds reaches neither values nor gradients, in
    which 0 times NaN would be NaN."""
    return rows if padding is None else rows.masked_fill(padding, 0.0)


def all_within(numbers: Tensor, low: int, high: int) -> bool:
    """Whether all numbers are from ``low`` to ``high - 1``.

    Asked by an op that refuses others rather than by reading values back, so that :func:`deepseek.jit` can record it;
    in a replay it is the op that raises.
    """
    try:
        deepseek.arange(high - low).index_select(0, numbers.reshape(-1).to(deepseek.int64) - low)
    except IndexError:
        return False
    return True


def over_capacity(chosen: Tensor, empty: Tensor, experts: int, factor: float) -> Tensor:
    """Which slots (T, k) are beyond their expert's capacity ``ceil(factor * tokens * k / experts)``, where what is a
    whole number but for rounding counts as that number.

    All first slots count before second ones, earlier tokens first; empty slots neither count nor are beyond. ``tokens``
    are those that have a slot which is not empty.
    """
    tokens, slots = chosen.shape
    present = (~empty.expand(tokens, slots)).any(dim=-1).sum().to(deepseek.float64)
    capacity = (present * slots * factor / experts * (1 - 1e-12)).ceil()  # 1.1 * 100 / 10 is 11.000000000000002
    ids = chosen.masked_fill(empty, experts).t().reshape(-1)  # slot by slot
    order = deepseek.argsort(ids, stable=True)
    count = deepseek.bincount(ids, minlength=experts + 1)
    start = count.cumsum(0) - count
    rank = deepseek.empty_like(ids)
    rank[order] = deepseek.arange(ids.shape[0]) - start[ids[order]]
    return (rank.view(slots, tokens).t() >= capacity) & ~empty
