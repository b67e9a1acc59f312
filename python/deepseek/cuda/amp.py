"""Old names of mixed precision on a GPU. Without one they are switched off, as in PyTorch."""

from __future__ import annotations

import deepseek.amp
from deepseek._missing import guard
from deepseek._once import warn_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek import dtype

__all__ = ["GradScaler", "autocast"]

_WHY = "there is no GPU; on the CPU use deepseek.amp, with device 'cpu'"


class GradScaler(deepseek.amp.GradScaler):
    """:class:`deepseek.amp.GradScaler`, switched off; warns once when ``enabled`` asks for it.

    Args:
        init_scale, growth_factor, backoff_factor, growth_interval: as there.
        enabled: False avoids the warning.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if enabled:
            warn_once("cuda.amp.GradScaler", _WHY)
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled=False)


class autocast(deepseek.amp.autocast):
    """:class:`deepseek.amp.autocast`, switched off; warns once when ``enabled`` asks for it.

    Args:
        enabled: False avoids the warning.
        dtype, cache_enabled: accepted.
    """

    def __init__(self, enabled: bool = True, dtype: dtype | None = None, cache_enabled: bool = True) -> None:
        if enabled:
            warn_once("cuda.amp.autocast", _WHY)
        super().__init__("cuda", enabled=False)


guard(__name__)
