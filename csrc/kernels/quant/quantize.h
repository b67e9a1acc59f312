// Weights to low-bit codes and back (quant_formats.cc), and activations to int8.
#pragma once

#include "kernels/quant/quant_format.h"

namespace deepseek::kernels {

// Fills q's codes, scales and zeros from w [q.n, q.k], contiguous.
void quantize(const QuantMatrix& q, const float* w);

// Rows [begin, end) of the values, contiguous, as float32 or bfloat16 (rounded once). Serial.
void dequantize_rows(const QuantMatrix& q, int64_t begin, int64_t end, DType dtype, void* out);
// All rows, over threads.
void dequantize(const QuantMatrix& q, DType dtype, void* out);

// To nearest, ties to even; without a branch, for the vectoriser.
void round_to_bfloat16(const float* __restrict from, int64_t n, uint16_t* __restrict to);

// x[k] ~ scale * out[k] with out in [-127, 127] and scale = max |x| / 127; returns the scale: NaN, and zero codes, when
// x holds NaN or infinity.
float quantize_activations(const float* x, int64_t k, int8_t* out);
// The same with out in [-kMostInt16, kMostInt16]: 256 times an int8 plus an int8.
inline constexpr int kMostInt16 = 127 * 256 + 127;
float quantize_to_int16(const float* x, int64_t k, int16_t* out);

}  // namespace deepseek::kernels
