"""PyTorch's debugging aid for NaN gradients, for scripts that switch it on: it does nothing here."""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek._binding.once import warn_once

__all__ = ["detect_anomaly", "set_detect_anomaly"]


class set_detect_anomaly:
    """Accepted; switching it on warns once, because NaN gradients are not looked for. Also a context manager.

    Args:
        mode: whether to look for them.
        check_nan: accepted.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        if mode:
            warn_once("autograd.set_detect_anomaly(True)", "gradients are not searched for NaN; see register_hook()")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


class detect_anomaly(set_detect_anomaly):
    """``set_detect_anomaly(True)`` as a context manager.

    Args:
        check_nan: accepted.
    """

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)


guard(__name__)
