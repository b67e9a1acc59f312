"""``deepseek.layout`` and ``deepseek.memory_format``: how tensors lie in memory, always in row-major order."""

from __future__ import annotations

from deepseek._binding.once import warn_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "channels_last",
    "channels_last_3d",
    "contiguous_format",
    "layout",
    "memory_format",
    "preserve_format",
    "strided",
]


class layout:
    """How a tensor's memory is organised; there is one layout, ``deepseek.strided``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"deepseek.{self._name}"


class memory_format(layout):
    """An order of dims in memory, for arguments of that name: new tensors are always in row-major order here.

    Args:
        name: as in ``deepseek.<name>``.
        dims: of the tensors that channels-last formats are for.
    """

    def __init__(self, name: str, dims: int = 0) -> None:
        super().__init__(name)
        self.dims = dims
        self.is_channels_last = dims > 0


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last", 4)
channels_last_3d = memory_format("channels_last_3d", 5)


def check_memory_format(value: Any) -> None:
    """Warns once that there are no channels-last tensors."""
    if getattr(value, "is_channels_last", False):
        warn_once(f"memory_format={value!r}", "tensors are in row-major order, so only the order of dims counts")
