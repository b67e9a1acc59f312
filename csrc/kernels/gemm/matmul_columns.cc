#include <algorithm>

#include "kernels/gemm/tile/prefetch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/matmul_columns.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/gemm/matmul_columns-inl.h"
#include "kernels/gemm/tile/pack-inl.h"

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int kDotRows = HWY_TARGET <= HWY_AVX3 ? 8 : 6;  // rows whose sums stay in registers beside a transposed block

struct ColumnDot : FusedDot<float> {
  static constexpr int64_t kLanes = block_side<float>(), kPair = 1;
  static constexpr int kPrefetchRows = 4;  // more rows hide the way themselves
  HWY_INLINE static Sum dot(Sum sum, Sum a, RawFloats b) { return FusedDot::dot(sum, a, Sum{b}); }
  template <class S>
  HWY_INLINE static void load_block(const S* b, int64_t b_col, RawFloats (&v)[kLanes]) {
    load_transposed(b, b_col, v);
  }
  template <class S>
  HWY_INLINE static RawFloats load_column(const S* b, int64_t b_col, bool) {
    HWY_ALIGN float row[kLanes];
    for (int64_t j = 0; j < kLanes; ++j) row[j] = static_cast<float>(b[j * b_col]);
    return hn::Load(Tag<float>(), row).raw;
  }
};

#include "kernels/gemm/tile/column_tile.inc"

template <class S>
int64_t multiply_columns(const Gemm& g, const float* a, const S* b, const Sums<float>& c) {
  return column_products<ColumnDot>(g, a, b, c);
}
template int64_t multiply_columns(const Gemm&, const float*, const float*, const Sums<float>&);
template int64_t multiply_columns(const Gemm&, const float*, const BFloat16*, const Sums<float>&);
template int64_t multiply_columns(const Gemm&, const float*, const Half*, const Sums<float>&);

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
