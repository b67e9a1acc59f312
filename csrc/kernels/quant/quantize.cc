#include "kernels/quant/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr float kSmallest = 0x1p-100f;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// To 11 significant bits, ties to even.
float rounded_scale(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((u + 0x0fffu + ((u >> 13) & 1)) & ~0x1fffu);
}

// The value of the largest magnitude, the first of several; NaN when one is not finite; 0 when all are tiny.
struct Range {
  float most = 0, low = 0, high = 0;
};
Range range_of(const float* w, int64_t row, int64_t rows, int64_t count) {
  Range r;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < count; ++j) {
      const float v = w[i * row + j];
      if (!std::isfinite(v)) return {kNan, kNan, kNan};
      if (std::abs(v) > std::abs(r.most)) r.most = v;
      r.low = std::min(r.low, v);
      r.high = std::max(r.high, v);
    }
  return std::abs(r.most) < kSmallest ? Range{} : r;
}

// v / scale to the nearest integer; a scale of 0 or NaN gives 0.
int32_t step_of(float v, float scale, int32_t low, int32_t high) {
  if (!(std::abs(scale) > 0)) return 0;
  return static_cast<int32_t>(std::clamp(std::nearbyint(v / scale), static_cast<float>(low), static_cast<float>(high)));
}

// Writes a row's 4-bit codes in order of k.
void put_nibble(uint8_t* row, int64_t k, int32_t code) {
  const auto c = static_cast<uint8_t>(code);
  row[k / 2] = k % 2 ? static_cast<uint8_t>(row[k / 2] | (c << 4)) : c;
}

void quantize_int8(const float* w, int64_t begin, int64_t end, uint8_t* row, float& scale) {
  scale = rounded_scale(std::abs(range_of(w + begin, 0, 1, end - begin).most) / 127);
  for (int64_t k = begin; k < end; ++k) row[k] = static_cast<uint8_t>(step_of(w[k], scale, -127, 127));
}

void quantize_int4(const float* w, int64_t begin, int64_t end, uint8_t* row, float& scale) {
  scale = rounded_scale(range_of(w + begin, 0, 1, end - begin).most / -8);
  if (scale == 0) scale = 0;  // not -0
  for (int64_t k = begin; k < end; ++k) put_nibble(row, k, 8 + step_of(w[k], scale, -8, 7));
}

void quantize_int4_zero(const float* w, int64_t begin, int64_t end, uint8_t* row, float& scale, uint8_t& zero) {
  const Range r = range_of(w + begin, 0, 1, end - begin);
  scale = rounded_scale(static_cast<float>((static_cast<double>(r.high) - r.low) / 15));  // high - low may overflow
  const int32_t z = step_of(-r.low, scale, 0, 15);
  zero = static_cast<uint8_t>(z);
  for (int64_t k = begin; k < end; ++k) {
    int32_t code = z + step_of(w[k], scale, -z, 15 - z);
    if (scale > 0 && w[k] == r.low) code = 0;  // both ends exactly, whatever was rounded: the block comes back the same
    if (scale > 0 && w[k] == r.high && r.high > 0) code = 15;
    put_nibble(row, k, code);
  }
}

void quantize_fp8_tile(const QuantMatrix& q, const float* w, int64_t n0, int64_t k0) {
  const int64_t rows = std::min<int64_t>(128, q.n - n0), count = std::min<int64_t>(128, q.k - k0);
  const float scale = rounded_scale(std::abs(range_of(w + n0 * q.k + k0, q.k, rows, count).most) / 448);
  q.scales[n0 / 128 * q.blocks() + k0 / 128] = scale;
  for (int64_t i = n0; i < n0 + rows; ++i)
    for (int64_t k = k0; k < k0 + count; ++k)
      q.codes[i * q.k + k] = Float8E4M3(scale > 0 ? w[i * q.k + k] / scale : 0.0f).bits;
}

void quantize_row(const QuantMatrix& q, const float* w, int64_t i) {
  uint8_t* row = q.codes + i * q.row_bytes();
  for (int64_t b = 0; b < q.blocks(); ++b) {
    const int64_t begin = b * q.block_size(), end = std::min(q.k, begin + q.block_size()), at = i * q.blocks() + b;
    switch (q.format) {
      case QuantFormat::kInt8:
        quantize_int8(w + i * q.k, begin, end, row, q.scales[at]);
        break;
      case QuantFormat::kInt4:
        quantize_int4(w + i * q.k, begin, end, row, q.scales[at]);
        break;
      case QuantFormat::kInt4Zero:
        quantize_int4_zero(w + i * q.k, begin, end, row, q.scales[at], q.zeros[at]);
        break;
      case QuantFormat::kFp8:
        break;
    }
  }
}

