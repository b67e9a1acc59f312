"""Switches of CUDA's matrix products. They can be set and read back; there is no GPU that they could apply to."""

from __future__ import annotations

from deepseek._missing import guard

__all__ = ["is_built", "matmul"]


class _Matmul:
    """How a GPU would multiply matrices."""

    __slots__ = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction", "allow_tf32")

    def __init__(self) -> None:
        self.allow_tf32 = False
        self.allow_fp16_reduced_precision_reduction = True
        self.allow_bf16_reduced_precision_reduction = True


matmul = _Matmul()


def is_built() -> bool:
    """False: deepseek runs on the CPU only."""
    return False


guard(__name__)
