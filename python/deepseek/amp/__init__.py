"""Mixed precision: ``autocast``, ``GradScaler`` and what goes with them, as ``torch.amp``. See docs/mixed_precision.md.

Besides PyTorch's names: :func:`best_dtype` measures which dtype is worth it on this CPU, :func:`train_step` and
:func:`mixed_precision_forward` are a whole step.
"""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek._functions.settings import is_autocast_enabled
from deepseek.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from deepseek.amp.autocast_state import get_autocast_dtype
from deepseek.amp.dtype_choice import DtypeChoice, best_dtype
from deepseek.amp.grad_scaler import GradScaler
from deepseek.amp.training import StepResult, mixed_precision_forward, train_step

__all__ = [
    "DtypeChoice",
    "GradScaler",
    "StepResult",
    "autocast",
    "best_dtype",
    "custom_bwd",
    "custom_fwd",
    "get_autocast_dtype",
    "is_autocast_available",
    "is_autocast_enabled",
    "mixed_precision_forward",
    "train_step",
]

guard(__name__)
