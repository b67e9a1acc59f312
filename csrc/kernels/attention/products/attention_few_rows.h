// Scores of a few queries against keys that come from memory once (AVX-512): blocks of 16 keys x 16 words are turned in
// registers, so that a vector holds 16 keys and no lane is idle. The chains over the features, and so the bits, are
// those of the tiles for many rows.
#pragma once

#include <cstdint>

#include "kernels/gemm/tile/prefetch.h"

namespace deepseek::kernels::few_rows {

inline constexpr int64_t kMaxRows = 8, kKeys = 32;

// out[r * kKeys + j] = sum over i < n of a[j * a_row + i] * b[i * 64 + r] for r < rows and kKeys keys j. uint32_t are
// pairs of bf16 (needs AVX512_BF16). `ahead` is asked for as much as is read.
void scores(int64_t rows, int64_t n, const float* a, int64_t a_row, const float* b, float* out, RowsPrefetch& ahead);
void scores(int64_t rows, int64_t n, const uint32_t* a, int64_t a_row, const uint32_t* b, float* out,
            RowsPrefetch& ahead);

}  // namespace deepseek::kernels::few_rows
