#include "kernels/nn/sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kLanes = 8;  // matrices side by side, so that the compiler vectorizes over them

// kLanes matrices on their way: element (i, j) of all of them is a line.
template <class C>
class Matrices {
 public:
  Matrices(int64_t n, int64_t rounds, C eps)
      : n_(n), steps_(2 * rounds - 1), eps_(eps), size_(n * n * kLanes), sums_(n * kLanes), grad_(size_) {}

  // The result of each step is kept if `all`, for backward.
  void forward(const C* logits, int64_t count, bool all) {
    w_.resize(size_ * (all ? steps_ + 1 : 1));
    totals_.resize(all ? n_ * kLanes * steps_ : 0);
    load(logits, count, w_.data());
    softmax(w_.data());
    if (all) p_.assign(w_.begin(), w_.begin() + size_);
    for (int64_t i = 0; i < size_; ++i) w_[i] += eps_;
    for (int64_t step = 0; step < steps_; ++step) {
      const C* from = w_.data() + (all ? step * size_ : 0);
      C* to = w_.data() + (all ? (step + 1) * size_ : 0);
      divide(from, step % 2 == 0, to);
      if (all) std::copy(sums_.begin(), sums_.end(), totals_.begin() + step * n_ * kLanes);
    }
  }
  void store(int64_t count, C* out) const { store(w_.data(), count, out); }

  // After forward(.., all).
  void backward(const C* grad, int64_t count, C* by_logits) {
    load(grad, count, grad_.data());
    for (int64_t step = steps_ - 1; step >= 0; --step) {
      const C *y = w_.data() + (step + 1) * size_, *total = totals_.data() + step * n_ * kLanes;
      weigh(grad_.data(), y, step % 2 == 0);
      each(step % 2 == 0, [&](int64_t at, int64_t line) {
        for (int64_t l = 0; l < kLanes; ++l) grad_[at + l] = (grad_[at + l] - sums_[line + l]) / total[line + l];
      });
    }
    weigh(grad_.data(), p_.data(), false);
    each(false, [&](int64_t at, int64_t line) {
      for (int64_t l = 0; l < kLanes; ++l) grad_[at + l] = p_[at + l] * (grad_[at + l] - sums_[line + l]);
    });
    store(grad_.data(), count, by_logits);
  }

 private:
  // f(place of element (i, j), place of its column's or row's sum) for all elements.
  template <class F>
  void each(bool columns, F&& f) const {
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < n_; ++j) f((i * n_ + j) * kLanes, (columns ? j : i) * kLanes);
  }
  void load(const C* from, int64_t count, C* to) const {
    const int64_t elements = n_ * n_;
    for (int64_t e = 0; e < elements; ++e)
      for (int64_t l = 0; l < kLanes; ++l) to[e * kLanes + l] = l < count ? from[l * elements + e] : C(0);
  }
  void store(const C* from, int64_t count, C* to) const {
    const int64_t elements = n_ * n_;
    for (int64_t l = 0; l < count; ++l)
      for (int64_t e = 0; e < elements; ++e) to[l * elements + e] = from[e * kLanes + l];
  }
  void softmax(C* w) {
    for (int64_t i = 0; i < n_; ++i) {
      C* row = w + i * n_ * kLanes;
      C top[kLanes], total[kLanes] = {};
      std::copy_n(row, kLanes, top);
      for (int64_t j = 1; j < n_; ++j)
        for (int64_t l = 0; l < kLanes; ++l) top[l] = std::max(top[l], row[j * kLanes + l]);
      for (int64_t j = 0; j < n_; ++j)
        for (int64_t l = 0; l < kLanes; ++l) total[l] += row[j * kLanes + l] = std::exp(row[j * kLanes + l] - top[l]);
      for (int64_t j = 0; j < n_; ++j)
        for (int64_t l = 0; l < kLanes; ++l) row[j * kLanes + l] /= total[l];
    }
  }
  // Columns or rows divided by their sum + eps, which stays in sums_.
  void divide(const C* from, bool columns, C* to) {
    std::fill(sums_.begin(), sums_.end(), C(0));
    each(columns, [&](int64_t at, int64_t line) {
      for (int64_t l = 0; l < kLanes; ++l) sums_[line + l] += from[at + l];
    });
    for (C& total : sums_) total += eps_;
    each(columns, [&](int64_t at, int64_t line) {
      for (int64_t l = 0; l < kLanes; ++l) to[at + l] = from[at + l] / sums_[line + l];
    });
  }
  // sums_ = the sums of g y along columns or rows.
  void weigh(const C* g, const C* y, bool columns) {
    std::fill(sums_.begin(), sums_.end(), C(0));
    each(columns, [&](int64_t at, int64_t line) {
      for (int64_t l = 0; l < kLanes; ++l) sums_[line + l] += g[at + l] * y[at + l];
    });
  }

  int64_t n_, steps_;
  C eps_;
  int64_t size_;
  std::vector<C> sums_, grad_, w_, totals_, p_;
};

template <class C>
void forward_as(const View& logits, int64_t rounds, C eps, const View& out) {
  const int64_t matrices = logits.sizes[0], n = logits.sizes[1], blocks = (matrices + kLanes - 1) / kLanes;
  parallel_for(blocks, grain_for(kLanes * n * n * rounds * 32), [&](int64_t begin, int64_t end) {
    Matrices<C> block(n, rounds, eps);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t count = std::min(kLanes, matrices - b * kLanes), at = b * kLanes * n * n;
      block.forward(logits.as<C>() + at, count, false);
      block.store(count, out.as<C>() + at);
    }
  });
}

template <class C>
void backward_as(const View& grad, const View& logits, int64_t rounds, C eps, const View& by_logits) {
  const int64_t matrices = logits.sizes[0], n = logits.sizes[1], blocks = (matrices + kLanes - 1) / kLanes;
  parallel_for(blocks, grain_for(kLanes * n * n * rounds * 96), [&](int64_t begin, int64_t end) {
    Matrices<C> block(n, rounds, eps);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t count = std::min(kLanes, matrices - b * kLanes), at = b * kLanes * n * n;
      block.forward(logits.as<C>() + at, count, true);
      block.backward(grad.as<C>() + at, count, by_logits.as<C>() + at);
    }
  });
}

}  // namespace

void sinkhorn(const View& logits, int64_t rounds, double eps, const View& out) {
  if (logits.dtype == DType::kFloat64)
    forward_as<double>(logits, rounds, eps, out);
  else
    forward_as<float>(logits, rounds, static_cast<float>(eps), out);
}

void sinkhorn_backward(const View& grad, const View& logits, int64_t rounds, double eps, const View& by_logits) {
  if (logits.dtype == DType::kFloat64)
    backward_as<double>(grad, logits, rounds, eps, by_logits);
  else
    backward_as<float>(grad, logits, rounds, static_cast<float>(eps), by_logits);
}

}  // namespace deepseek::kernels
