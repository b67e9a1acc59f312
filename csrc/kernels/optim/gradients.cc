#include "kernels/optim/gradients.h"

#include <atomic>

#include "base/check.h"
#include "kernels/simd/routes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/gradients.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/optim/step-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

template <class P>
NonFinite unscale_range(P* p, double factor, int64_t n) {
  using C = ComputeType<P>;
  const hn::ScalableTag<C> d;
  const auto f = hn::Set(d, static_cast<C>(factor));
  const bool writes = factor != 1;
  NonFinite found;
  vectors(d, n, [&](int64_t i, int64_t count) HWY_ATTR {
    const auto v = load_part(d, p + i, count);
    if (!hn::AllTrue(d, hn::IsFinite(v))) {  // rarely; the lanes behind the end are zeros
      const auto nan = hn::IsNaN(v);
      found.nan += static_cast<int64_t>(hn::CountTrue(d, nan));
      found.infinite += static_cast<int64_t>(hn::CountTrue(d, hn::AndNot(nan, hn::Not(hn::IsFinite(v)))));
    }
    if (writes) store_part(d, hn::Mul(v, f), p + i, count);
  });
  return found;
}

NonFinite UnscaleRange(const TensorRef& t, double factor, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(Unscale);
  return dispatch_float("unscale", t.dtype,
                        [&]<class P>() { return unscale_range(static_cast<P*>(t.data) + begin, factor, end - begin); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(UnscaleRange);

namespace {

constexpr int64_t kSquaresChunk = 8192;

// 16 interleaved sums, then a tree: the same for every caller.
template <class T>
double squares_of_chunk(const T* p, int64_t n) {
  double sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
#pragma omp simd
    for (int64_t j = 0; j < 16; ++j) {
      const double x = static_cast<double>(static_cast<ComputeType<T>>(p[i + j]));
      sums[j] += x * x;
    }
  }
  for (int64_t j = 0; i + j < n; ++j) {
    const double x = static_cast<double>(static_cast<ComputeType<T>>(p[i + j]));
    sums[j] += x * x;
  }
  for (int width = 8; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) sums[j] += sums[j + width];
  return sums[0];
}

}  // namespace

NonFinite unscale(std::span<const TensorRef> tensors, double factor) {
  for (const TensorRef& t : tensors)
    DS_CHECK_AS(TypeError, is_floating(t.dtype) && !is_float8(t.dtype),
                "unscale: gradients must be float32, float64, bfloat16 or float16, got ", t.dtype);
  std::atomic<int64_t> infinite = 0, nan = 0;
  over_concatenation(tensors, 8, [&](size_t i, int64_t begin, int64_t end) {
    const NonFinite found = HWY_DYNAMIC_DISPATCH(UnscaleRange)(tensors[i], factor, begin, end);
    if (found.infinite > 0) infinite.fetch_add(found.infinite, std::memory_order_relaxed);
    if (found.nan > 0) nan.fetch_add(found.nan, std::memory_order_relaxed);
  });
  return {infinite, nan};
}

void sum_squares(std::span<const TensorRef> tensors, double* out) {
  std::vector<int64_t> first(tensors.size() + 1, 0);  // chunks before tensor i
  for (size_t i = 0; i < tensors.size(); ++i)
    first[i + 1] = first[i] + (tensors[i].numel + kSquaresChunk - 1) / kSquaresChunk;
  std::vector<double> partial(first.back());
  parallel_for(first.back(), 2, [&](int64_t begin, int64_t end) {
    size_t i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
    for (int64_t c = begin; c < end; ++c) {
      while (c >= first[i + 1]) ++i;
      const int64_t at = (c - first[i]) * kSquaresChunk, n = std::min(kSquaresChunk, tensors[i].numel - at);
      partial[c] = dispatch(tensors[i].dtype, [&]<class T>() {
        return squares_of_chunk(static_cast<const T*>(tensors[i].data) + at, n);
      });
    }
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    out[i] = 0;
    for (int64_t c = first[i]; c < first[i + 1]; ++c) out[i] += partial[c];
  }
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
