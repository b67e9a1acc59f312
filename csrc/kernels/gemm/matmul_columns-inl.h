// Float products of few rows with contiguous columns of B, as matmul_float.cc calls them. Included once per SIMD
// target.
#if defined(DEEPSEEK_KERNELS_GEMM_MATMUL_COLUMNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_GEMM_MATMUL_COLUMNS_INL_H_
#undef DEEPSEEK_KERNELS_GEMM_MATMUL_COLUMNS_INL_H_
#else
#define DEEPSEEK_KERNELS_GEMM_MATMUL_COLUMNS_INL_H_
#endif

#include "base/dtype.h"
#include "kernels/gemm/tile/float_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kMaxDotRows = HWY_TARGET <= HWY_AVX3 ? 48 : 36;  // more rows pay for packing

// Defined for float, BFloat16 and Half where a target has them (column_tile.inc): a is [k / lanes, m, lanes]; returns
// how many columns are done.
template <class S>
int64_t multiply_columns(const Gemm& g, const float* a, const S* b, const Sums<float>& c);

extern template int64_t multiply_columns(const Gemm&, const float*, const float*, const Sums<float>&);
extern template int64_t multiply_columns(const Gemm&, const float*, const BFloat16*, const Sums<float>&);
extern template int64_t multiply_columns(const Gemm&, const float*, const Half*, const Sums<float>&);

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