// One block each; written for the vectoriser: no branch, and no pointer to another's memory.
void decode_int8(const int8_t* __restrict codes, int64_t n, float scale, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = scale * static_cast<float>(codes[i]);
}
void decode_nibbles(const uint8_t* __restrict codes, int64_t n, float scale, int32_t zero, float* __restrict out) {
  for (int64_t i = 0; i < n / 2; ++i) {
    const int32_t both = codes[i];
    out[2 * i] = scale * static_cast<float>((both & 15) - zero);
    out[2 * i + 1] = scale * static_cast<float>((both >> 4) - zero);
  }
  if (n % 2) out[n - 1] = scale * static_cast<float>((codes[n / 2] & 15) - zero);
}
// Exact: a float's exponent field takes e4m3's, the product moves the bias and normalises subnormals.
void decode_e4m3(const uint8_t* __restrict codes, int64_t n, float scale, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = static_cast<int8_t>(codes[i]), magnitude = code & 0x7f;
    const float value = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
    const int32_t nan = -static_cast<int32_t>(magnitude == 0x7f) & 0x7fc00000;
    const int32_t sign = code & std::numeric_limits<int32_t>::min();
    out[i] = scale * std::bit_cast<float>(std::bit_cast<int32_t>(value) | nan | sign);
  }
}

void dequantize_block(const QuantMatrix& q, const uint8_t* row, int64_t begin, int64_t end, float scale, int32_t zero,
                      float* out) {
  const int64_t n = end - begin;
  switch (q.format) {
    case QuantFormat::kInt8:
      return decode_int8(reinterpret_cast<const int8_t*>(row) + begin, n, scale, out + begin);
    case QuantFormat::kInt4:
    case QuantFormat::kInt4Zero:
      return decode_nibbles(row + begin / 2, n, scale, zero, out + begin);
    case QuantFormat::kFp8:
      return decode_e4m3(row + begin, n, scale, out + begin);
  }
}

// Codes in [-kMost, kMost].
template <int kMost, class T>
float quantize_line(const float* x, int64_t k, T* out) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  if (k <= 0) return 0;
  uint32_t most = 0;  // bits of magnitudes are in the order of magnitudes, NaN last
  for (int64_t i = 0; i < k; ++i) most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  const auto amax = std::bit_cast<float>(most);
  if (most == 0 || most >= kInfinity) {
    std::fill(out, out + k, T{0});
    return most == 0 ? 0 : kNan;
  }
  constexpr float kLargest = std::numeric_limits<float>::max();
  const float inverse = std::min(kMost / amax, kLargest);  // kMost / amax may overflow
  // Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits.
  for (int64_t i = 0; i < k; ++i)
    out[i] = static_cast<T>(std::bit_cast<int32_t>(x[i] * inverse + 12582912.0f) - 0x4b400000);
  return inverse < kLargest ? amax / kMost : 1 / kLargest;
}

}  // namespace

void quantize(const QuantMatrix& q, const float* w) {
  count_route(Route::kQuantize);
  if (q.n == 0 || q.k == 0) return;
  const int64_t group = q.traits().rows;
  parallel_for(q.scale_rows(), grain_for(group * q.k * 16), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (q.format == QuantFormat::kFp8)
        for (int64_t k = 0; k < q.k; k += 128) quantize_fp8_tile(q, w, i * group, k);
      else
        quantize_row(q, w, i);
  });
}

void round_to_bfloat16(const float* __restrict from, int64_t n, uint16_t* __restrict to) {
  for (int64_t i = 0; i < n; ++i) {
    const auto u = std::bit_cast<uint32_t>(from[i]);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16, quiet = (u >> 16) | 0x40;
    to[i] = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
}

void dequantize_rows(const QuantMatrix& q, int64_t begin, int64_t end, DType dtype, void* out) {
  const bool narrow = dtype == DType::kBFloat16;
  const Buffer scratch(static_cast<size_t>(narrow ? q.k : 0) * sizeof(float));
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = (i - begin) * q.k;
    float* row = narrow ? scratch.as<float>() : static_cast<float*>(out) + first;
    for (int64_t b = 0; b < q.blocks(); ++b) {
      const int64_t at = i / q.traits().rows * q.blocks() + b, k = b * q.block_size();
      dequantize_block(q, q.codes + i * q.row_bytes(), k, std::min(q.k, k + q.block_size()), q.scales[at],
                       q.traits().has_zeros ? q.zeros[at] : q.traits().offset, row);
    }
    if (narrow) round_to_bfloat16(row, q.k, static_cast<uint16_t*>(out) + first);
  }
}

void dequantize(const QuantMatrix& q, DType dtype, void* out) {
  count_route(Route::kDequantize);
  if (q.n == 0 || q.k == 0) return;
  parallel_for(q.n, grain_for(q.k * 8), [&](int64_t begin, int64_t end) {
    dequantize_rows(q, begin, end, dtype, static_cast<char*>(out) + begin * q.k * size_of(dtype));
  });
}

float quantize_activations(const float* x, int64_t k, int8_t* out) { return quantize_line<127>(x, k, out); }
float quantize_to_int16(const float* x, int64_t k, int16_t* out) { return quantize_line<kMostInt16>(x, k, out); }

}  // namespace deepseek::kernels
