"""Enough of ``torch.cuda`` for scripts that ask whether there is a GPU: there is none."""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek._binding.once import warn_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from deepseek import Tensor
    from deepseek.cuda import amp as amp

__all__ = [
    "amp",
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state_all",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "memory_allocated",
    "memory_reserved",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_rng_state_all",
    "synchronize",
]


# --- what there is ----------------------------------------------------------------------------------------------------


def is_available() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


def is_initialized() -> bool:
    """False: there is no GPU to initialize."""
    return False


def device_count() -> int:
    """0: deepseek runs on the CPU only."""
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False: there is no GPU that could support it."""
    return False


# --- waiting, memory --------------------------------------------------------------------------------------------------


def synchronize(device: Any = None) -> None:
    """Nothing to wait for, a call on the CPU is done when it returns. Warns once."""
    warn_once("cuda.synchronize()", "there is no GPU, and a call on the CPU is done when it returns")


def empty_cache() -> None:
    """Nothing to free: there is no GPU memory. ``deepseek.empty_cache`` gives the CPU's back."""


def memory_allocated(device: Any = None) -> int:
    """0 bytes: there is no GPU memory. ``deepseek.memory_stats`` counts the CPU's."""
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing to reset: there is no GPU memory. ``deepseek.reset_peak_memory_stats`` resets the CPU's peak."""


# --- random numbers ---------------------------------------------------------------------------------------------------


def manual_seed(seed: int) -> None:
    """Nothing to seed: there is no GPU generator. ``deepseek.manual_seed`` seeds the CPU's."""


def manual_seed_all(seed: int) -> None:
    """Nothing to seed: there is no GPU generator. ``deepseek.manual_seed`` seeds the CPU's."""


def seed() -> None:
    """Nothing to seed: there is no GPU generator. ``deepseek.seed`` seeds the CPU's."""


def seed_all() -> None:
    """Nothing to seed: there is no GPU generator. ``deepseek.seed`` seeds the CPU's."""


def get_rng_state_all() -> list[Tensor]:
    """An empty list: one state for each GPU."""
    return []


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Restore what ``get_rng_state_all`` returned.

    Raises:
        RuntimeError: states of GPUs, which do not exist here.
    """
    if list(new_states):
        _refuse("cuda.set_rng_state_all()")


# --- which GPU --------------------------------------------------------------------------------------------------------


def _refuse(call: str) -> NoReturn:
    raise RuntimeError(f"{call}: there is no CUDA device, deepseek runs on the CPU only")


def current_device() -> NoReturn:
    """Raises RuntimeError: there is no current GPU."""
    _refuse("cuda.current_device()")


def set_device(device: Any) -> NoReturn:
    """Raises RuntimeError: there is no GPU to choose."""
    _refuse("cuda.set_device()")


def get_device_name(device: Any = None) -> NoReturn:
    """Raises RuntimeError: there is no GPU that could have a name."""
    _refuse("cuda.get_device_name()")


def get_device_properties(device: Any = None) -> NoReturn:
    """Raises RuntimeError: there is no GPU that could have properties."""
    _refuse("cuda.get_device_properties()")


def get_device_capability(device: Any = None) -> NoReturn:
    """Raises RuntimeError: there is no GPU that could have a capability."""
    _refuse("cuda.get_device_capability()")


guard(__name__, lazy=("amp",))
