"""Enough of ``torch.cuda`` for scripts that ask whether there is a GPU: there is none."""

from __future__ import annotations

from deepseek.utils._nearest import missing_attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["current_device", "device_count", "is_available", "is_bf16_supported", "manual_seed", "manual_seed_all"]


def is_available() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


def device_count() -> int:
    """0: deepseek runs on the CPU only."""
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False: there is no GPU that could support it."""
    return False


def manual_seed(seed: int) -> None:
    """Nothing to seed: there is no GPU generator. ``deepseek.manual_seed`` seeds the CPU's."""


def manual_seed_all(seed: int) -> None:
    """Nothing to seed: there is no GPU generator. ``deepseek.manual_seed`` seeds the CPU's."""


def current_device() -> NoReturn:
    """Raises RuntimeError: there is no current GPU."""
    raise RuntimeError("there is no CUDA device: deepseek runs on the CPU only")


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
