// bf16 GEMM with the AVX512_BF16 dot product (vdpbf16ps), about twice the f32 rate. One element of C is
// ((c0 + p0) + p1) + ..., p_i a chain of dot products of pairs (k, k + 1) over the i-th block of kGemmBlockK values of
// k, so its bits depend on its row of A, its column of B and K alone. The instruction flushes denormals, so bits differ
// from gemm_float.
#pragma once

#include "kernels/gemm/matmul_float.h"

namespace deepseek::kernels {

// As gemm_float, where uses_bf16_dot(bf16).
void gemm_bf16(const Gemm& g, int64_t count = 1, int64_t a_step = 0, int64_t b_step = 0, int64_t c_step = 0);

// Up to here rows are left to kernels that do not round.
inline constexpr int64_t kBf16FewRows = 48;
// The same sums rounded once into C of bf16 (c0 is float still), for more rows. sums: room for m x n, used where K is
// more than one block.
void gemm_bf16_rounded(const Gemm& g, float* sums);

}  // namespace deepseek::kernels
