// Attention over a cache of int8: rows of keys and values as codes times one scale a row (quantize.h, index_scores.h).
//
// A query becomes 16-bit integers, q ~ s (256 hi + lo) with hi and lo in int8 (quantize_to_int16), so that products
// with codes are exact integers, the same on every CPU:
//   score(key) = (256 float(hi . code) + float(lo . code)) s k_scale, one fused multiply-add, then from left to right.
// The rest is attention.h in float: the weight of a key times its v_scale multiplies the codes of its values. To
// rounding that is attention over the dequantized rows; 16 bits of a query lose less than 2^-16 of its largest number.
// NaN or infinity in a query, or NaN as a scale, gives NaN.
#pragma once

#include "kernels/attention/attention.h"

namespace deepseek::kernels {

inline constexpr int64_t kMostInt8Features = 32768;  // sums of products fit into 32 bits

// As attention_forward, q in f32, bf16 or f16, without dropout.
void attention_int8_forward(const Attention& a, const View& out, const View& lse);
// The slow twin, in double.
void attention_int8_forward_plain(const Attention& a, const View& out, const View& lse);

}  // namespace deepseek::kernels
