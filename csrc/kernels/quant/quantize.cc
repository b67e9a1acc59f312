#include "kernels/quant/quantize.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

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
    return most == 0 ? 0 : std::numeric_limits<float>::quiet_NaN();
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
  const QuantFormat& f = *q.format;
  parallel_for(q.scale_rows(), grain_for(f.rows * q.k * 16), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t b = 0; b < q.blocks(); ++b) {
        const int64_t n0 = i * f.rows, k0 = b * q.block_size(), at = i * q.blocks() + b;
        const QuantSide side =
            f.encode({w + n0 * q.k + k0, q.k, std::min(f.rows, q.n - n0), std::min(q.block_size(), q.k - k0),
                      q.codes + n0 * q.row_bytes() + k0 / f.per_byte, q.row_bytes()});
        q.scales[at] = side.scale;
        if (f.has_zeros) q.zeros[at] = side.zero;
      }
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
    q.format->decode(q.row(i), row);
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
