#include "kernels/attention/attention_plain.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/attention_shape.h"
#include "kernels/loops/cast.h"
#include "kernels/simd/routes.h"
#include "runtime/rng.h"

namespace deepseek::kernels {
namespace {

// A tensor of up to four dims as doubles, gathered; missing dims are 1.
class Doubles {
 public:
  explicit Doubles(const View& v) : sizes_(v.sizes) {
    if (!v.data) return;
    Dims strides = v.strides;
    while (sizes_.size() < 4) sizes_.push_back(1), strides.push_back(0);
    values.reserve(static_cast<size_t>(numel_of(sizes_)));
    dispatch(v.dtype, [&]<class T>() {
      for (int64_t b = 0; b < sizes_[0]; ++b)
        for (int64_t h = 0; h < sizes_[1]; ++h)
          for (int64_t i = 0; i < sizes_[2]; ++i)
            for (int64_t j = 0; j < sizes_[3]; ++j)
              values.push_back(
                  convert<double>(v.as<T>()[b * strides[0] + h * strides[1] + i * strides[2] + j * strides[3]]));
    });
  }
  bool defined() const { return sizes_.size() > 0; }
  size_t at(int64_t b, int64_t h, int64_t i) const {
    return static_cast<size_t>(((b * sizes_[1] + h) * sizes_[2] + i) * sizes_[3]);
  }
  double get(int64_t b, int64_t h, int64_t i, int64_t j = 0) const {
    return values[at(b, h, i) + static_cast<size_t>(j)];
  }

  std::vector<double> values = {};

 private:
  Dims sizes_;
};

void store(const std::vector<double>& from, const View& to) {
  size_t at = 0;
  Dims strides = to.strides, sizes = to.sizes;
  while (sizes.size() < 4) sizes.push_back(1), strides.push_back(0);
  dispatch(to.dtype, [&]<class T>() {
    for (int64_t b = 0; b < sizes[0]; ++b)
      for (int64_t h = 0; h < sizes[1]; ++h)
        for (int64_t i = 0; i < sizes[2]; ++i)
          for (int64_t j = 0; j < sizes[3]; ++j)
            to.as<T>()[b * strides[0] + h * strides[1] + i * strides[2] + j * strides[3]] = convert<T>(from[at++]);
  });
}

struct Tensors {
  explicit Tensors(const Attention& a) : q(a.q), k(a.k), v(a.v), mask(a.mask), sinks(a.sinks) {}
  Doubles q, k, v, mask, sinks;
};

class Row {  // the scores of one query
 public:
  Row(const Attention& a, const AttentionShape& s, const Tensors& t, int64_t b, int64_t h, int64_t i)
      : a_(a), s_(s), t_(t), b_(b), h_(h), i_(i) {}

