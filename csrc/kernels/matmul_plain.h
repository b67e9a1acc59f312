// The project's own GEMM (f32, f64; bf16 and f16 read into f32). For every shape, layout, tile and thread count one
// element of C is
//   ((c0 + p0) + p1) + ...
// where p_i is a chain of fused multiply-adds from zero over the i-th block of kGemmBlockK values of k, and c0 (the old
// value) is left out when `accumulate` is false. So its bits depend on its row of A, its column of B and K alone.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace deepseek::kernels {

inline constexpr int64_t kGemmBlockK = 512;  // part of the result's definition: changing it changes bits

// C[m, n] (+)= A[m, k] B[k, n]. Strides in elements. C is row-major: float for bf16 and f16
// inputs, else of the input type.
struct Gemm {
  DType dtype;
  int64_t m, n, k;
  const void* a;
  int64_t a_row, a_col;
  const void* b;
  int64_t b_row, b_col;
  void* c;
  int64_t c_row;
  bool accumulate = false;
};

// Float matrices of a batch that have a way of their own.
inline bool is_dense_4x4(const Gemm& g) {
  return g.dtype == DType::kFloat32 && g.m == 4 && g.n == 4 && g.k == 4 && g.a_col == 1 && g.a_row == 4 &&
         g.b_col == 1 && g.b_row == 4 && g.c_row == 4;
}

// Serial. `count` problems whose A, B and C lie a_step, b_step and c_step elements apart.
void gemm_plain(const Gemm& g, int64_t count = 1, int64_t a_step = 0, int64_t b_step = 0, int64_t c_step = 0);

// Any integer type and bool (logical or of ands), modulo 2^bits. Serial; C is row-major of the input type.
void gemm_integer(const Gemm& g);

}  // namespace deepseek::kernels
