// The pieces of grouped products (many weight matrices, a few rows of A each): rows and panels are brought into the
// form the register tile reads, then multiplied. The sums are those that matmul_float.h defines, whatever the number of
// rows.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace deepseek::kernels {

inline constexpr int64_t kTileRows = 6;           // of the register tile
inline constexpr int64_t kLeftPanel = 48;         // columns of a packed left operand: whole tiles
inline constexpr int64_t kPanelPadElements = 16;  // between operand rows, so that they do not share cache sets

// A matrix in memory, strides in elements: value (r, c) is at data[(index ? index[r] : r) * row + c * col].
struct GroupMatrix {
  const void* data = nullptr;
  int64_t row = 0, col = 1;
  const int64_t* index = nullptr;
};

enum class TileStart : uint8_t {
  kZero,        // out = a b
  kAdd,         // out += a b
  kContinue,    // the chains of fused multiply-adds go on from out
  kZeroStream,  // as kZero past the caches: for results that nobody reads soon. out is aligned to whole vectors
};

// Lines to prefetch while multiplying, one a step of k: `runs` runs of `length` lines, `step` bytes apart.
struct Ahead {
  const char* data = nullptr;
  int64_t step = 0, length = 0, runs = 0, run_step = 0;
};

// out[rows, width] from operands: a(r, i) = a[r * a_row + i * a_col], b(i, c) = b[i * width + c]. `k` counts operand
// elements, which are pairs of values in bfloat16 dot products.
struct TileProduct {
  int64_t rows, k;
  const void* a;
  int64_t a_row, a_col;
  const void* b;
  void* out;
  int64_t out_row;
  TileStart start = TileStart::kZero;
  Ahead ahead = {};
  int64_t tile = 0;  // where in `ahead` this product starts, in tiles of `k` steps
};

// How a dtype is multiplied on this CPU.
struct GroupKernel {
  int64_t width;    // columns of a panel
  int64_t pair;     // values of k in an operand element: 1 or 2
  int64_t element;  // bytes of an operand element
  bool wide;        // sums are double, else float
  // Rows of m as operand rows: to[r * to_row + i], the end of a pair filled with zero.
  void (*load_rows)(const GroupMatrix& m, int64_t rows, int64_t k, void* to, int64_t to_row);
  // Columns [c0, c0 + columns) of rows [r0, r0 + k) of m as a panel: to[i * to_row + c]; columns up to `padded` are
  // zero. A pointer `ahead` is prefetched from and moved on by as many bytes as are read.
  void (*pack)(const GroupMatrix& m, int64_t r0, int64_t k, int64_t c0, int64_t columns, int64_t padded, void* to,
               int64_t to_row, const char** ahead);
  void (*multiply)(const TileProduct& p);
  // to[r * to_row + c] = sums[r * sums_row + c], rounded to the dtype. `stream`: past the caches where lines are whole.
  void (*store_rows)(const void* sums, int64_t sums_row, int64_t rows, int64_t columns, void* to, int64_t to_row,
                     bool stream);

  int64_t steps(int64_t k) const { return (k + pair - 1) / pair; }
};

// float32, float64, bfloat16 and float16; `dot`: bfloat16 as dot products where the CPU has them, else read as float32.
GroupKernel group_kernel(DType dtype, bool dot = true);

// f(first row, rows, lines to prefetch or null) for the tiles of a product.
template <class F>
inline void for_each_tile(const TileProduct& p, F&& f) {
  const Ahead& h = p.ahead;
  const int64_t tiles_of_run = p.k > 0 ? (h.length + p.k - 1) / p.k : 0;
  for (int64_t row = 0, tile = p.tile; row < p.rows; row += kTileRows, ++tile) {
    const char* ahead = nullptr;
    if (h.data && tile < tiles_of_run * h.runs)
      ahead = h.data + tile / tiles_of_run * h.run_step + tile % tiles_of_run * p.k * h.step;
    f(row, p.rows - row < kTileRows ? p.rows - row : kTileRows, ahead);
  }
}

namespace detail {
// Where uses_bf16_dot(bf16). Sums of dot products are never subnormal, so that rounding may flush them.
void multiply_bf16_dot(const TileProduct& p);
void store_bf16_dot(const void* sums, int64_t sums_row, int64_t rows, int64_t columns, void* to, int64_t to_row,
                    bool stream);
inline constexpr int64_t kBf16DotWidth = 64;
}  // namespace detail

}  // namespace deepseek::kernels
