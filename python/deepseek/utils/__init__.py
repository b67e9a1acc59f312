"""Helpers around training: ``data`` (data sets and loaders), ``checkpoint``. They load on first use."""

from __future__ import annotations

from deepseek._binding.missing import guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek.utils import checkpoint as checkpoint
    from deepseek.utils import data as data

__all__ = ["checkpoint", "data"]

guard(__name__, lazy=__all__)
