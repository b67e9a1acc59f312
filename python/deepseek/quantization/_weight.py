"""Quantized weights and what is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import deepseek
from deepseek import _C, Tensor
from deepseek.quantization._formats import FORMATS, format_named

if TYPE_CHECKING:
    from deepseek.quantization._modules import QuantizedWeight


class QuantizedTensor:
    """A matrix [N, K], or a stack of matrices [E, N, K], in few bits. Its parts are plain tensors, which may be saved,
    shared and read from files.

    Args:
        codes: [N, K] of the format's dtype; of 4-bit codes two in a byte, uint8 [N, ceil(K / 2)], the even k in the
            lower half. All parts of a stack have E in front.
        scales: float32 [N, blocks]; where a scale serves several rows, [ceil(N / rows), blocks].
        zeros: uint8 of the shape of scales where the format has zero points, else None.
        format: a name of :data:`FORMATS`.
        block: values of K that share a scale; 0 for a whole row.
        shape: (N, K) or (E, N, K).

    Raises:
        ValueError: an unknown format, or a block size it does not take.
        RuntimeError: parts of another dtype or shape.
    """

    __slots__ = ("block", "codes", "format", "scales", "shape", "zeros")

    def __init__(
        self, codes: Tensor, scales: Tensor, zeros: Tensor | None, format: str, block: int, shape: tuple[int, ...]
    ) -> None:
        shape = tuple(int(n) for n in shape)
        _C.infer("_dequantize", codes, scales, zeros, format, block, shape[-1])  # refuses parts that do not fit
        if tuple(codes.shape[:-1]) != shape[:-1]:
            rows = " x ".join(map(str, codes.shape[:-1]))
            raise RuntimeError(f"QuantizedTensor: codes have {rows} rows, shape says {shape}")
        self.codes, self.scales, self.zeros = codes, scales, zeros
        self.format, self.block, self.shape = format, block, shape

    def dequantize(self, dtype: deepseek.dtype = _C.float32) -> Tensor:
        """The values, of the same shape. float32 holds them exactly where quantize() made them; others round once."""
        return _C._dequantize(self.codes, self.scales, self.zeros, self.format, self.block, self.shape[-1], dtype=dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        return sum(part.nbytes for part in (self.codes, self.scales, self.zeros) if part is not None)

    def __repr__(self) -> str:
        block = f"blocks of {self.block}" if self.block else "a scale for each row"
        shape = " x ".join(map(str, self.shape))
        return f"QuantizedTensor({shape}, {self.format}, {block}, {self.nbytes} bytes)"


def quantize(tensor: Tensor, format: str = "int4", block: int | None = None) -> QuantizedTensor:
    """A weight in few bits, each value rounded to the nearest code.

    Scales are rounded to 11 significant bits, so that codes times scales are exact in float32 and quantizing
    :meth:`QuantizedTensor.dequantize`'s result gives the same codes, scales and zero points again.

    Args:
        tensor: [N, K] or a stack [E, N, K], float32, float64, bfloat16 or float16. The result is not differentiable.
        format: a name of :data:`FORMATS`; see :mod:`deepseek.quantization`.
        block: values of K that share a scale; the format's default when None.

    Returns:
        A block that holds NaN or infinity has the scale NaN; one with no value above 2^-100 is zero.

    Raises:
        ValueError: an unknown format, or a block size it does not take.
        RuntimeError: ``tensor`` is neither a matrix nor a stack of matrices.
    """
    if block is None:
        block = FORMATS.get(format, 0)  # of no format: what refuses that says so first
    codes, scales, zeros = _C._quantize(tensor, format, block)
    given = zeros if format_named(format).has_zeros else None
    return QuantizedTensor(codes, scales, given, format, block, tuple(tensor.shape))


def dequantize(weight: QuantizedTensor, dtype: deepseek.dtype = _C.float32) -> Tensor:
    """The values as a plain tensor: ``weight.dequantize(dtype)``."""
    return weight.dequantize(dtype)


def qlinear(
    input: Tensor,
    weight: QuantizedTensor | QuantizedWeight,
    bias: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(input @ weight^T + bias) + residual`` from the codes.

    Differentiable in ``input`` and ``bias``: the gradient is that of ``linear(input, weight.dequantize(), bias)``, so
    the rounding of input counts as the identity. Codes and scales get none; scales that require a gradient are refused.
    Without gradients activation and residual happen where a tile of the product is stored, with the bits of the
    separate operations (float32 and bfloat16).

    Args:
        input: (..., K). float32 and bfloat16 compute as they are, float16 and float64 in float32. A row that holds NaN
            or infinity gives NaN.
        weight: [N, K], not a stack.
        bias: (N,), of the input's dtype; float32 goes with 16-bit inputs too.
        activation: ``"none"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"``, ``"silu"``, ``"sigmoid"`` or ``"tanh"``.
        residual: (..., N), of the input's dtype.

    Returns:
        (..., N), of the input's dtype.

    Raises:
        ValueError: an unknown activation.
        RuntimeError: sizes that do not fit, or scales that require a gradient.
    """
    return _C._qlinear(
        input, weight.codes, weight.scales, weight.zeros, bias, weight.format, weight.block, activation, residual
    )


