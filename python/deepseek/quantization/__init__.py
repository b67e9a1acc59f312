"""Weights in few bits, and products with them.

    weight = quantize(linear.weight, "int4")         # a QuantizedTensor: codes, scales, zero points
    y = qlinear(x, weight, linear.bias)              # about linear(x, weight.dequantize(), bias), from the codes
    quantize_(model, "int8")                         # all Linear layers and stacked experts of a model, in place

A weight matrix [N, K], or each of a stack [E, N, K], is cut into blocks along K; each block has a scale, so that a
value is ``scale * code`` or
``scale * (code - zero)``:

{formats}

Scales count as float32 here. In memory a weight that was used once takes the same again for the order in which the
kernel reads it, which is made on first use and dropped when the codes are written to. Codes that NumPy or another
library may write to unseen (``codes.numpy()``, ``from_numpy``, ``data_ptr()``) are put in order on every call: clone()
them first.

Where codes are whole numbers (int8, int4), products quantize each row of the input to int8 on the way (scale: its
largest magnitude / 127) and add whole numbers, exactly; so the result of a row depends neither on other rows nor on
threads or the instruction set. Products of others (fp8) are float products: the weight is dequantized to the input's
dtype a tile at a time.
"""

from __future__ import annotations

from deepseek._binding.missing import guard
from deepseek.quantization._formats import FORMATS, table
from deepseek.quantization._modules import QuantizedLinear, QuantizedWeight, quantize_
from deepseek.quantization._weight import QuantizedTensor, dequantize, int_mm, qlinear, qmoe, quantize

__all__ = [
    "FORMATS", "QuantizedLinear", "QuantizedTensor", "QuantizedWeight", "dequantize", "int_mm", "qlinear", "qmoe",
    "quantize", "quantize_",
]  # fmt: skip

__doc__ = (__doc__ or "").replace("{formats}", table())
del table
guard(__name__)
