// SIMD parts of the random fills. All lengths are padded: buffers hold kRandomBlock values.
#pragma once

#include <cstdint>

#include "runtime/rng.h"

namespace deepseek::kernels {

inline constexpr int64_t kRandomBlock = 1024;

// words[4c + k] := word k of the Philox counter {state.offset + c, stream, 0}, for at least the first `n` words.
void philox_words(RngState state, uint32_t stream, int64_t n, uint32_t* words);

// out[i] := min(low + range * u, limit) with u the upper 24 bits of words[i] as a fraction.
void uniform_from_words(const uint32_t* words, int64_t n, float low, float range, float limit, float* out);

// Box-Muller: out[2j], out[2j+1] from words[2j] (radius) and words[2j+1] (angle).
void normal_from_words(const uint32_t* words, int64_t n, float mean, float std, float* out);

}  // namespace deepseek::kernels
