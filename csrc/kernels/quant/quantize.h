// Weights to low-bit codes and back, and activations to int8.
//
// Scales are rounded to 11 significant bits (what float16 holds), so that code * scale is exact in float32 and
// quantizing what was dequantized gives the same codes and scales, bit for bit. Per block, with `most` the value of the
// largest magnitude:
//   int8        scale = |most| / 127, code = round(w / scale) in [-127, 127]
//   int4        scale = most / -8, code = 8 + round(w / scale) in [0, 15]
//   int4_zero   scale = (max(w, 0) - min(w, 0)) / 15, zero = round(-min / scale); the ends get the codes 0 and 15
//   fp8         scale = |most| / 448, code = e4m3(w / scale)
// Ties round to even. A block with no value above 2^-100 is zero: scale 0. A block that holds NaN or infinity gets the
// scale NaN, so all of it comes back as NaN.
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
