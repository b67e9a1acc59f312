"""Seeds and generator state, as ``torch.random``."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.missing import guard
from deepseek._C import Generator, default_generator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import Tensor, device

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


_cpp: Any = {name: getattr(Generator, name) for name in dir(Generator) if name == "__init__" or name[0] != "_"}


class _Methods:
    """Generator's methods under signatures that ``help()`` can read, which functions of C++ have not."""

    def __init__(self: Any, device: device | str | None = None) -> None:
        """A stream of its own, started at the seed 0."""
        _cpp["__init__"](self, device)

    def manual_seed(self: Any, seed: int) -> Generator:
        """Restart the stream at ``seed``, of which the low 64 bits count; returns the generator."""
        result: Generator = _cpp["manual_seed"](self, seed)
        return result

    def initial_seed(self: Any) -> int:
        """The seed at which the stream started."""
        result: int = _cpp["initial_seed"](self)
        return result

    def seed(self: Any) -> int:
        """Restart the stream at a seed from the operating system, and return it."""
        result: int = _cpp["seed"](self)
        return result

    def get_state(self: Any) -> Tensor:
        """The seed and how far the stream is: 16 bytes, uint8."""
        result: Tensor = _cpp["get_state"](self)
        return result

    def set_state(self: Any, state: Tensor) -> None:
        """Go on where :meth:`get_state` was called.

        Raises:
            TypeError: not a uint8 tensor.
            RuntimeError: not 16 bytes.
        """
        _cpp["set_state"](self, state)


for _name in _cpp.keys() & vars(_Methods).keys():
    _method: Any = vars(_Methods)[_name]
    _method.__qualname__ = f"Generator.{_name}"
    setattr(Generator, _name, _method)


def manual_seed(seed: int) -> Generator:
    """Start the default generator's stream of random numbers at ``seed``; returns the generator.

    Args:
        seed: an integer; its low 64 bits count.
    """
    return _C.manual_seed(seed)


def initial_seed() -> int:
    """The seed at which the default generator's stream started."""
    return _C.initial_seed()


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


guard(__name__)
