#include "kernels/reduce/scan.h"

#include <cmath>

#include "kernels/loops/lines.h"

namespace deepseek::kernels {
namespace {

// Integers wrap, so they are added unsigned.
template <class C>
using Running = std::conditional_t<std::is_same_v<C, int64_t>, uint64_t, double>;

struct AddStep {
  template <class A>
  static A first() {
    return A(0);
  }
  template <class A>
  static A next(A total, A x) {
    return total + x;
  }
};

struct MultiplyStep {
  template <class A>
  static A first() {
    return A(1);
  }
  template <class A>
  static A next(A total, A x) {
    return total * x;
  }
};

struct LogAddExpStep {
  template <class A>
  static A first() {
    return -std::numeric_limits<A>::infinity();
  }
  template <class A>
  static A next(A total, A x) {
    if (std::isnan(total) || std::isnan(x)) return total + x;
    const A low = std::min(total, x), high = std::max(total, x);
    // Equal infinities would give inf - inf.
    return low == high && std::isinf(low) ? low : high + std::log1p(std::exp(low - high));
  }
};

// kLines lines side by side, so that their chains of additions overlap. A y may be its x.
template <int kLines, class Step, class C>
void scan_lines(const C* x, C* y, int64_t n) {
  using A = Running<C>;
  A total[kLines];
  std::fill_n(total, kLines, Step::template first<A>());
  for (int64_t i = 0; i < n; ++i)
#pragma GCC unroll 4  // keeps the totals in registers
    for (int j = 0; j < kLines; ++j) {
      total[j] = Step::next(total[j], static_cast<A>(x[j * n + i]));
      y[j * n + i] = static_cast<C>(total[j]);
    }
}

// Dense lines that follow each other.
template <class Step, class C>
void scan_dense(const View& out, const View& in, int64_t n) {
  constexpr int kTogether = 4;
  parallel_for(in.numel() / n, grain_for(2 * n * sizeof(C)), [&](int64_t begin, int64_t end) {
    Scratch<C> buffer(in.dtype == dtype_of<C> && out.dtype == dtype_of<C> ? 0 : kTogether * n);
    for (int64_t row = begin, lines; row < end; row += lines) {
      lines = end - row < kTogether ? 1 : kTogether;
      const C* x = in.dtype == dtype_of<C> ? in.as<C>() + row * n : buffer.data();
      C* y = out.dtype == dtype_of<C> ? out.as<C>() + row * n : buffer.data();
      if (x == buffer.data()) load_row(in.dtype, in.at(row * n), 1, lines * n, buffer.data());
      lines == 1 ? scan_lines<1, Step>(x, y, n) : scan_lines<kTogether, Step>(x, y, n);
      if (y == buffer.data()) store_row(out.dtype, out.at(row * n), 1, lines * n, y);
    }
  });
}

template <class Step, class C>
void scan_as(const View& out, const View& in, int dim) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  if (in.numel() == 0) return;
  if (in.ndim() > 0 && dim == in.ndim() - 1 && in.contiguous() && out.contiguous())
    return scan_dense<Step, C>(out, in, n);
  for_each_line<C, 1, 1, 0>({in}, {out}, {}, dim,
                            [n](const auto& x, const auto& y, const auto&) { scan_lines<1, Step, C>(x[0], y[0], n); });
}

template <class Step>
void scan(const char* op, const View& out, const View& in, int dim) {
  dispatch_sum(op, out.dtype, [&]<class C>() { scan_as<Step, C>(out, in, dim); });
}

template <class C>
void running_extreme_as(const View& values, const View& indices, const View& in, int dim, bool is_max) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  for_each_line<C, 1, 1, 1>({in}, {values}, {indices}, dim, [=](const auto& x, const auto& y, const auto& raw) {
    int64_t* index = static_cast<int64_t*>(raw[0].data);
    int64_t at = 0;
    C best = n > 0 ? x[0][0] : C(0);
    for (int64_t i = 0; i < n; ++i) {
      const C v = x[0][i];
      // NaN in `best` makes both comparisons false: only another NaN moves on.
      if (v != v || (is_max ? v >= best : v <= best)) best = v, at = i;
      y[0][i] = best;
      index[i * raw[0].stride] = at;
    }
  });
}

void running_extreme(const View& values, const View& indices, const View& in, int dim, bool is_max) {
  dispatch_sum(is_max ? "cummax" : "cummin", in.dtype,
               [&]<class C>() { running_extreme_as<C>(values, indices, in, dim, is_max); });
}

}  // namespace

void cumsum(const View& out, const View& in, int dim) { scan<AddStep>("cumsum", out, in, dim); }
void cumprod(const View& out, const View& in, int dim) { scan<MultiplyStep>("cumprod", out, in, dim); }
void logcumsumexp(const View& out, const View& in, int dim) {
  dispatch_float("logcumsumexp", out.dtype, [&]<class T>() { scan_as<LogAddExpStep, ComputeType<T>>(out, in, dim); });
}
void cummax(const View& values, const View& indices, const View& in, int dim) {
  running_extreme(values, indices, in, dim, true);
}
void cummin(const View& values, const View& indices, const View& in, int dim) {
  running_extreme(values, indices, in, dim, false);
}

}  // namespace deepseek::kernels
