// Reading ahead while the arithmetic units are busy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/gemm/matmul_float.h"

namespace deepseek::kernels {

// Brings a block of rows of memory to the L2 cache a few lines at a time: a product hides the way of its next operand
// behind the tiles of this one. Changes no result.
class RowsPrefetch {
 public:
  RowsPrefetch() = default;
  RowsPrefetch(const void* block, int64_t rows, int64_t row_bytes, int64_t step_bytes)
      : row_(static_cast<const char*>(block)), rows_(rows), row_bytes_(row_bytes), step_bytes_(step_bytes) {}

  int64_t lines() const { return rows_ * ((row_bytes_ + kLine - 1) / kLine); }

  void advance(int64_t lines) {
    for (; lines > 0 && rows_ > 0; --lines) {
      __builtin_prefetch(row_ + at_, 0, 2);
      at_ += kLine;
      if (at_ < row_bytes_) continue;
      at_ = 0;
      row_ += step_bytes_;
      --rows_;
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  const char* row_ = nullptr;
  int64_t rows_ = 0, row_bytes_ = 0, step_bytes_ = 0, at_ = 0;
};

// What of B a product that goes through it in blocks, columns innermost, reads after one of k values ends: its next
// columns, from j on, or the first ones of the next block of k, of which k_after values are left.
template <class S>
RowsPrefetch next_block(const Gemm& g, const S* b, int64_t columns, int64_t block, int64_t j, int64_t k,
                        int64_t k_after) {
  constexpr int64_t kBytes = sizeof(S);
  if (j >= columns) {
    if (k_after == 0) return {};
    b += k * g.b_row;
    j = 0;
    k = std::min(kGemmBlockK, k_after);
  }
  const int64_t n = std::min(block, columns - j);
  b += j * g.b_col;
  if (g.b_row == 1) return {b, n, k * kBytes, g.b_col * kBytes};
  if (g.b_col == 1) return {b, k, n * kBytes, g.b_row * kBytes};
  return {};
}

// While a product goes through a block of kGemmBlockK values of k in several columns, `col` apart, this brings the same
// columns' `next` block to the L2 cache: kStep elements a step, as many as the step reads, in the order of memory.
template <int64_t kStep, class S>
inline __attribute__((always_inline)) void prefetch_columns(const S* next, int64_t col, int64_t step) {
  constexpr int64_t kStepsPerColumn = kGemmBlockK / kStep;
  const S* from = next + step / kStepsPerColumn * col + step % kStepsPerColumn * kStep;
#pragma GCC unroll 16
  for (size_t i = 0; i < kStep * sizeof(S) / 64; ++i)
    __builtin_prefetch(reinterpret_cast<const char*>(from) + 64 * i, 0, 2);
}

}  // namespace deepseek::kernels
