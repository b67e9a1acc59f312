"""Mixtures of experts: routers.

``DynamicRouter`` chooses experts for tokens the way DeepSeek-V2, V3, V3.2 and V4 do.
"""

from __future__ import annotations

from deepseek._missing import guard
from deepseek.moe.router import DynamicRouter, RouterOutput

__all__ = ["DynamicRouter", "RouterOutput"]

guard(__name__)
