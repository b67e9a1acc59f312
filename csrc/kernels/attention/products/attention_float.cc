#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/products/attention_float.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

#include "kernels/attention/products/attention_tiles.inc"

using Dot = FusedDot<float>;

void FloatMath::scores(int64_t keys, int64_t vecs, int64_t n, const float* a, int64_t a_row, const float* b,
                       float* out) {
  score_tiles<Dot>(keys, vecs, n, a, a_row, b, out);
}
void FloatMath::values(int64_t rows, int64_t columns, int64_t n, const float* a, const float* b, int64_t b_row,
                       const float* keep, float* out, int64_t out_row, bool fresh) {
  value_tiles<Dot>(rows, columns, n, a, b, b_row, keep, out, out_row, fresh);
}
void FloatMath::values(int64_t rows, int64_t columns, int64_t n, const float* a, const int8_t* b, int64_t b_row,
                       const float* keep, float* out, int64_t out_row, bool fresh) {
  value_tiles<Dot>(rows, columns, n, a, b, b_row, keep, out, out_row, fresh);
}
void FloatMath::values(int64_t rows, int64_t columns, int64_t n, const float* a, const BFloat16* b, int64_t b_row,
                       const float* keep, float* out, int64_t out_row, bool fresh) {
  value_tiles<Dot>(rows, columns, n, a, b, b_row, keep, out, out_row, fresh);
}
void FloatMath::add(int64_t keys, int64_t n, int64_t columns, const float* a, const float* b, float*, float* out) {
  add_tiles<Dot>(keys, columns, n, a, panel_rows(), b, columns, out, columns);
}
void FloatMath::add_rows(int64_t keys, int64_t n, int64_t columns, const float* a, const float* b, float*,
                         float* const* out) {
  add_tiles_apart<Dot>(keys, columns, n, a, panel_rows(), b, columns, out);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
