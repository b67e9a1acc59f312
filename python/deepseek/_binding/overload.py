"""``typing.overload`` for modules that may not import ``typing``, which is slow. The stub reads what is kept here."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from typing import overload as overload

OVERLOADS: dict[tuple[str, str], list[Callable[..., Any]]] = {}

if not TYPE_CHECKING:

    def overload(function):
        """Keeps the function, which only states a signature, under its module and name."""
        OVERLOADS.setdefault((function.__module__, function.__qualname__), []).append(function)
        return function
