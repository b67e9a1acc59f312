// The inner kernel of int8 index scores with AVX-512 VNNI.
#pragma once

#include <cstdint>

namespace deepseek::kernels {

// sums[64] = over `heads` rows j in order: w[j] max(0, q_j . k) for the 64 keys of a panel. q: rows of `words` words of
// four features, each with 128 added (u8); panel [words][64] of four features (s8); start[64]: -128 times the sum of
// each key.
using IndexTileFn = void (*)(int64_t heads, int64_t words, const uint32_t* q, const uint32_t* panel,
                             const int32_t* start, const float* w, float* sums);
IndexTileFn index_tile_vnni();  // null without AVX-512 VNNI

}  // namespace deepseek::kernels
