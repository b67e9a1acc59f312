#include "kernels/pointwise/add_zero.h"

#include <cmath>

#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

template <class T>
bool is_minus_zero(T x) {
  const auto wide = static_cast<ComputeType<T>>(x);
  return (wide == 0) & (std::signbit(wide) != 0);
}

template <class T>
void add_zero(T* p, int64_t n) {
  int any = 0;
#pragma omp simd reduction(| : any)
  for (int64_t i = 0; i < n; ++i) any |= is_minus_zero(p[i]);
  for (int64_t i = 0; any && i < n; ++i)
    if (is_minus_zero(p[i])) p[i] = T(0);
}

}  // namespace

void add_zero(const View& x) {
  constexpr int64_t kRun = 4096;  // read again only where one was found
  dispatch(x.dtype, [&]<class T>() {
    if constexpr (is_differentiable(dtype_of<T>)) {
      const int64_t n = x.numel();
      parallel_for((n + kRun - 1) / kRun, grain_for(kRun * static_cast<int64_t>(sizeof(T))),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) add_zero(x.as<T>() + i * kRun, std::min(kRun, n - i * kRun));
                   });
    }
  });
}

}  // namespace deepseek::kernels