def qmoe(
    input: Tensor,
    gate_weight: QuantizedTensor | QuantizedWeight,
    up_weight: QuantizedTensor | QuantizedWeight,
    down_weight: QuantizedTensor | QuantizedWeight,
    topk_indices: Tensor,
    topk_weights: Tensor,
    *,
    swiglu_limit: float | None = None,
    wide: bool = False,
) -> Tensor:
    """:func:`nn.functional.moe` with quantized weights: SwiGLU experts, each token's chosen ones added up.

    Where codes are whole numbers (not fp8) tokens, and the hidden rows after SwiGLU, are quantized to int8 on the way,
    as :func:`qlinear` does; the result is that of a loop over experts with ``qlinear``, bit for bit in float32
    (bfloat16 adds a token's experts before it rounds). fp8: float products, as if ``moe`` got the dequantized weights.

    Differentiable in ``input`` and ``topk_weights``: the gradients are those of ``moe`` with dequantized weights.

    Args:
        input: (T, D). float32 and bfloat16 compute as they are, float16 and float64 in float32.
        gate_weight: a stack (E, F, D).
        up_weight: a stack (E, F, D), of the same format and block.
        down_weight: a stack (E, D, F), of any format and block; fp8 if and only if the others are.
        topk_indices: (T, K) int64, the experts of each token; -1 is no expert.
        topk_weights: (T, K), what each of them counts.
        swiglu_limit: as in :func:`nn.functional.swiglu`.
        wide: do not round the sum: float32 for 16-bit input.

    Returns:
        (T, D), of the input's dtype, or with ``wide`` of the type of sums.

    Raises:
        IndexError: an expert index is out of range.
        ValueError: formats that do not go together, or a ``swiglu_limit`` that is not positive.
        RuntimeError: sizes that do not fit, or scales that require a gradient.
    """
    gate, up, down = gate_weight, up_weight, down_weight
    if (gate.format, gate.block) != (up.format, up.block):
        raise ValueError(
            f"qmoe: gate and up must have one format and block, got {gate.format} of {gate.block} and {up.format} of "
            f"{up.block}"
        )
    return _C._qmoe(
        input, gate.codes, gate.scales, gate.zeros, up.codes, up.scales, up.zeros, down.codes, down.scales, down.zeros,
        topk_indices, topk_weights, gate.format, gate.block, down.format, down.block, swiglu_limit, wide,
    )  # fmt: skip


def int_mm(input: Tensor, mat2: Tensor) -> Tensor:
    """``input @ mat2`` of bytes, added up in 32 bits (``torch._int_mm``).

    Args:
        input: (M, K), int8 or uint8.
        mat2: (K, N), int8. Fastest with neighbours along a row or along a column.

    Returns:
        (M, N), int32: exact, modulo 2^32 (which K below 2^17 does not reach with int8).

    Raises:
        RuntimeError: other dtypes, other than 2 dims, or sizes that do not fit.
    """
    return _C._int_mm(input, mat2)
