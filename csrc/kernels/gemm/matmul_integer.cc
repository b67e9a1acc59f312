// Integer and bool products: sums modulo 2^bits, so their order is free.
#include <algorithm>
#include <type_traits>

#include "kernels/gemm/matmul_float.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"

namespace deepseek::kernels {
namespace {

template <class T>
using SumType =
    std::conditional_t<std::is_same_v<T, bool>, uint8_t, std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>>;

template <class T>
void run(const Gemm& g) {
  using Sum = SumType<T>;
  const T* a = static_cast<const T*>(g.a);
  const T* b = static_cast<const T*>(g.b);
  const Sums<T> c = g.sums<T>();
  constexpr int64_t kBlock = 256;  // columns whose sums stay in the L1 cache
  Sum sums[kBlock], row[kBlock];
  for (int64_t j0 = 0; j0 < g.n; j0 += kBlock) {
    const int64_t n = std::min(kBlock, g.n - j0);
    for (int64_t i = 0; i < g.m; ++i) {
      for (int64_t j = 0; j < n; ++j) sums[j] = c.from ? static_cast<Sum>(c.from[i * c.from_row + j0 + j]) : Sum(0);
      for (int64_t k = 0; k < g.k; ++k) {
        const Sum x = static_cast<Sum>(a[i * g.a_row + k * g.a_col]);
        if (x == 0) continue;
        const T* from = b + k * g.b_row + j0 * g.b_col;
        if (g.b_col == 1)  // known to the compiler, which makes vectors of it
          for (int64_t j = 0; j < n; ++j) row[j] = static_cast<Sum>(from[j]);
        else
          for (int64_t j = 0; j < n; ++j) row[j] = static_cast<Sum>(from[j * g.b_col]);
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) {
          if constexpr (std::is_same_v<T, bool>)
            sums[j] |= x & row[j];
          else
            sums[j] += x * row[j];
        }
      }
      for (int64_t j = 0; j < n; ++j) c.out[i * c.out_row + j0 + j] = static_cast<T>(sums[j]);
    }
  }
}

}  // namespace

void gemm_integer(const Gemm& g) {
  count_route(Route::kMatmulInteger);
  dispatch(g.dtype, [&]<class T>() {
    if constexpr (std::is_integral_v<T>)
      run<T>(g);
    else
      fail<TypeError>("integer matmul kernel called with ", g.dtype);
  });
}

}  // namespace deepseek::kernels
