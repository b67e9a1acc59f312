// Where the operands of attention's products come from: read in place, converted to floats, or packed in pairs of bf16.
// Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_PRODUCTS_ATTENTION_OPERANDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_PRODUCTS_ATTENTION_OPERANDS_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_PRODUCTS_ATTENTION_OPERANDS_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_PRODUCTS_ATTENTION_OPERANDS_INL_H_
#endif

#include <cstring>

#include "kernels/attention/attention-inl.h"
#include "kernels/attention/products/attention_bf16.h"
#include "kernels/attention/products/attention_few_rows.h"
#include "runtime/allocator.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

#if HWY_TARGET <= HWY_AVX3
namespace few_keys = few_rows::avx512;
#else
namespace few_keys = few_rows::avx2;
#endif

template <class Word>
struct Operand {
  const Word* data;
  int64_t row;  // step between rows, in words
};

// Rows that lie a multiple of a page apart fall into few sets of the first-level cache.
inline bool spread_badly(int64_t row_bytes) { return row_bytes % 2048 == 0; }

// Products in float of tensors of E.
template <class E>
struct FloatOperands : FloatMath {
  using Element = E;

  // A-side: n rows of d numbers.
  static Operand<float> rows(const E* from, int64_t row, int64_t n, int64_t d, float* scratch, bool reused) {
    if constexpr (std::is_same_v<E, float>)
      if (!reused || row == d || !spread_badly(row * 4)) return {from, row};
    for (int64_t i = 0; i < n; ++i) ConvertRow(from + i * row, d, d, scratch + i * d);
    return {scratch, d};
  }
  // B-side: n rows that are summed over, columns padded to `width`.
  static Operand<float> columns(const E* from, int64_t row, int64_t n, int64_t d, int64_t width, float* scratch,
                                bool reused) {
    if constexpr (std::is_same_v<E, float>)
      if (d == width && (!reused || row == d || !spread_badly(row * 4))) return {from, row};
    for (int64_t i = 0; i < n; ++i) ConvertRow(from + i * row, d, width, scratch + i * width);
    return {scratch, width};
  }
  // Weights [n][panel] as the A-side that values() wants.
  static const float* weights(const float* p, int64_t, int64_t, float*) { return p; }

  // A panel's rows, gathered, and turned to [d][panel]. `gathered` holds panel_rows() rows of round_up(d, 4).
  template <class RowAt>
  static void panel(const E* base, RowAt row_at, int64_t n, int64_t d, float* gathered, float* turned) {
    const int64_t width = round_up(d, 4);
    for (int64_t r = 0; r < n; ++r) ConvertRow(base + row_at(r), d, width, gathered + r * width);
    for (int64_t r = n; r < round_up(n, 4); ++r) std::fill_n(gathered + r * width, width, 0.0f);
    Transpose(gathered, width, round_up(n, 4), d, turned, panel_rows());
    for (int64_t i = 0; i < d; ++i)
      for (int64_t r = round_up(n, 4); r < round_up(n, lanes()); ++r) turned[i * panel_rows() + r] = 0;
  }
  // The rows that panel() has gathered, as a B-side.
  static void gathered_columns(const float* gathered, int64_t n, int64_t d, int64_t width, float* to) {
    for (int64_t r = 0; r < n; ++r) ConvertRow(gathered + r * round_up(d, 4), d, width, to + r * width);
  }
};

#if HWY_TARGET <= HWY_AVX3
// Products of pairs of bf16, sums in float.
struct Bf16Operands {
  using Element = BFloat16;
  using Word = uint32_t;
  static int64_t words(int64_t n) { return (n + 1) / 2; }

