"""Named results of ops with more than one, such as ``max(x, dim)`` -> (values, indices).

The types are made by the core on first use; ``type(deepseek.max(x, 0))`` is the one of ``max``.
"""

from __future__ import annotations

from deepseek._binding.missing import guard

__all__: list[str] = []

guard(__name__)
