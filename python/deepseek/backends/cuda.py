"""Switches of CUDA's matrix products. They can be set and read back; there is no GPU that they could apply to."""

from __future__ import annotations

from deepseek._binding.missing import guard

__all__ = [
    "cudnn_sdp_enabled",
    "enable_cudnn_sdp",
    "enable_flash_sdp",
    "enable_math_sdp",
    "enable_mem_efficient_sdp",
    "flash_sdp_enabled",
    "is_built",
    "math_sdp_enabled",
    "matmul",
    "mem_efficient_sdp_enabled",
]


class _Matmul:
    """How a GPU would multiply matrices."""

    __slots__ = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction", "allow_tf32")

    def __init__(self) -> None:
        self.allow_tf32 = False
        self.allow_fp16_reduced_precision_reduction = True
        self.allow_bf16_reduced_precision_reduction = True


matmul = _Matmul()
# Which of its ways to compute attention a GPU may take: all, until a script says otherwise.
_attention = dict.fromkeys(("flash", "mem_efficient", "math", "cudnn"), True)


def enable_flash_sdp(enabled: bool) -> None:
    """Whether a GPU may take FlashAttention for attention."""
    _attention["flash"] = bool(enabled)


def flash_sdp_enabled() -> bool:
    """What :func:`enable_flash_sdp` was given last; True at the start."""
    return _attention["flash"]


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Whether a GPU may take the memory-efficient one for attention."""
    _attention["mem_efficient"] = bool(enabled)


def mem_efficient_sdp_enabled() -> bool:
    """What :func:`enable_mem_efficient_sdp` was given last; True at the start."""
    return _attention["mem_efficient"]


def enable_math_sdp(enabled: bool) -> None:
    """Whether a GPU may take plain products for attention."""
    _attention["math"] = bool(enabled)


def math_sdp_enabled() -> bool:
    """What :func:`enable_math_sdp` was given last; True at the start."""
    return _attention["math"]


def enable_cudnn_sdp(enabled: bool) -> None:
    """Whether a GPU may take cuDNN's for attention."""
    _attention["cudnn"] = bool(enabled)


def cudnn_sdp_enabled() -> bool:
    """What :func:`enable_cudnn_sdp` was given last; True at the start."""
    return _attention["cudnn"]


def is_built() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


guard(__name__)