  static void scores(int64_t keys, int64_t vecs, int64_t n, const uint32_t* a, int64_t a_row, const uint32_t* b,
                     float* out) {
    bf16_attention::scores(keys, vecs, n, a, a_row, b, out);
  }
  static void values(int64_t rows, int64_t columns, int64_t n, const uint32_t* a, const uint32_t* b, int64_t b_row,
                     const float* keep, float* out, int64_t out_row, bool fresh) {
    bf16_attention::values(rows, columns, n, a, b, b_row, keep, out, out_row, fresh);
  }
  static const uint16_t* bits(const BFloat16* p) { return reinterpret_cast<const uint16_t*>(p); }

  static Operand<uint32_t> rows(const BFloat16* from, int64_t row, int64_t n, int64_t d, uint32_t* scratch, bool) {
    if (d % 2 == 0 && row % 2 == 0 && reinterpret_cast<uintptr_t>(from) % 4 == 0)
      return {reinterpret_cast<const uint32_t*>(from), row / 2};
    for (int64_t i = 0; i < n; ++i) {
      scratch[i * words(d) + words(d) - 1] = 0;
      std::memcpy(scratch + i * words(d), from + i * row, static_cast<size_t>(d) * 2);
    }
    return {scratch, words(d)};
  }
  static Operand<uint32_t> columns(const BFloat16* from, int64_t row, int64_t n, int64_t d, int64_t width,
                                   uint32_t* scratch, bool) {
    bf16_attention::pack_pairs(bits(from), row, n, d, scratch, width);
    return {scratch, width};
  }
  static const uint32_t* weights(const float* p, int64_t n, int64_t vecs, uint32_t* scratch) {
    bf16_attention::pair_rows(p, n, vecs, scratch);
    return scratch;
  }
  template <class RowAt>
  static void panel(const BFloat16* base, RowAt row_at, int64_t n, int64_t d, uint32_t* gathered, uint32_t* turned) {
    auto* rows = reinterpret_cast<uint16_t*>(gathered);
    for (int64_t r = 0; r < n && d > 0; ++r) std::memcpy(rows + r * d, base + row_at(r), static_cast<size_t>(d) * 2);
    bf16_attention::pack_panel(rows, d, n, d, turned);
  }
  static void gathered_columns(const uint32_t* gathered, int64_t n, int64_t d, int64_t width, uint32_t* to) {
    bf16_attention::pack_pairs(reinterpret_cast<const uint16_t*>(gathered), d, n, d, to, width);
  }
  static void pair_weights(int64_t keys, int64_t n, float* a, uint32_t* scratch) {
    if (n % 2 != 0)  // the row that does not exist beside the last
      for (int64_t j = 0; j < keys; ++j) a[j * panel_rows() + n] = 0;
    bf16_attention::pair_columns(a, keys, (n + lanes() - 1) / lanes(), scratch);
  }
  static void add_rows(int64_t keys, int64_t n, int64_t columns, float* a, const uint32_t* b, uint32_t* scratch,
                       float* const* out) {
    pair_weights(keys, n, a, scratch);
    bf16_attention::add_to_rows(keys, columns, words(n), scratch, panel_rows() / 2, b, columns, out);
  }
  static void add(int64_t keys, int64_t n, int64_t columns, float* a, const uint32_t* b, uint32_t* scratch,
                  float* out) {
    pair_weights(keys, n, a, scratch);
    bf16_attention::add_product(keys, columns, words(n), scratch, panel_rows() / 2, b, columns, out, columns);
  }
};
#endif

// Whether this target has dot products of bf16, where the CPU does.
inline bool DotsBf16(bool available) { return HWY_TARGET <= HWY_AVX3 && available; }

// Calls f with the operands that tensors of the dtype run on.
template <class F>
void ForOperands(DType dtype, [[maybe_unused]] bool bf16_dot, F f) {
#if HWY_TARGET <= HWY_AVX3
  if (bf16_dot) return f.template operator()<Bf16Operands>();
#endif
  dispatch_among<BFloat16, Half, float>("attention", dtype,
                                        [&]<class E>() { f.template operator()<FloatOperands<E>>(); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