  // The score of key j, -inf where it takes no part; `slope` gets its derivative by q k.
  double score(int64_t j, double* slope) const {
    const int64_t p = s_.start + i_;
    *slope = 0;
    constexpr double kNone = -std::numeric_limits<double>::infinity();
    if (!s_.any(p, p, j, j)) return kNone;
    const double add = t_.mask.defined() ? t_.mask.get(b_, h_, i_, j) : 0;
    if (t_.mask.defined() && (a_.mask.dtype == DType::kBool ? add == 0 : add == kNone)) return kNone;
    double x = 0;
    for (int64_t d = 0; d < s_.d; ++d) x += t_.q.get(b_, h_, i_, d) * t_.k.get(b_, h_ / s_.group, j, d);
    x *= a_.scale;
    *slope = a_.scale;
    if (a_.softcap > 0) {
      const double y = std::tanh(x / a_.softcap);
      x = a_.softcap * y;
      *slope *= 1 - y * y;
    }
    return t_.mask.defined() && a_.mask.dtype != DType::kBool ? x + add : x;
  }
  // What a weight is multiplied by.
  double kept(int64_t j) const {
    if (a_.dropout_p <= 0) return 1;
    const auto index = static_cast<uint64_t>(((b_ * s_.heads + h_) * s_.queries + i_) * s_.keys + j);
    const uint64_t counter = a_.rng.offset + index / 4;
    const auto words = philox4x32({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                                  {static_cast<uint32_t>(a_.rng.seed), static_cast<uint32_t>(a_.rng.seed >> 32)});
    const auto limit = static_cast<uint64_t>(std::ceil((1 - a_.dropout_p) * 0x1p32));
    return words[index % 4] < limit ? 1 / (1 - a_.dropout_p) : 0;
  }

 private:
  const Attention& a_;
  const AttentionShape& s_;
  const Tensors& t_;
  int64_t b_, h_, i_;
};

template <class F>
void for_each_row(const AttentionShape& s, F f) {
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.queries; ++i) f(b, h, i);
}

}  // namespace

void attention_forward_plain(const Attention& a, const View& out, const View& lse, const View& lse_low) {
  count_route(Route::kAttentionPlain);
  const AttentionShape s(a);
  const Tensors t(a);
  std::vector<double> results, logs, lows, weight(static_cast<size_t>(s.keys)), sums(static_cast<size_t>(s.dv));
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  for_each_row(s, [&](int64_t b, int64_t h, int64_t i) {
    const Row row(a, s, t, b, h, i);
    const double sink = t.sinks.defined() ? t.sinks.values[static_cast<size_t>(h)] : kNone;
    double top = sink, slope;
    for (int64_t j = 0; j < s.keys; ++j) top = std::max(weight[j] = row.score(j, &slope), top);
    const double shift = std::isinf(top) ? 0 : top;
    double total = std::exp(sink - shift);
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t j = 0; j < s.keys; ++j) {
      total += weight[j] = std::exp(weight[j] - shift);
      if (weight[j] == 0) continue;
      const double w = weight[j] * row.kept(j),
                   *v = &t.v.values[t.v.at(b, h / s.group, 0) + static_cast<size_t>(j * s.dv)];
      for (int64_t d = 0; d < s.dv; ++d) sums[d] += w * v[d];
    }
    for (const double sum : sums) results.push_back(total == 0 ? 0 : sum / total);
    const double from = total == 0 ? kNone : shift;
    const auto put = [&]<class T>(LogSum<T> log) { logs.push_back(log.high), lows.push_back(log.low); };
    lse.dtype == DType::kFloat64 ? put(LogSum<double>(from, std::log(total)))
                                 : put(LogSum<float>(from, std::log(total)));
  });
  store(results, out);
  store(logs, lse);
  if (lse_low.data && lse_low.numel() > 0) store(lows, lse_low);
}

void attention_backward_plain(const Attention& a, const View& grad_out, const View& lse, const View& delta,
                              const View& dq, const View& dk, const View& dv, const View& lse_low) {
  const AttentionShape s(a);
  const Tensors t(a);
  const Doubles grad(grad_out), logs(lse), shift(delta), lows(lse_low);
  const bool exact = lse_low.data && lse_low.numel() > 0;
  std::vector<double> by_q(t.q.values.size()), by_k(t.k.values.size()), by_v(t.v.values.size());
  for_each_row(s, [&](int64_t b, int64_t h, int64_t i) {
    const Row row(a, s, t, b, h, i);
    const size_t at_q = t.q.at(b, h, i), at_g = grad.at(b, h, i);
    for (int64_t j = 0; j < s.keys; ++j) {
      double slope, by_weight = 0;
      const double x = row.score(j, &slope);
      if (std::isinf(x)) continue;
      const double p = std::exp(x - logs.get(b, h, i) - (exact ? lows.get(b, h, i) : 0)), kept = row.kept(j);
      const size_t at_k = t.k.at(b, h / s.group, j), at_v = t.v.at(b, h / s.group, j);
      for (size_t d = 0; d < static_cast<size_t>(s.dv); ++d) {
        by_weight += grad.values[at_g + d] * t.v.values[at_v + d];
        by_v[at_v + d] += p * kept * grad.values[at_g + d];
      }
      const double by_score = p * (by_weight * kept - shift.get(b, h, i)) * slope;
      for (size_t d = 0; d < static_cast<size_t>(s.d); ++d) {
        by_q[at_q + d] += by_score * t.k.values[at_k + d];
        by_k[at_k + d] += by_score * t.q.values[at_q + d];
      }
    }
  });
  store(by_q, dq);
  store(by_k, dk);
  store(by_v, dv);
}

}  // namespace deepseek::kernels
