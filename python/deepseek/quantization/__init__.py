"""Weights in few bits, and products with them.

    weight = quantize(linear.weight, "int4")         # a QuantizedTensor: codes, scales, zero points
    y = qlinear(x, weight, linear.bias)              # about linear(x, weight.dequantize(), bias), from the codes
    quantize_(model, "int8")                         # all Linear layers and stacked experts of a model, in place

A weight matrix [N, K], or each of a stack [E, N, K], is cut into blocks along K; each block has a scale, so that a
value is ``scale * code`` or
``scale * (code - zero)``:

========== ======================== =============== ==========================================================
format     block                    bits a weight   codes
========== ======================== =============== ==========================================================
int8       0: a whole row (default) 8               -127 to 127
int8       32, 64, 128              9, 8.5, 8.25    -127 to 127
int4       32 (default), 64, 128    5, 4.5, 4.25    0 to 15 for -8 to 7; the largest value is -8 steps
int4_zero  32 (default), 64, 128    5.25, 4.6, 4.3  0 to 15, with a zero point: for values of one sign
fp8        128                      8               e4m3, one scale for a tile of 128 x 128 (DeepSeek-V3's format)
========== ======================== =============== ==========================================================

Scales count as float32 here. In memory a weight that was used once takes the same again for the order in which the
kernel reads it, which is made on first use and dropped when the codes are written to. Codes that NumPy or another
library may write to unseen (``codes.numpy()``, ``from_numpy``, ``data_ptr()``) are put in order on every call: clone()
them first.

int8 and int4 products quantize each row of the input to int8 on the way (scale: its largest magnitude / 127) and add
whole numbers, exactly; so the result of a row depends neither on other rows nor on threads or the instruction set.
fp8 products are float products: the weight is dequantized to the input's dtype a tile at a time.
"""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek.quantization._modules import QuantizedLinear, QuantizedWeight, quantize_
from deepseek.quantization._weight import FORMATS, QuantizedTensor, dequantize, int_mm, qlinear, qmoe, quantize

__all__ = [
    "FORMATS", "QuantizedLinear", "QuantizedTensor", "QuantizedWeight", "dequantize", "int_mm", "qlinear", "qmoe",
    "quantize", "quantize_",
]  # fmt: skip

guard(__name__)
