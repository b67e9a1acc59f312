// What the forward and backward of attention share: the products of tiles, exp2, transposed panels, masks. Scores are
// held transposed, [keys][rows of queries]: keys and values are read in place, the softmax of 16 rows runs in the lanes
// of one vector, and few rows need no other code. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_ATTENTION_INL_H_
#endif

#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_shape.h"
#include "kernels/gemm/tile/float_tile-inl.h"
#include "kernels/random/random_blocks.h"
#include "kernels/simd/float_io-inl.h"
#include "kernels/simd/vecmath-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = Tag<float>;
using I32 = hn::ScalableTag<int32_t>;
using VF = hn::Vec<F32>;

HWY_INLINE int64_t lanes() { return static_cast<int64_t>(hn::Lanes(F32())); }
HWY_INLINE int64_t panel_rows() { return kVecs * lanes(); }
HWY_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kLog2e = 1.44269504f;

// 2^x for x <= 127, at most 2 ULP; exactly 1 for 0 and 0 for -inf; NaN stays.
HWY_INLINE VF Exp2(VF x) {
  const F32 d;
#if HWY_TARGET <= HWY_AVX3
  x = hn::Max(hn::Set(d, -200.0f), x);  // returns x when that is NaN
#else
  const auto tiny = hn::Lt(x, hn::Set(d, -126.0f));
  x = hn::Max(hn::Set(d, -126.0f), x);
#endif
  const auto n = hn::Round(x), r = hn::Sub(x, n);
  auto p = hn::Set(d, 0.001326472731307149f);
  p = hn::MulAdd(p, r, hn::Set(d, 0.009671512991189957f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.05550733581185341f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.24022242426872253f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.6931470036506653f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
#if HWY_TARGET <= HWY_AVX3
  return VF{_mm512_scalef_ps(p.raw, n.raw)};
#else
  const I32 di;
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127))));
  return hn::IfThenZeroElse(tiny, hn::Mul(p, power));
#endif
}
HWY_INLINE float Exp2Of(float x) { return hn::GetLane(Exp2(hn::Set(F32(), x))); }

// dst[c * dst_row + r] = src[r * src_row + c] for r < rows, c < columns. Reads and writes whole blocks of four: src has
// space for round_up(columns, 4), dst for round_up(rows, 4) and as many lines.
inline void Transpose(const float* src, int64_t src_row, int64_t rows, int64_t columns, float* dst, int64_t dst_row) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> d2;
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t c = 0; c < columns; c += 4) {
      const float* from = src + r * src_row + c;
      const auto r0 = hn::LoadU(d, from), r1 = hn::LoadU(d, from + src_row), r2 = hn::LoadU(d, from + 2 * src_row),
                 r3 = hn::LoadU(d, from + 3 * src_row);
      const auto lo01 = hn::BitCast(d2, hn::InterleaveLower(d, r0, r1)),
                 hi01 = hn::BitCast(d2, hn::InterleaveUpper(d, r0, r1)),
                 lo23 = hn::BitCast(d2, hn::InterleaveLower(d, r2, r3)),
                 hi23 = hn::BitCast(d2, hn::InterleaveUpper(d, r2, r3));
      float* to = dst + c * dst_row + r;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, lo01, lo23)), d, to);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, lo01, lo23)), d, to + dst_row);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, hi01, hi23)), d, to + 2 * dst_row);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, hi01, hi23)), d, to + 3 * dst_row);
    }
}

// `n` elements as floats, zeros up to `width`.
template <class E>
void ConvertRow(const E* from, int64_t n, int64_t width, float* to) {
  const F32 d;
  int64_t i = 0;
  for (; i + lanes() <= n; i += lanes()) hn::StoreU(load_as(d, from + i), d, to + i);
  for (; i < n; ++i) to[i] = static_cast<float>(from[i]);
  for (; i < width; ++i) to[i] = 0;
}
template <class E>
void StoreRow(const float* from, int64_t n, E* to) {
  const F32 d;
  int64_t i = 0;
  for (; i + lanes() <= n; i += lanes()) store_as(d, hn::LoadU(d, from + i), to + i);
  for (; i < n; ++i) to[i] = static_cast<E>(from[i]);
}

// The products of tiles, on floats (attention_float.cc). `Word` is what an operand is made of: a float here, a pair of
// bf16 in attention_bf16.h.
struct FloatMath {
  using Word = float;
  static int64_t words(int64_t n) { return n; }  // along the dim that a product sums over

  // out[k][rows] = A[k, n] B[n, rows]: A row-major, B [n][panel].
  static void scores(int64_t keys, int64_t vecs, int64_t n, const float* a, int64_t a_row, const float* b, float* out);
  // out[rows, columns] = out * keep (0 when `fresh`) + A^T B: A [n][panel], B [n][b_row], columns a whole number of
  // vectors.
  static void values(int64_t rows, int64_t columns, int64_t n, const float* a, const float* b, int64_t b_row,
                     const float* keep, float* out, int64_t out_row, bool fresh);
  static void values(int64_t rows, int64_t columns, int64_t n, const float* a, const int8_t* b, int64_t b_row,
                     const float* keep, float* out, int64_t out_row, bool fresh);
  static void values(int64_t rows, int64_t columns, int64_t n, const float* a, const BFloat16* b, int64_t b_row,
                     const float* keep, float* out, int64_t out_row, bool fresh);
  // out[keys, columns] += A B, A [keys][panel] over n rows, B [n][columns].
  static void add(int64_t keys, int64_t n, int64_t columns, const float* a, const float* b, float*, float* out);
  // The same to rows out[0..keys-1] that lie apart.
  static void add_rows(int64_t keys, int64_t n, int64_t columns, const float* a, const float* b, float*,
                       float* const* out);
};

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
