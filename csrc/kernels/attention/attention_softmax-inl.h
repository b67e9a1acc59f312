// The softmax of a tile of scores, forward and backward, and how sums over parts of the keys are put together. Included
// once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_SOFTMAX_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_SOFTMAX_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_ATTENTION_SOFTMAX_INL_H_
#endif

#include <cmath>

#include "kernels/attention/attention-inl.h"
#include "kernels/attention/attention_mask-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// Maximum (in the scores' unit), sum and weighted values of a block of rows, over some of the keys.
struct RowSums {
  float *top, *sum, *values;  // [rows], [rows], [rows, width]

  static int64_t floats(int64_t rows, int64_t width) { return rows * (2 + width); }
  RowSums(float* at, int64_t rows) : top(at), sum(at + rows), values(at + 2 * rows) {}
};

// Where the logarithms of denominators go: [B, H, L] floats each, `low` may be null.
struct LogSums {
  float *lse, *low;
  LogSums(const View& lse_view, const View& low_view)
      : lse(lse_view.as<float>()), low(low_view.data && low_view.numel() > 0 ? low_view.as<float>() : nullptr) {}
  void put(int64_t at, float top, float sum, float unit) const {
    const LogSum<float> log(sum == 0 ? -kInf : static_cast<double>(top) * (unit / kLog2e), std::log(sum));
    lse[at] = log.high;
    if (low) low[at] = log.low;
  }
};

// The values of a finished row times `scale`. No sum, no values: zeros.
template <class E>
void FinishRow(float* values, int64_t width, int64_t n, float sum, float scale, E* out) {
  const F32 d;
  for (int64_t c = 0; c < width; c += lanes())
    hn::StoreU(sum == 0 ? hn::Zero(d) : hn::Mul(hn::LoadU(d, values + c), hn::Set(d, scale)), d, values + c);
  StoreRow(values, n, out);
}

// total := total and part together; both hold rows of `width`, row numbers a multiple of the vector.
inline void Merge(const RowSums& total, const RowSums& part, int64_t first, int64_t rows, int64_t width, float unit,
                  bool fresh) {
  const F32 d;
  const auto vunit = hn::Set(d, unit);
  for (int64_t r = first; r < first + rows; r += lanes()) {
    const auto m = fresh ? hn::Set(d, -kInf) : hn::LoadU(d, total.top + r), part_m = hn::LoadU(d, part.top + r);
    const auto top = hn::Max(part_m, m);
    const auto shift = hn::IfThenElse(hn::Eq(top, hn::Set(d, -kInf)), hn::Zero(d), top);
    const auto keep = Exp2(hn::Mul(hn::Sub(m, shift), vunit)), take = Exp2(hn::Mul(hn::Sub(part_m, shift), vunit));
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
// were scaled by. The maximum is taken off before the unit multiplies, so scores may be as large as floats are.
template <int NV>
void SoftmaxTile(float* scores, int64_t keys, float unit, const WeightFactors& factors, float* top, float* sum,
                 float* keep, bool fresh) {
  const F32 d;
  const int64_t w = panel_rows();
  VF m[NV], l[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) m[v] = hn::Set(d, -kInf);
  for (int64_t j = 0; j < keys; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) m[v] = hn::Max(hn::LoadU(d, scores + j * w + v * lanes()), m[v]);
  const auto vunit = hn::Set(d, unit);
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const auto before = fresh ? hn::Set(d, -kInf) : hn::LoadU(d, top + v * lanes());
    const auto now = hn::Max(m[v], before);
    m[v] = hn::IfThenElse(hn::Eq(now, hn::Set(d, -kInf)), hn::Zero(d), now);
    const auto scale = Exp2(hn::Mul(hn::Sub(before, m[v]), vunit));
    l[v] = fresh ? hn::Zero(d) : hn::Mul(hn::LoadU(d, sum + v * lanes()), scale);
    hn::StoreU(now, d, top + v * lanes());
    hn::StoreU(scale, d, keep + v * lanes());
  }
  for (int64_t j = 0; j < keys; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* at = scores + j * w + v * lanes();
      auto p = Exp2(hn::Mul(hn::Sub(hn::LoadU(d, at), m[v]), vunit));
      l[v] = hn::Add(l[v], p);
      if (factors.kept) p = hn::Mul(p, hn::LoadU(d, factors.kept + j * w + v * lanes()));
      if (factors.by_key) p = hn::Mul(p, hn::Set(d, factors.by_key[j]));
      hn::StoreU(p, d, at);
    }
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) hn::StoreU(l[v], d, sum + v * lanes());
}
inline void SoftmaxTile(int64_t vecs, float* scores, int64_t keys, float unit, const WeightFactors& factors, float* top,
                        float* sum, float* keep, bool fresh) {
  switch (vecs) {
    case 1:
      return SoftmaxTile<1>(scores, keys, unit, factors, top, sum, keep, fresh);
    case 2:
      return SoftmaxTile<2>(scores, keys, unit, factors, top, sum, keep, fresh);
    case 3:
      return SoftmaxTile<3>(scores, keys, unit, factors, top, sum, keep, fresh);
    case 4:
      return SoftmaxTile<4>(scores, keys, unit, factors, top, sum, keep, fresh);
  }
  fail("internal: a panel of ", vecs, " vectors");
}

// Of each row of a panel: the logarithm of the denominator in the scores' unit, what its rounding cut off (in log2),
// and delta.
struct RowNumbers {
  const float *lse, *low, *delta;
};

// Weights from scores, and the scores' gradients in place of `by_weight`:
// p = 2^((s - lse) unit - low), ds = p (kept by_weight - delta) slope; the weights are left times `kept`.
inline void WeightGradients(const TileAt& t, float unit, float scale, const RowNumbers& of, const float* kept,
                            const float* slope, float* scores, float* by_weight) {
  const F32 d;
  const int64_t w = panel_rows();
  const auto vunit = hn::Set(d, unit), vscale = hn::Set(d, scale);
  for (int64_t r = 0; r < t.rows; r += lanes()) {
    const auto top = hn::LoadU(d, of.lse + r), low = hn::LoadU(d, of.low + r), shift = hn::LoadU(d, of.delta + r);
    for (int64_t j = 0; j < t.keys; ++j) {
      const int64_t at = j * w + r;
      auto p = Exp2(hn::MulSub(hn::Sub(hn::LoadU(d, scores + at), top), vunit, low));
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
