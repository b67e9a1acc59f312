// Composites of pointwise ops.
#include <cmath>

#include "core/dispatch/inplace.h"
#include "core/dispatch/promotion.h"
#include "ops/composite.h"
#include "ops/pointwise/pointwise.h"

namespace deepseek {

Tensor copy_(const Tensor& self, const Tensor& source) {
  write_into(self, source, "copy_");
  return self;
}

// --- composites

DS_BODY(DivMode, "div.mode(Tensor|Number input, Tensor|Number other, *, str? rounding_mode) -> Tensor",
        "Quotient rounded by `rounding_mode`: None, 'trunc' or 'floor'.", true, kBoth, Opt<Str> rounding_mode;) {
  if (!rounding_mode) return div(in[0], in[1]);
  if (*rounding_mode == "floor") return floor_divide(in[0], in[1]);
  DS_CHECK(*rounding_mode == "trunc", "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '",
           (*rounding_mode).view(), "'");
  return _div_trunc(in[0], in[1]);
}

namespace {
// 16-bit floats computed in float32 and rounded once.
template <class F>
Tensor in_float32(Inputs in, F f) {
  const DType t = result_type(in);
  if (!is_reduced_float(t)) return f(in);
  TensorList wide;
  for (const Tensor& x : in) wide.push_back(to_dtype(x, DType::kFloat32));
  return to_dtype(f(Inputs(wide)), t);
}
}  // namespace

DS_BODY(RoundDecimals, "round.decimals(Tensor input, *, int decimals) -> Tensor",
        "Rounded to `decimals` places; negative: to tens, hundreds, ….", true, kBoth, int64_t decimals;) {
  DS_CHECK_AS(NotImplementedError, is_floating(in[0].dtype()), "\"round\" with decimals not implemented for '",
              name_of(in[0].dtype()), "'");
  if (decimals == 0) return round(in[0]);
  const Tensor power = scalar(std::pow(10.0, std::abs(static_cast<double>(decimals))));
  return in_float32(in,
                    [&](Inputs x) { return decimals > 0 ? round(x[0] * power) / power : round(x[0] / power) * power; });
}

DS_BODY(Clamp, "clamp(Tensor input, Tensor|Number? min=None, Tensor|Number? max=None) -> Tensor",
        "input limited to [min, max]; either bound may be None.", true, kBoth, ) {
  const Tensor &x = in[0], &low = in[1], &high = in[2];
  DS_CHECK(low.defined() || high.defined(), "clamp(): At least one of 'min' or 'max' must not be None");
  const DType dtype = result_type(in);
  check_number_fits(low, dtype);
  check_number_fits(high, dtype);
  if (!high.defined()) return _clamp_min(x, low);
  if (!low.defined()) return _clamp_max(x, high);
  return _clamp(x, low, high);
}
Tensor clamp(const Tensor& input, const Tensor& min, const Tensor& max) {
  return apply_list(Clamp{}, TensorList{input, min, max})[0];
}

DS_BODY(MaskedFill, "masked_fill(Tensor input, Tensor mask, Tensor|Number value) -> Tensor",
        "input with `value` (a number or 0-d tensor) where mask is True.", true, kBoth, ) {
  DS_CHECK(in[1].dtype() == DType::kBool, "masked_fill_ only supports boolean masks, but got mask with dtype ",
           name_of(in[1].dtype()));
  DS_CHECK(in[2].dim() == 0, "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with ",
           in[2].dim(), " dimension(s).");
  // PyTorch takes a tensor's value for a number here; reading it in a recording would tie the recording to it.
  if (in[2].cell()->wrapped_number || (in[2].dtype() != in[0].dtype() && !mode().recorder))
    check_fits(in[2].item(), in[0].dtype());
  return where(in[1], to_dtype(in[2], in[0].dtype()), in[0]);
}
Tensor masked_fill(const Tensor& input, const Tensor& mask, const Tensor& value) {
  return apply(MaskedFill{}, input, mask, value);
}

DS_BODY(AddcmulOp, "addcmul(Tensor input, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
        "input + value * tensor1 * tensor2.", true, kBoth, Scalar value;) {
  const DType t = result_type(in);
  check_fits(value, is_reduced_float(t) ? DType::kFloat32 : t);
  if (value == Scalar(1)) return _addcmul(in[0], in[1], in[2]);
  return in_float32(in, [&](Inputs x) { return _addcmul(x[0], to_dtype(x[1], result_type(x)) * scalar(value), x[2]); });
}

DS_BODY(Addcdiv, "addcdiv(Tensor input, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
        "input + value * tensor1 / tensor2.", true, kBoth, Scalar value;) {
  DS_CHECK(!is_exact(result_type(in.subspan(1))), "Integer division with addcdiv is no longer supported");
  return in_float32(in, [&](Inputs x) { return add(x[0], x[1] / x[2], value.to_double()); });
}

DS_BODY(NanToNum, "nan_to_num(Tensor input, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor",
        "NaN and infinities replaced (by 0 and the dtype's limits unless given).", true, kBoth, Opt<double> nan;
        Opt<double> posinf; Opt<double> neginf;) {
  const Tensor& x = in[0];
  if (is_exact(x.dtype())) return clone(x);
  const double limit = largest_finite(x.dtype());
  // Bounds are cast to x's dtype first so that they stay representable.
  const auto constant = [&](double v) { return to_dtype(scalar(v), x.dtype()); };
  Tensor y = where(isnan(x), constant(nan.value_or(0.0)), x);
  y = where(isposinf(x), constant(posinf.value_or(limit)), y);
  return where(isneginf(x), constant(neginf.value_or(-limit)), y);
}

DS_BODY(Gelu, "gelu(Tensor input, str approximate='none') -> Tensor",
        "x * Phi(x) (Hendrycks & Gimpel 2016); approximate='tanh' uses the tanh form.", false, kFunctional,
        Str approximate;) {
  if (approximate == "tanh") return _gelu_tanh(in[0]);
  DS_CHECK(approximate == "none", "approximate argument must be either none or tanh, got '", approximate.view(), "'");
  return _gelu_erf(in[0]);
}

DS_BODY(LeakyReluOp, "leaky_relu(Tensor input, float negative_slope=0.01) -> Tensor",
        "x above zero, negative_slope * x below.", true, kFunctional, double negative_slope;) {
  return _leaky_relu(in[0], scalar(negative_slope));
}

DS_BODY(EluOp, "elu(Tensor input, float alpha=1.0) -> Tensor", "x above zero, alpha * (exp(x) - 1) below.", true,
        kFunctional, double alpha;) {
  return _elu(in[0], scalar(alpha));
}

DS_BODY(SoftplusOp, "softplus(Tensor input, float beta=1.0, float threshold=20.0) -> Tensor",
        "log(1 + exp(beta x)) / beta; linear above the threshold.", false, kFunctional, double beta;
        double threshold;) {
  return _softplus(in[0], scalar(beta), scalar(threshold));
}

DS_BODY(IsClose,
        "isclose(Tensor input, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) -> Tensor",
        "|input - other| <= atol + rtol * |other|, element by element.", false, kBoth, double rtol;
        double atol; bool equal_nan;) {
  const Tensor &a = in[0], &b = in[1];
  DS_CHECK(rtol >= 0, "rtol must be greater than or equal to zero, but got ", rtol);
  DS_CHECK(atol >= 0, "atol must be greater than or equal to zero, but got ", atol);
  DS_CHECK(a.dtype() == b.dtype(), name_of(a.dtype()), " did not match ", name_of(b.dtype()));
  Tensor close = eq(a, b);
  if (equal_nan && !is_exact(a.dtype())) close = logical_or(close, logical_and(isnan(a), isnan(b)));
  if (a.dtype() == DType::kBool) return close;
  const Tensor bound = abs(b) * rtol + atol;
  const Tensor near = logical_and(le(abs(to_dtype(a, bound.dtype()) - b), bound), isfinite(bound));
  return logical_or(close, near);
}

}  // namespace deepseek
