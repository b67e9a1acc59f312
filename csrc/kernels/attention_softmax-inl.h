// The softmax of a tile of scores, forward and backward, and how sums over parts of the keys are put together. Included
// once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_SOFTMAX_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_SOFTMAX_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_SOFTMAX_INL_H_
#endif

#include <cmath>

#include "kernels/attention-inl.h"
#include "kernels/attention_mask-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// Maximum, sum and weighted values of a block of rows, over some of the keys.
struct RowSums {
  float *top, *sum, *values;  // [rows], [rows], [rows, width]

  static int64_t floats(int64_t rows, int64_t width) { return rows * (2 + width); }
  RowSums(float* at, int64_t rows) : top(at), sum(at + rows), values(at + 2 * rows) {}
};

// A finished row: its values times `scale`, and the logarithm of its denominator. No sum, no values: zeros.
template <class E>
void FinishRow(float* values, int64_t width, int64_t n, float top, float sum, float scale, E* out, float* lse) {
  const F32 d;
  *lse = sum == 0 ? -kInf : top * kLn2 + std::log(sum);
  for (int64_t c = 0; c < width; c += lanes())
    hn::StoreU(sum == 0 ? hn::Zero(d) : hn::Mul(hn::LoadU(d, values + c), hn::Set(d, scale)), d, values + c);
  StoreRow(values, n, out);
}

// total := total and part together; both hold rows of `width`, row numbers a multiple of the vector.
inline void Merge(const RowSums& total, const RowSums& part, int64_t first, int64_t rows, int64_t width, bool fresh) {
  const F32 d;
  for (int64_t r = first; r < first + rows; r += lanes()) {
    const auto m = fresh ? hn::Set(d, -kInf) : hn::LoadU(d, total.top + r), part_m = hn::LoadU(d, part.top + r);
    const auto top = hn::Max(part_m, m);
    const auto shift = hn::IfThenElse(hn::Eq(top, hn::Set(d, -kInf)), hn::Zero(d), top);
    const auto keep = Exp2(hn::Sub(m, shift)), take = Exp2(hn::Sub(part_m, shift));
    const auto sum = fresh ? hn::Zero(d) : hn::LoadU(d, total.sum + r);
    hn::StoreU(top, d, total.top + r);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, part.sum + r), take, hn::Mul(sum, keep)), d, total.sum + r);
    HWY_ALIGN float keeps[HWY_MAX_BYTES / 4], takes[HWY_MAX_BYTES / 4];
    hn::Store(keep, d, keeps);
    hn::Store(take, d, takes);
    for (int64_t i = 0; i < std::min(lanes(), first + rows - r); ++i) {
      const auto vkeep = hn::Set(d, keeps[i]), vtake = hn::Set(d, takes[i]);
      float* to = total.values + (r + i) * width;
      const float* from = part.values + (r + i) * width;
      for (int64_t c = 0; c < width; c += lanes()) {
        const auto before = fresh ? hn::Zero(d) : hn::Mul(hn::LoadU(d, to + c), vkeep);
        hn::StoreU(hn::MulAdd(hn::LoadU(d, from + c), vtake, before), d, to + c);
      }
    }
  }
}

// What weights are multiplied by behind their sum, or null: [keys][panel], and for all rows [keys].
struct WeightFactors {
  const float *kept = nullptr, *by_key = nullptr;
};

// The tile's weights in place of its scores, times the factors; sums and maxima follow, `keep` is what earlier sums
// were scaled by.
template <int NV>
void SoftmaxTile(float* scores, int64_t keys, float c, const WeightFactors& factors, float* top, float* sum,
                 float* keep, bool fresh) {
  const F32 d;
  const int64_t w = panel_rows();
  VF m[NV], l[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) m[v] = hn::Set(d, -kInf);
  for (int64_t j = 0; j < keys; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) m[v] = hn::Max(hn::LoadU(d, scores + j * w + v * lanes()), m[v]);
  const auto vc = hn::Set(d, c);
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const auto before = fresh ? hn::Set(d, -kInf) : hn::LoadU(d, top + v * lanes());
    const auto now = hn::Max(hn::Mul(m[v], vc), before);
    m[v] = hn::IfThenElse(hn::Eq(now, hn::Set(d, -kInf)), hn::Zero(d), now);
    const auto scale = Exp2(hn::Sub(before, m[v]));
    l[v] = fresh ? hn::Zero(d) : hn::Mul(hn::LoadU(d, sum + v * lanes()), scale);
    hn::StoreU(now, d, top + v * lanes());
    hn::StoreU(scale, d, keep + v * lanes());
  }
  for (int64_t j = 0; j < keys; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* at = scores + j * w + v * lanes();
      auto p = Exp2(hn::MulSub(hn::LoadU(d, at), vc, m[v]));
      l[v] = hn::Add(l[v], p);
      if (factors.kept) p = hn::Mul(p, hn::LoadU(d, factors.kept + j * w + v * lanes()));
      if (factors.by_key) p = hn::Mul(p, hn::Set(d, factors.by_key[j]));
      hn::StoreU(p, d, at);
    }
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) hn::StoreU(l[v], d, sum + v * lanes());
}
inline void SoftmaxTile(int64_t vecs, float* scores, int64_t keys, float c, const WeightFactors& factors, float* top,
                        float* sum, float* keep, bool fresh) {
  switch (vecs) {
    case 1:
      return SoftmaxTile<1>(scores, keys, c, factors, top, sum, keep, fresh);
    case 2:
      return SoftmaxTile<2>(scores, keys, c, factors, top, sum, keep, fresh);
    case 3:
      return SoftmaxTile<3>(scores, keys, c, factors, top, sum, keep, fresh);
    default:
      return SoftmaxTile<4>(scores, keys, c, factors, top, sum, keep, fresh);
  }
}

// Weights from scores, and the scores' gradients in place of `by_weight`:
// p = 2^(c s - lse), ds = p (kept by_weight - delta) slope; the weights are left times `kept`.
inline void WeightGradients(const TileAt& t, float c, float scale, const float* lse, const float* delta,
                            const float* kept, const float* slope, float* scores, float* by_weight) {
  const F32 d;
  const int64_t w = panel_rows();
  const auto vc = hn::Set(d, c), vscale = hn::Set(d, scale);
  for (int64_t r = 0; r < t.rows; r += lanes()) {
    const auto top = hn::LoadU(d, lse + r), shift = hn::LoadU(d, delta + r);
    for (int64_t j = 0; j < t.keys; ++j) {
      const int64_t at = j * w + r;
      auto p = Exp2(hn::MulSub(hn::LoadU(d, scores + at), vc, top));
      auto g = hn::LoadU(d, by_weight + at);
      if (kept) g = hn::Mul(g, hn::LoadU(d, kept + at));
      g = hn::Mul(hn::Mul(p, vscale), hn::Sub(g, shift));
      if (slope) g = hn::Mul(g, hn::LoadU(d, slope + at));
      if (kept) p = hn::Mul(p, hn::LoadU(d, kept + at));
      hn::StoreU(p, d, scores + at);
      hn::StoreU(g, d, by_weight + at);
    }
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
