// Scores of a few queries against keys that come from memory once (AVX-512): blocks of 16 keys x 16 words are turned in
// registers, so that a vector holds 16 keys and no lane is idle. The chains over the features, and so the bits, are
// those of the tiles for many rows.
#pragma once

#include <cstdint>

namespace deepseek::kernels::few_rows {

inline constexpr int64_t kMaxRows = 8, kKeys = 32;

// Asks for rows of memory line by line, in steps small enough to run beside the arithmetic.
class Ahead {
 public:
  Ahead(const void* first, int64_t rows, int64_t row_bytes, int64_t step_bytes)
      : row_(static_cast<const char*>(first)), rows_(rows), row_bytes_(row_bytes), step_bytes_(step_bytes) {
    if (step_bytes == row_bytes && rows > 0) row_bytes_ *= rows_, rows_ = 1;  // no gaps between rows
  }
  void take(int64_t lines) {
    while (lines > 0 && rows_ > 0) {
      const int64_t end = at_ + lines * 64 < row_bytes_ ? at_ + lines * 64 : row_bytes_;
      for (; at_ < end; at_ += 64, --lines) __builtin_prefetch(row_ + at_, 0, 2);  // into the second level
      if (at_ < row_bytes_) continue;
      at_ = 0, row_ += step_bytes_, --rows_;
    }
  }

 private:
  const char* row_;
  int64_t rows_, row_bytes_, step_bytes_, at_ = 0;
};

// out[r * kKeys + j] = sum over i < n of a[j * a_row + i] * b[i * 64 + r] for r < rows and kKeys keys j. uint32_t are
// pairs of bf16 (needs AVX512_BF16). `ahead` is asked for as much as is read.
void scores(int64_t rows, int64_t n, const float* a, int64_t a_row, const float* b, float* out, Ahead& ahead);
void scores(int64_t rows, int64_t n, const uint32_t* a, int64_t a_row, const uint32_t* b, float* out, Ahead& ahead);

}  // namespace deepseek::kernels::few_rows
