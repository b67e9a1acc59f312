"""Warnings that are given once in a process, for settings that scripts carry over and that do nothing here."""

from __future__ import annotations

import sys

_given: set[str] = set()


def warn_once(setting: str, why: str) -> None:
    """Say once that ``setting`` has no effect, and why, at the line outside this package that asked for it."""
    if setting in _given:
        return
    _given.add(setting)
    import warnings

    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("deepseek."):
        level, frame = level + 1, frame.f_back
    warnings.warn(f"{setting} has no effect: {why}", UserWarning, stacklevel=level)
