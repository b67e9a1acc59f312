#include "kernels/nn/rope.h"

#include "kernels/loops/iter.h"
#include "kernels/loops/lines.h"
#include "kernels/loops/rows.h"
#include "kernels/simd/routes.h"
#include "runtime/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/nn/rope.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One row of memory type P. Products and sums round separately, as in the composite.
template <class P, bool kInterleaved>
void RotateRow(const P* x, P* y, const ComputeType<P>* cos, const ComputeType<P>* sin, int64_t half) {
  using C = ComputeType<P>;
  const hn::ScalableTag<C> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  C pairs[2 * HWY_MAX_BYTES / sizeof(C)];  // 16-bit ones side by side change places in here
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    hn::Vec<decltype(d)> a, b;
    if constexpr (kInterleaved && std::is_same_v<P, C>) {
      hn::LoadInterleaved2(d, x + 2 * i, a, b);
    } else if constexpr (kInterleaved) {
      hn::StoreU(load_as(d, x + 2 * i), d, pairs);
      hn::StoreU(load_as(d, x + 2 * i + lanes), d, pairs + lanes);
      hn::LoadInterleaved2(d, pairs, a, b);
    } else {
      a = load_as(d, x + i);
      b = load_as(d, x + half + i);
    }
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    const auto ya = hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), yb = hn::Add(hn::Mul(b, c), hn::Mul(a, s));
    if constexpr (kInterleaved && std::is_same_v<P, C>) {
      hn::StoreInterleaved2(ya, yb, d, y + 2 * i);
    } else if constexpr (kInterleaved) {
      hn::StoreInterleaved2(ya, yb, d, pairs);
      store_as(d, hn::LoadU(d, pairs), y + 2 * i);
      store_as(d, hn::LoadU(d, pairs + lanes), y + 2 * i + lanes);
    } else {
      store_as(d, ya, y + i);
      store_as(d, yb, y + half + i);
    }
  }
  for (; i < half; ++i) {
    const int64_t first = kInterleaved ? 2 * i : i, second = kInterleaved ? 2 * i + 1 : half + i;
    const C a = static_cast<C>(x[first]), b = static_cast<C>(x[second]);
    y[first] = P(a * cos[i] - b * sin[i]);
    y[second] = P(b * cos[i] + a * sin[i]);
  }
}

// How the rows of one call lie.
struct RopeRows {
  Loop<4> loop;  // out, in, cos, sin without their last dim
  DType dtype;
  int64_t half, in_stride;
};

Loop<4> OuterLoop(const View& out, const View& in, const View& cos, const View& sin) {
  Loop<4> loop;
  for (View v : {out, in, cos, sin}) {
    v.sizes.erase(v.ndim() - 1), v.strides.erase(v.strides.size() - 1);
    loop.add(v);
  }
  loop.collapse();
  return loop;
}

// f(out, in, cos, sin) for rows [begin, end).
template <class C, class F>
void ForRows(const RopeRows& rows, int64_t begin, int64_t end, const F& f) {
  const Loop<4>& loop = rows.loop;
  loop.for_range(begin, end, [&](const std::array<char*, 4>& p, int64_t n) {
    for (int64_t r = 0; r < n; ++r) {
      const auto at = [&](int k) { return p[k] + r * loop.inner_stride(k) * loop.item[k]; };
      f(at(0), at(1), reinterpret_cast<const C*>(at(2)), reinterpret_cast<const C*>(at(3)));
    }
  });
}

// Rows of P that lie densely in memory.
template <class P, bool kInterleaved>
void RotateDense(const RopeRows& rows, int64_t begin, int64_t end) {
  using C = ComputeType<P>;
  DS_COUNT_ROUTE(RopeDense);
  ForRows<C>(rows, begin, end, [&](char* y, const char* x, const C* cos, const C* sin) {
    RotateRow<P, kInterleaved>(reinterpret_cast<const P*>(x), reinterpret_cast<P*>(y), cos, sin, rows.half);
  });
}

// Any other row, strided or of 8-bit floats, goes through a buffer of the computing type.
template <class C>
void RotateBuffered(const RopeRows& rows, bool interleaved, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(RopeBuffered);
  const int64_t n = 2 * rows.half;
  Scratch<C> buffer(2 * n);
  C *from = buffer.data(), *to = from + n;
  ForRows<C>(rows, begin, end, [&](char* y, const char* x, const C* cos, const C* sin) {
    load_row(rows.dtype, x, rows.in_stride, n, from);
    interleaved ? RotateRow<C, true>(from, to, cos, sin, rows.half)
                : RotateRow<C, false>(from, to, cos, sin, rows.half);
    store_row(rows.dtype, y, 1, n, to);
  });
}

template <class P>
void RotateDense(const RopeRows& rows, bool interleaved, int64_t begin, int64_t end) {
  interleaved ? RotateDense<P, true>(rows, begin, end) : RotateDense<P, false>(rows, begin, end);
}

template <class C>
void RopeAs(const RopeRows& rows, bool interleaved, int64_t begin, int64_t end) {
  if (rows.in_stride == 1) {
    if (rows.dtype == dtype_of<C>) return RotateDense<C>(rows, interleaved, begin, end);
    if constexpr (std::is_same_v<C, float>) {
      if (rows.dtype == DType::kBFloat16) return RotateDense<BFloat16>(rows, interleaved, begin, end);
      if (rows.dtype == DType::kFloat16) return RotateDense<Half>(rows, interleaved, begin, end);
    }
  }
  RotateBuffered<C>(rows, interleaved, begin, end);
}

void Rope(const View& out, const View& in, const View& cos, const View& sin, bool interleaved) {
  const RopeRows rows{OuterLoop(out, in, cos, sin), in.dtype, in.sizes.back() / 2, in.strides.back()};
  parallel_for(rows.loop.numel(), grain_for(4 * rows.half * size_of(in.dtype)), [&](int64_t begin, int64_t end) {
    in.dtype == DType::kFloat64 ? RopeAs<double>(rows, interleaved, begin, end)
                                : RopeAs<float>(rows, interleaved, begin, end);
  });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(Rope);
void rope(const View& out, const View& in, const View& cos, const View& sin, bool interleaved) {
  HWY_DYNAMIC_DISPATCH(Rope)(out, in, cos, sin, interleaved);
}
}  // namespace deepseek::kernels
#endif
