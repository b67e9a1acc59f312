// Rotary position embedding (Su et al. 2021).
#include "ops/composite.h"

namespace deepseek {
namespace {

void check_table(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  DS_CHECK(is_floating(x.dtype()) && is_floating(cos.dtype()) && is_floating(sin.dtype()),
           "rope(): input, cos and sin must be floating point, got ", name_of(x.dtype()), ", ", name_of(cos.dtype()),
           " and ", name_of(sin.dtype()));
  DS_CHECK(x.dim() >= 2, "rope(): input must be [..., T, D], got shape ", x.sizes());
  DS_CHECK(x.size(-1) % 2 == 0, "rope(): the last dim of input must be even, got shape ", x.sizes());
  DS_CHECK(cos.sizes() == sin.sizes(), "rope(): cos and sin must have one shape, got ", cos.sizes(), " and ",
           sin.sizes());
  Dims half = x.sizes();
  half.back() /= 2;
  bool fits = cos.dim() <= half.size();
  for (int i = 1; fits && i <= cos.dim(); ++i) {
    const int64_t have = cos.sizes()[cos.dim() - i], want = half[half.size() - i];
    fits = have == want || have == 1;
  }
  DS_CHECK(fits, "rope(): cos and sin of shape ", cos.sizes(), " do not broadcast to input's [..., T, D / 2] = ", half);
}

}  // namespace

DS_BODY(Rope, "rope(Tensor input, Tensor cos, Tensor sin, bool interleaved=False) -> Tensor",
        "Pairs of input [..., T, D] rotated by the angles of cos and sin [T, D / 2]: elements i and i + D / 2, or 2 i "
        "and 2 i + 1 when "
        "interleaved. 16-bit inputs are rotated in float32.",
        false, kFunctional, bool interleaved;) {
  check_table(in[0], in[1], in[2]);
  const DType dtype = in[0].dtype(), math = is_reduced_float(dtype) || is_float8(dtype) ? DType::kFloat32 : dtype;
  const Tensor x = to_dtype(in[0], math), cos = to_dtype(in[1], math), sin = to_dtype(in[2], math);
  const int64_t d = x.size(-1);
  const Tensor a = interleaved ? slice(x, -1, 0, d, 2) : slice(x, -1, 0, d / 2);
  const Tensor b = interleaved ? slice(x, -1, 1, d, 2) : slice(x, -1, d / 2, d);
  const Tensor rotated[] = {a * cos - b * sin, b * cos + a * sin};
  return to_dtype(interleaved ? reshape(stack(rotated, -1), x.sizes()) : cat(rotated, -1), dtype);
}

}  // namespace deepseek
