"""Named results of ops with more than one, such as ``max(x, dim)`` -> (values, indices).

The types are made by the core on first use: ``type(deepseek.max(x, 0))`` is ``deepseek.return_types.max``.
"""

from __future__ import annotations

from typing import Any

from deepseek import _C
from deepseek.utils._nearest import missing_attribute


def _named() -> dict[str, Any]:
    return {d.schema.partition("(")[0].partition(".")[0]: d for d in _C.op_table().values() if d.num_outputs > 1}


def __getattr__(name: str) -> Any:
    found = _named().get(name)
    if found is None or found.hidden:
        raise missing_attribute(__name__, name, _named())
    raise AttributeError(f"{__name__}.{name} is made when deepseek.{name} first returns one; take type() of a result")


def __dir__() -> list[str]:
    return sorted(n for n, d in _named().items() if not d.hidden)
