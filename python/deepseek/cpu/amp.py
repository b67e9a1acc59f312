"""Old names of mixed precision on the CPU: :class:`deepseek.amp.autocast` with the device left out."""

from __future__ import annotations

import deepseek.amp
from deepseek._binding.missing import guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek import dtype

__all__ = ["GradScaler", "autocast"]


class GradScaler(deepseek.amp.GradScaler):
    """:class:`deepseek.amp.GradScaler` for the CPU.

    Args:
        init_scale, growth_factor, backoff_factor, growth_interval, enabled: as there.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__("cpu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


class autocast(deepseek.amp.autocast):
    """:class:`deepseek.amp.autocast` for the CPU.

    Args:
        enabled, dtype, cache_enabled: as there.
    """

    def __init__(self, enabled: bool = True, dtype: dtype | None = None, cache_enabled: bool = True) -> None:
        super().__init__("cpu", dtype, enabled, cache_enabled)


guard(__name__)
