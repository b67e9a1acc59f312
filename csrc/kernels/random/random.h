// Random fills. Element i of a draw (in row-major order) depends on (seed, offset) and i alone: not on threads, on the
// ISA for f32, f16 and bf16, or on how a draw is split at multiples of four elements. It uses word i % 4 of the Philox
// counter {offset + i / 4, stream, 0} with the seed as key. Draws of 64 bits join the words of streams 0 and 1, so n
// elements of any type use up (n + 3) / 4 counters: what Generator::reserve(n) takes. `out` is contiguous. Floating
// draws support f16, bf16, f32 and f64 and throw NotImplementedError for others.
#pragma once

#include "base/view.h"
#include "runtime/rng.h"

namespace deepseek::kernels {

// [low, high), or low everywhere when low == high. 24 bits for f32, 53 for f64, 11 for f16, 8 for bf16.
void uniform(const View& out, RngState state, double low, double high);

// Box-Muller on the pairs (0, 1), (2, 3), ...
void normal(const View& out, RngState state, double mean, double std);

// Density rate * exp(-rate * x); never zero.
void exponential(const View& out, RngState state, double rate);

// Integers of [low, high), low < high, in any dtype. The bias is at most (high - low) / 2^64.
void randint(const View& out, RngState state, int64_t low, int64_t high);

// 1 with probability p, else 0, in any dtype. p is floating and has out's sizes (any strides); p outside [0, 1] throws.
// Probabilities are rounded up to multiples of 2^-32.
void bernoulli(const View& out, const View& p, RngState state);

// A uniformly random order of 0 ... n-1.
void random_permutation(int64_t* out, int64_t n, RngState state);

// out: int64 [rows, k]; probs: floating [rows, n], any strides, weights that need not sum to one. Without replacement a
// row's samples come in the order in which they would be drawn one by one.
// Throws for negative, infinite or NaN weights, rows that sum to zero, and, without replacement, fewer than k positive
// weights. `state` must hold multinomial_draws(...) elements.
void multinomial(const View& out, const View& probs, RngState state, bool replacement);
int64_t multinomial_draws(int64_t rows, int64_t n, int64_t k, bool replacement);

}  // namespace deepseek::kernels
