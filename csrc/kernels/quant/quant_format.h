// Low-bit weights: what each format stores for a matrix w [N, K], row-major, as checkpoints do. A row is cut into
// blocks of `block` values of k; one scale, and in some formats one zero point, serves a block. The last block may be
// short.
//
//   format         codes                     value                scales
//   int8           int8 [N, K]               scale * code         [N, blocks]; block 0: one block, the whole row
//   int4           uint8 [N, ceil(K / 2)]    scale * (code - 8)   [N, blocks]
//   int4_zero      uint8 [N, ceil(K / 2)]    scale * (code - zero)  [N, blocks], zeros uint8 [N, blocks]
//   fp8            float8_e4m3fn [N, K]      scale * code         [ceil(N / 128), ceil(K / 128)]: tiles of 128 x 128
//
// Of two 4-bit codes in a byte the lower half is the one with the even k.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/dtype.h"

namespace deepseek::kernels {

enum class QuantFormat : uint8_t { kInt8, kInt4, kInt4Zero, kFp8 };

struct QuantTraits {
  QuantFormat format;
  const char* name;
  DType code;
  int64_t per_byte;   // codes in a byte
  int64_t rows;       // rows that share a scale
  bool has_zeros;     // a zero point for each block
  int64_t blocks[4];  // accepted block sizes, padded with -1
  int32_t offset;     // code of the value 0 as an unsigned byte; formats with zero points have it there
};

inline constexpr QuantTraits kQuantTraits[] = {
    {QuantFormat::kInt8, "int8", DType::kInt8, 1, 1, false, {0, 32, 64, 128}, 128},
    {QuantFormat::kInt4, "int4", DType::kUInt8, 2, 1, false, {32, 64, 128, -1}, 8},
    {QuantFormat::kInt4Zero, "int4_zero", DType::kUInt8, 2, 1, true, {32, 64, 128, -1}, 0},
    {QuantFormat::kFp8, "fp8", DType::kFloat8E4M3, 1, 128, false, {128, -1, -1, -1}, 0},
};
constexpr const QuantTraits& traits_of(QuantFormat f) { return kQuantTraits[static_cast<int>(f)]; }
// Null when no format has this name.
constexpr const QuantTraits* find_format(std::string_view name) {
  for (const QuantTraits& t : kQuantTraits)
    if (name == t.name) return &t;
  return nullptr;
}
constexpr bool accepts_block(const QuantTraits& t, int64_t block) {
  for (const int64_t b : t.blocks)
    if (b == block && b >= 0) return true;
  return false;
}

// A quantized matrix in memory, all parts contiguous; or the first of a stack, whose parts follow one another.
struct QuantMatrix {
  QuantFormat format;
  int64_t n, k, block;  // block as given: 0 is the whole row
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  uint8_t* zeros = nullptr;

  const QuantTraits& traits() const { return traits_of(format); }
  int64_t block_size() const { return block > 0 ? block : k > 0 ? k : 1; }
  int64_t blocks() const { return (k + block_size() - 1) / block_size(); }
  int64_t row_bytes() const { return (k + traits().per_byte - 1) / traits().per_byte; }
  int64_t scale_rows() const { return (n + traits().rows - 1) / traits().rows; }
  QuantMatrix of_stack(int64_t e) const {
    const int64_t sides = e * scale_rows() * blocks();
    return {format,
            n,
            k,
            block,
            codes + e * n * row_bytes(),
            scales ? scales + sides : nullptr,
            zeros ? zeros + sides : nullptr};
  }
};

}  // namespace deepseek::kernels
