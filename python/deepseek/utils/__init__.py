"""Helpers around training: ``deepseek.utils.data`` (data sets and loaders). Sub-packages load on first use."""

from __future__ import annotations

from deepseek._missing import guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek.utils import data as data

__all__ = ["data"]

guard(__name__, lazy=__all__)
