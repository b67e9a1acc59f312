// Arithmetic and comparisons under other names: one bound alone, operands exchanged, a wider dtype, any of several.
#include "ops/composite.h"

namespace deepseek {

DS_BODY(ClampMinPublic, "clamp_min(Tensor input, Tensor|Number min) -> Tensor",
        "The larger of input and `min`; gradients at ties go to input.", true, kBoth, ) {
  return clamp(in[0], in[1], Tensor());
}
DS_BODY(ClampMaxPublic, "clamp_max(Tensor input, Tensor|Number max) -> Tensor",
        "The smaller of input and `max`; gradients at ties go to input.", true, kBoth, ) {
  return clamp(in[0], Tensor(), in[1]);
}

DS_BODY(Rsub, "rsub(Tensor input, Tensor|Number other, *, Scalar alpha=1) -> Tensor", "other - alpha * input.", false,
        kFunction, Scalar alpha;) {
  return sub(in[1], in[0], alpha);
}

namespace {
// A Python number stays one: pow knows squares and roots among them.
Tensor widest(const Tensor& t) { return t.cell()->wrapped_number ? t : to_dtype(t, DType::kFloat64); }
}  // namespace
DS_BODY(FloatPower, "float_power(Tensor input, Tensor|Number exponent) -> Tensor",
        "input to the power of exponent, in float64.", false, kBoth, ) {
  return pow(widest(in[0]), widest(in[1]));
}
DS_BODY(FloatPowerOfNumber, "float_power.Scalar(Scalar input, Tensor|Number exponent) -> Tensor",
        "The same for a number to the power of a tensor.", false, kBoth, Scalar input;) {
  DS_CHECK_AS(TypeError, !in[0].cell()->wrapped_number,
              "float_power(): argument 'input' or 'exponent' must be Tensor, got two numbers");
  return pow(scalar(input), widest(in[0]));
}

DS_BODY(IsIn, "isin(Tensor elements, Tensor test_elements, *, bool invert=False) -> Tensor",
        "True where an element occurs among `test_elements`; shape of elements, bool.", false, kFunction,
        bool invert;) {
  const Tensor found = any(eq(unsqueeze(in[0], -1), reshape(in[1], {in[1].numel()})), Dims{-1});
  return invert ? logical_not(found) : found;
}
DS_BODY(IsInNumber, "isin.Scalar(Tensor elements, Scalar test_elements, *, bool invert=False) -> Tensor",
        "The same for a single number.", false, kFunction, Scalar test_elements;
        bool invert;) {
  const Scalar& number = test_elements;
  const Tensor test = full({1}, number, number.is_float() ? DType::kFloat64 : number.dtype());
  const DType wanted = is_floating(in[0].dtype()) ? in[0].dtype() : default_dtype();
  return IsIn{invert}.body(std::array{in[0], number.is_float() ? to_dtype(test, wanted) : test});
}

}  // namespace deepseek
