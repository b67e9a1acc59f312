// Scores of a few queries against keys that come from memory once: squares of keys and words are turned in registers,
// so that a vector holds as many keys as it has lanes and none is idle. The chains over the features, and so the bits,
// are those of the tiles for many rows.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "kernels/gemm/tile/prefetch.h"

namespace deepseek::kernels::few_rows {

inline constexpr int64_t kMaxRows = 8, kKeys = 32;

// out[r * kKeys + j] = sum over i < n of a[j * a_row + i] * b[i * panel + r] for r < rows and kKeys keys j, in order of
// i; a panel is 64 rows with AVX-512, 16 with AVX2. bfloat16 are read as floats, n is even. `ahead` is asked for as
// much as is read.
namespace avx2 {
void scores(int64_t rows, int64_t n, const float* a, int64_t a_row, const float* b, float* out,
            NearRowsPrefetch& ahead);
void scores(int64_t rows, int64_t n, const BFloat16* a, int64_t a_row, const float* b, float* out,
            NearRowsPrefetch& ahead);
}  // namespace avx2

namespace avx512 {
void scores(int64_t rows, int64_t n, const float* a, int64_t a_row, const float* b, float* out,
            NearRowsPrefetch& ahead);
void scores(int64_t rows, int64_t n, const BFloat16* a, int64_t a_row, const float* b, float* out,
            NearRowsPrefetch& ahead);
// Both are pairs of bf16, n of them (needs AVX512_BF16).
void scores(int64_t rows, int64_t n, const uint32_t* a, int64_t a_row, const uint32_t* b, float* out,
            NearRowsPrefetch& ahead);
}  // namespace avx512

}  // namespace deepseek::kernels::few_rows
