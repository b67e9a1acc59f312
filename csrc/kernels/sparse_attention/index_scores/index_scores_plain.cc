#include <algorithm>
#include <limits>

#include "kernels/loops/cast.h"
#include "kernels/quant/quantize.h"
#include "kernels/simd/routes.h"
#include "kernels/sparse_attention/index_scores/index_scores.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

template <class T, class C>
void plain(const IndexScores& a, const View& out) {
  const int64_t queries = a.q.sizes[1], heads = a.q.sizes[2], d = a.q.sizes[3], keys = a.k.sizes[1];
  const auto scale = [](const View& v, int64_t i) { return v.data ? static_cast<double>(v.as<float>()[i]) : 1.0; };
  for (int64_t row = 0; row < a.q.sizes[0] * queries; ++row)
    for (int64_t s = 0; s < keys; ++s) {
      const int64_t at = row / queries * keys + s;
      const T* k = a.k.as<T>() + at * d;
      double sum = 0;
      for (int64_t j = row * heads; j < (row + 1) * heads; ++j) {
        double dot = 0;
        for (int64_t i = 0; i < d; ++i) dot += convert<double>(a.q.as<T>()[j * d + i]) * convert<double>(k[i]);
        sum += static_cast<double>(a.w.as<C>()[j]) * scale(a.q_scale, j) * (dot > 0 ? dot : dot * 0);
      }
      const bool seen = !a.causal || s <= a.query_start + row % queries;
      out.as<C>()[row * keys + s] =
          seen ? static_cast<C>(sum * scale(a.k_scale, at)) : -std::numeric_limits<C>::infinity();
    }
}

}  // namespace

void index_scores_plain(const IndexScores& a, const View& out) {
  count_route(Route::kIndexScoresPlain);
  dispatch(a.q.dtype,
           [&]<class T>() { out.dtype == DType::kFloat64 ? plain<T, double>(a, out) : plain<T, float>(a, out); });
}

void quantize_rows(const View& in, const View& codes, const View& scales) {
  const int64_t d = in.sizes[in.ndim() - 1], n = scales.numel();
  parallel_for(n, grain_for(5 * d + 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      scales.as<float>()[i] = quantize_activations(in.as<float>() + i * d, d, codes.as<int8_t>() + i * d);
  });
}

}  // namespace deepseek::kernels
