// The project's own GEMM (f32, f64; bf16 and f16 read into f32). For every shape, layout, tile and thread count one
// element of C is
//   ((c0 + p0) + p1) + ...
// where p_i is a chain of fused multiply-adds from zero over the i-th block of kGemmBlockK values of k, and c0 (a bias,
// or the old value) may be missing. So its bits depend on its c0, its row of A, its column of B and K alone.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace deepseek::kernels {

inline constexpr int64_t kGemmBlockK = 512;  // part of the result's definition: changing it changes bits

// Where sums go: out = from + sums, or the sums alone where `from` is null. Rows of both are contiguous. `out` is null
// where they are rounded elsewhere.
template <class T>
struct Sums {
  T* out;
  int64_t out_row;
  const T* from = nullptr;
  int64_t from_row = 0;  // 0: one row for all

  Sums at(int64_t i, int64_t j) const {
    return {out ? out + i * out_row + j : nullptr, out_row, from ? from + i * from_row + j : nullptr, from_row};
  }
  Sums added_to() const { return {out, out_row, out, out_row}; }
};

// A tile of sums, `width` apart, to where they go.
template <class T>
void store_tile(const T* sums, int64_t width, int64_t rows, int64_t columns, const Sums<T>& c) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      const T sum = sums[i * width + j];
      c.out[i * c.out_row + j] = c.from ? c.from[i * c.from_row + j] + sum : sum;
    }
}

// C[m, n] = c0 + A[m, k] B[k, n]. Strides in elements. C is row-major: float for bf16 and f16 inputs, else of the input
// type.
struct Gemm {
  DType dtype;
  int64_t m, n, k;
  const void* a;
  int64_t a_row, a_col;
  const void* b;
  int64_t b_row, b_col;
  void* c;
  int64_t c_row;
  const void* c0 = nullptr;  // of C's type: nothing, C itself, or rows of a bias (c0_row 0: one bias for all)
  int64_t c0_row = 0;

  template <class T>
  Sums<T> sums() const {
    return {static_cast<T*>(c), c_row, static_cast<const T*>(c0), c0_row};
  }
};

// Float matrices of a batch that have a way of their own.
inline bool is_dense_4x4(const Gemm& g) {
  return g.dtype == DType::kFloat32 && g.m == 4 && g.n == 4 && g.k == 4 && g.a_col == 1 && g.a_row == 4 &&
         g.b_col == 1 && g.b_row == 4 && g.c_row == 4 && (!g.c0 || g.c0_row == 4);
}

// Serial. `count` problems whose A, B and C lie a_step, b_step and c_step elements apart; of more than one, c0 is
// nothing or C.
void gemm_float(const Gemm& g, int64_t count = 1, int64_t a_step = 0, int64_t b_step = 0, int64_t c_step = 0);

// Any integer type and bool (logical or of ands), modulo 2^bits. Serial; C is row-major of the input type.
void gemm_integer(const Gemm& g);

}  // namespace deepseek::kernels
