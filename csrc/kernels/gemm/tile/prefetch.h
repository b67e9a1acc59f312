// Reading ahead while the arithmetic units are busy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/gemm/matmul_float.h"

namespace deepseek::kernels {

// Brings pieces of memory to the L2 or L1 cache a few lines at a time: a product hides the way of its next operand
// behind the tiles of this one. Changes no result. Pieces::next() is the next one, of no bytes where there is none.
struct MemoryPiece {
  const char* data = nullptr;
  int64_t bytes = 0;
};
template <class Pieces, int kCache = 2>
class Prefetch : public Pieces {
 public:
  using Pieces::Pieces;
  void advance(int64_t lines) {
    while (lines > 0) {
      if (at_ >= piece_.bytes) {
        piece_ = this->next(), at_ = 0;
        if (piece_.bytes <= 0) return;
      }
      const int64_t end = std::min(at_ + lines * kLine, piece_.bytes);
      for (; at_ < end; at_ += kLine, --lines) __builtin_prefetch(piece_.data + at_, 0, 4 - kCache);
    }
  }
  void clear() {
    Pieces::clear();
    piece_ = {}, at_ = 0;
  }

 private:
  static constexpr int64_t kLine = 64;
  MemoryPiece piece_ = {};
  int64_t at_ = 0;
};

// Rows of memory, a step of step_bytes between them.
class MemoryRows {
 public:
  MemoryRows() = default;
  MemoryRows(const void* first, int64_t rows, int64_t row_bytes, int64_t step_bytes)
      : row_(static_cast<const char*>(first)), rows_(rows), row_bytes_(row_bytes), step_bytes_(step_bytes) {
    if (step_bytes == row_bytes && rows > 0) row_bytes_ *= rows_, rows_ = 1;  // no gaps between rows
  }
  int64_t lines() const { return rows_ * ((row_bytes_ + 63) / 64); }

 protected:
  void clear() { rows_ = 0; }
  MemoryPiece next() {
    if (rows_ <= 0) return {};
    const MemoryPiece piece{row_, row_bytes_};
    row_ += step_bytes_, --rows_;
    return piece;
  }

 private:
  const char* row_ = nullptr;
  int64_t rows_ = 0, row_bytes_ = 0, step_bytes_ = 0;
};
using RowsPrefetch = Prefetch<MemoryRows>;
// For what is read once, soon: where it passes the L2 cache by, a core has more lines on their way.
using NearRowsPrefetch = Prefetch<MemoryRows, 1>;

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
