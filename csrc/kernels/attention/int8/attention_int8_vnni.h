// Products of int8 keys and the two halves of 16-bit queries, with AVX-512 VNNI.
#pragma once

#include <cstdint>

namespace deepseek::kernels {

// Rows of queries in a panel [words][vecs * lanes] of four features a word (s8): a vector holds the high halves of
// lanes / 2 rows, then their low halves.
struct Int8Panel {
  const uint32_t* words;
  const int32_t* start;  // [vecs * lanes]: -128 times the sum of each
  const float* scale;    // [vecs * lanes / 2]
  int64_t vecs, count;   // count: words
};
// out[key][64]: (256 high + low) scale k_scale of each row (attention_int8.h). Keys are rows of `count` words, `row`
// bytes apart.
using Int8ScoresFn = void (*)(int64_t n, const int8_t* keys, int64_t row, const float* k_scale, const Int8Panel& panel,
                              float* out);
// Of vectors of 8 or 16 lanes; null without VNNI.
Int8ScoresFn int8_scores_vnni(int64_t lanes);

}  // namespace deepseek::kernels
