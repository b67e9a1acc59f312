"""Seeds and generator state, as ``torch.random``."""

from __future__ import annotations

from deepseek import _C
from deepseek._C import Generator, default_generator, initial_seed, manual_seed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek import Tensor

__all__ = [
    "Generator",
    "default_generator",
    "fork_rng",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "seed",
    "set_rng_state",
]


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed."""
    value: int = _C.default_generator.seed()
    return value


def get_rng_state() -> Tensor:
    """State of the default generator: 16 bytes, seed and offset, shape [16], uint8."""
    return _C.default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Set the default generator to a state from :func:`get_rng_state`.

    Raises:
        TypeError: not a uint8 tensor.
        RuntimeError: not 16 bytes.
    """
    _C.default_generator.set_state(new_state)


class fork_rng:
    """Context manager: random numbers drawn inside leave the default generator outside as it was.

    Args:
        devices: accepted for scripts that pass it; there is one generator, the CPU's.
        enabled: False makes it do nothing.
    """

    def __init__(self, devices: object = None, enabled: bool = True, device_type: str = "cpu") -> None:
        self._enabled = enabled
        self._states: list[Tensor] = []

    def __enter__(self) -> None:
        if self._enabled:
            self._states.append(get_rng_state())

    def __exit__(self, *exc: object) -> None:
        if self._enabled:
            set_rng_state(self._states.pop())
