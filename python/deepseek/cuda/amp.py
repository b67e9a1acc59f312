"""Mixed precision as scripts for a GPU spell it. There is none: the names are those of the CPU, and do the same.

``dtype=None`` is the CPU's default, bfloat16 (PyTorch's on a GPU is float16, for which a CPU has no fast products).
"""

from __future__ import annotations

import deepseek.amp
from deepseek._binding.missing import guard
from deepseek.cpu.amp import GradScaler, autocast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import dtype

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


def custom_fwd(fwd: Any = None, *, cast_inputs: dtype | None = None) -> Any:
    """:func:`deepseek.amp.custom_fwd` for the CPU.

    Args:
        fwd, cast_inputs: as there.
    """
    return deepseek.amp.custom_fwd(fwd, device_type="cpu", cast_inputs=cast_inputs)


def custom_bwd(bwd: Any) -> Any:
    """:func:`deepseek.amp.custom_bwd` for the CPU.

    Args:
        bwd: as there.
    """
    return deepseek.amp.custom_bwd(bwd, device_type="cpu")


guard(__name__)
