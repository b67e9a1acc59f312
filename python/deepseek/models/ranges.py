"""Ranges of numeric settings, declared where the setting is and checked in one place."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers a setting may have; both limits are finite, so infinities and NaN lie outside.

    Attributes:
        low: Lowest number.
        high: Highest number.
        above: ``low`` itself is outside.
        below: ``high`` itself is outside.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        low = f"above {_number(self.low)}" if self.above else f"at least {_number(self.low)}"
        return f"{low} and {'below' if self.below else 'at most'} {_number(self.high)}"


@dataclass(frozen=True)
class Choices:
    """Words a setting may be."""

    words: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def setting(
    default: Any,
    low: float,
    high: float,
    *,
    above: bool = False,
    below: bool = False,
    shapes: bool | tuple[str, ...] = True,
    of: tuple[str, ...] = (),
) -> Any:
    """A field of a dataclass whose value (or whose every item, for a tuple) lies in a range.

    Args:
        default: Its default.
        low, high, above, below: As in :class:`Range`.
        shapes: For a model's setting: which weights there are, or their shapes, depend on it; or the kinds of attention
            where that is so.
        of: For a model's setting: the kinds of attention or feed-forward that read it; empty: all.
    """
    return field(default=default, metadata={"range": Range(low, high, above, below), "shapes": shapes, "of": of})


def choice(default: str, *words: str) -> Any:
    """A field of a dataclass whose value is one of some words; which weights there are depends on it."""
    return field(default=default, metadata={"range": Choices(words), "shapes": True})


def check_ranges(section: str, config: Any, error: type[ValueError]) -> None:
    """Raises ``error`` that names the first setting of ``config`` outside its range, and the range."""
    for item in fields(config):
        allowed = item.metadata.get("range")
        value = getattr(config, item.name)
        many = isinstance(value, tuple)
        if allowed is not None and not all(number in allowed for number in (value if many else (value,))):
            given = list(value) if many else value
            raise error(f"{section}.{item.name} must{' all' * many} be {allowed}, got {given}")
