"""Quantized weights and what is done with them."""

from __future__ import annotations

import deepseek
from deepseek import _C, Tensor

# name: the block size taken when none is given
FORMATS = {"int8": 0, "int4": 32, "int4_zero": 32, "fp8": 128}


class QuantizedTensor:
    """A matrix [N, K] in few bits. Its parts are plain tensors, which may be saved, shared and read from files.

    Args:
        codes: int8 [N, K], uint8 [N, ceil(K / 2)] (two 4-bit codes a byte, the even k in the lower half), or
            float8_e4m3fn [N, K].
        scales: float32 [N, blocks]; fp8: [ceil(N / 128), ceil(K / 128)].
        zeros: uint8 [N, blocks] for ``int4_zero``, else None.
        format: a name of :data:`FORMATS`.
        block: values of K that share a scale; 0 for a whole row.
        shape: (N, K).

    Raises:
        ValueError: an unknown format, or a block size it does not take.
        RuntimeError: parts of another dtype or shape.
    """

    __slots__ = ("block", "codes", "format", "scales", "shape", "zeros")

    def __init__(
        self, codes: Tensor, scales: Tensor, zeros: Tensor | None, format: str, block: int, shape: tuple[int, int]
    ) -> None:
        rows, columns = shape
        _C.infer("_dequantize", codes, scales, zeros, format, block, columns)  # refuses parts that do not fit
        if codes.shape[0] != rows:
            raise RuntimeError(f"QuantizedTensor: codes have {codes.shape[0]} rows, shape says {rows}")
        self.codes, self.scales, self.zeros = codes, scales, zeros
        self.format, self.block, self.shape = format, block, (int(rows), int(columns))

    def dequantize(self, dtype: deepseek.dtype = _C.float32) -> Tensor:
        """The values, [N, K]. float32 holds them exactly where quantize() made them; other dtypes round once."""
        return _C._dequantize(self.codes, self.scales, self.zeros, self.format, self.block, self.shape[1], dtype=dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        return sum(part.nbytes for part in (self.codes, self.scales, self.zeros) if part is not None)

    def __repr__(self) -> str:
        block = f"blocks of {self.block}" if self.block else "a scale for each row"
        return f"QuantizedTensor({self.shape[0]} x {self.shape[1]}, {self.format}, {block}, {self.nbytes} bytes)"


def quantize(tensor: Tensor, format: str = "int4", block: int | None = None) -> QuantizedTensor:
    """A weight in few bits, each value rounded to the nearest code.

    Scales are rounded to 11 significant bits, so that codes times scales are exact in float32 and quantizing
    :meth:`QuantizedTensor.dequantize`'s result gives the same codes, scales and zero points again.

    Args:
        tensor: [N, K], float32, float64, bfloat16 or float16. The result is not differentiable.
        format: ``"int8"``, ``"int4"``, ``"int4_zero"`` or ``"fp8"``; see :mod:`deepseek.quantization`.
        block: values of K that share a scale; the format's default when None.

    Returns:
        A block that holds NaN or infinity has the scale NaN; one with no value above 2^-100 is zero.

    Raises:
        ValueError: an unknown format, or a block size it does not take.
        RuntimeError: ``tensor`` is not a matrix.
    """
    if block is None:
        block = FORMATS.get(format, 32)
    codes, scales, zeros = _C._quantize(tensor, format, block)
    rows, columns = tensor.shape
    return QuantizedTensor(codes, scales, zeros if format == "int4_zero" else None, format, block, (rows, columns))


def dequantize(weight: QuantizedTensor, dtype: deepseek.dtype = _C.float32) -> Tensor:
    """``weight.dequantize(dtype)``."""
    return weight.dequantize(dtype)


def qlinear(input: Tensor, weight: QuantizedTensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight^T + bias`` from the codes.

    Differentiable in ``input`` and ``bias``: the gradient is that of ``linear(input, weight.dequantize(), bias)``, so
    the rounding of input counts as the identity. Codes and scales get none; scales that require a gradient are refused.

    Args:
        input: (..., K). float32 and bfloat16 compute as they are, float16 and float64 in float32. A row that holds NaN
            or infinity gives NaN.
        weight: [N, K].
        bias: (N,), of the input's dtype.

    Returns:
        (..., N), of the input's dtype.

    Raises:
        RuntimeError: sizes that do not fit, or scales that require a gradient.
    """
    return _C._qlinear(input, weight.codes, weight.scales, weight.zeros, bias, weight.format, weight.block)
