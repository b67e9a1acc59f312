// Low-bit weights: what a format stores for a matrix w [N, K], row-major, as checkpoints do. A row is cut into blocks
// of `block` values of k (0: the whole row is one; the last may be short); a scale, and in some formats a zero point,
// serves a block:
//   codes   [N, ceil(K / per_byte)], of two codes in a byte the lower half is the one with the even k
//   scales  float32 [ceil(N / rows), blocks], zeros uint8 of the same shape
//
// A format is a row of the table in quant_formats.cc, with its functions. All else, Python and the tests too, reads it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/dtype.h"

namespace deepseek::kernels {

// What shares a scale: values, whose rows lie `row` apart, and room for their codes, whose rows are `code_row` bytes.
struct QuantBlock {
  const float* w;
  int64_t row, rows, count;
  uint8_t* codes;
  int64_t code_row;
};
struct QuantSide {
  float scale = 0;
  uint8_t zero = 0;
};
// Codes of k values in blocks, with a scale (and zero point, where the format has them) for each.
struct QuantRow {
  const uint8_t* codes;
  int64_t k, block;
  const float* scales;
  const uint8_t* zeros;
};

struct PackedQuant;
struct QTile;
using QTileFn = void (*)(const QTile& t);

// How qgemm reads codes that are whole numbers: 32 k of a row of w are words of 4 unsigned bytes, or 8 half bytes, and
// those of 16 rows lie side by side, so that a row's words are 64 bytes apart.
struct PackedCodes {
  int64_t words;   // 8, or 4 where two groups of codes share the bytes
  int32_t offset;  // what the value 0 is there; formats with zero points have it in those
  void (*pack)(const uint8_t* codes, uint8_t* words);  // 32 k
  void (*unpack)(const uint8_t* words, uint8_t* codes);
  // The kernel for such weights on this CPU, for a tile of this many rows; null without AVX-512 VNNI.
  QTileFn (*avx2)(const PackedQuant& w, int64_t rows);
  QTileFn (*vnni)(const PackedQuant& w, int64_t rows);
};

struct QuantFormat {
  const char* name;  // checkpoints hold it
  const char* doc;   // of its codes, for Python's table
  DType code;
  int64_t per_byte;               // codes in a byte
  int64_t rows;                   // rows that share a scale
  bool has_zeros;                 // a zero point for each block
  std::array<int64_t, 4> blocks;  // accepted block sizes, the first one where none is given; padded with -1
  QuantSide (*encode)(const QuantBlock& b);
  void (*decode)(QuantRow row, float* out);
  const PackedCodes* packed;  // null: products are those of dequantized weights

  bool takes(int64_t block) const;
  int64_t index() const;  // in the table
};

std::span<const QuantFormat> quant_formats();
// Null when no format has this name.
const QuantFormat* find_format(std::string_view name);

// A quantized matrix in memory, all parts contiguous; or the first of a stack, whose parts follow one another.
struct QuantMatrix {
  const QuantFormat* format;
  int64_t n, k, block;  // block as given: 0 is the whole row
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  uint8_t* zeros = nullptr;

  int64_t block_size() const { return block > 0 ? block : k > 0 ? k : 1; }
  int64_t blocks() const { return (k + block_size() - 1) / block_size(); }
  int64_t row_bytes() const { return (k + format->per_byte - 1) / format->per_byte; }
  int64_t scale_rows() const { return (n + format->rows - 1) / format->rows; }
  QuantRow row(int64_t i) const {
    const int64_t side = i / format->rows * blocks();
    return {codes + i * row_bytes(), k, block_size(), scales + side, format->has_zeros ? zeros + side : nullptr};
  }
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
