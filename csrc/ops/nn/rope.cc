// Rotary position embedding (Su et al. 2021).
#include "kernels/nn/rope.h"

#include "kernels/loops/copy.h"
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
  bool fits = cos.dim() >= 1 && cos.dim() <= half.size();
  for (int i = 1; fits && i <= cos.dim(); ++i) {
    const int64_t have = cos.sizes()[cos.dim() - i], want = half[half.size() - i];
    fits = have == want || have == 1;
  }
  DS_CHECK(fits, "rope(): cos and sin of shape ", cos.sizes(), " do not broadcast to input's [..., T, D / 2] = ", half);
}

DType rotating_type(DType t) { return is_reduced_float(t) || is_float8(t) ? DType::kFloat32 : t; }

// A table as the kernel reads it: broadcast over input's rows, dense along them and of the computing type.
View table_view(const Tensor& table, const Tensor& x, TensorList& keep) {
  const DType math = rotating_type(x.dtype());
  const int64_t half = x.size(-1) / 2;
  Tensor t = table;
  if (t.dtype() != math || t.size(-1) != half || (half > 1 && t.strides().back() != 1)) {
    View wide = table.view();
    wide.sizes.back() = half;
    if (table.size(-1) != half) wide.strides.back() = 0;
    t = Tensor::empty(wide.sizes, math);
    kernels::copy(t.view(), wide);
  }
  keep.push_back(t);
  View v = t.view();
  const int missing = x.dim() - t.dim();
  Dims strides = Dims::filled(x.dim(), 0);
  for (int i = 0; i < t.dim(); ++i)
    if (v.sizes[i] != 1) strides[missing + i] = v.strides[i];
  strides.back() = 1;
  v.strides = strides;
  v.sizes = x.sizes();
  v.sizes.back() = half;
  return v;
}

// The first and the second elements of all pairs.
std::array<Tensor, 2> halves(const Tensor& x, bool interleaved) {
  const int64_t d = x.size(-1);
  if (interleaved) return {slice(x, -1, 0, d, 2), slice(x, -1, 1, d, 2)};
  return {slice(x, -1, 0, d / 2), slice(x, -1, d / 2, d)};
}

}  // namespace

struct Rope {
  bool interleaved;
  static constexpr OpInfo info{
      .schema = "rope(Tensor input, Tensor cos, Tensor sin, bool interleaved=False) -> Tensor",
      .doc =
          "Pairs of input [..., T, D] rotated by the angles of cos and sin [T, D / 2]: elements i and i + D / 2, or "
          "2 i and 2 i + 1 when interleaved. 16-bit inputs are rotated in float32.",
      .saves = Saves::kOthers,
      .shown = Shown::kFunctional};
  bool operator==(const Rope&) const = default;
  Meta infer(Inputs in) const {
    check_table(in[0], in[1], in[2]);
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    TensorList keep;
    const View cos = table_view(in[1], in[0], keep), sin = table_view(in[2], in[0], keep);
    kernels::rope(out.view(), in[0].view(), cos, sin, interleaved);
  }
  // The input's gradient is the gradient turned back.
  Grads vjp(const Vjp& c) const {
    const Tensor &cos = c.in[1], &sin = c.in[2], &g = c.grad[0];
    Grads out(3);
    if (c.need(0)) out[0] = apply(*this, g, cos, neg(to_dtype(sin, rotating_type(sin.dtype()))));
    if (!c.need(1) && !c.need(2)) return out;
    const DType math = rotating_type(c.in[0].dtype());
    const auto [a, b] = halves(to_dtype(c.in[0], math), interleaved);
    const auto [ga, gb] = halves(to_dtype(g, math), interleaved);
    const auto summed = [](const Tensor& t, const Tensor& like) {
      return to_dtype(sum_to_size(t, like.sizes()), like.dtype());
    };
    if (c.need(1)) out[1] = summed(ga * a + gb * b, cos);
    if (c.need(2)) out[2] = summed(gb * a - ga * b, sin);
    return out;
  }
  Tensor composite(Inputs in) const {
    const DType dtype = in[0].dtype(), math = rotating_type(dtype);
    const Tensor x = to_dtype(in[0], math), cos = to_dtype(in[1], math), sin = to_dtype(in[2], math);
    const auto [a, b] = halves(x, interleaved);
    const Tensor rotated[] = {a * cos - b * sin, b * cos + a * sin};
    return to_dtype(interleaved ? reshape(stack(rotated, -1), x.sizes()) : cat(rotated, -1), dtype);
  }
};
DS_OP(Rope);

}  // namespace deepseek
