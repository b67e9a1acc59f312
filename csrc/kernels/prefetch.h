// Reading ahead while the arithmetic units are busy.
#pragma once

#include <cstdint>

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

}  // namespace deepseek::kernels
