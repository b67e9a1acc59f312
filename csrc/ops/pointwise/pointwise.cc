#include "ops/pointwise/pointwise.h"

#include "core/dispatch/promotion.h"
#include "core/schema/schema.h"

namespace deepseek {
namespace {

std::string op_name(const OpInfo& info) {
  const std::string_view s = info.schema;
  return std::string(s.substr(0, s.find('(')));
}

DType compute_type(Rule rule, Inputs in) {
  if (rule == Rule::kWhere) return result_type(in.subspan(1));
  const DType t = result_type(in);
  if (rule == Rule::kFloat && is_exact(t)) return default_dtype();
  if (rule == Rule::kBoolToInt && t == DType::kBool) return DType::kInt64;
  return t;
}

void check_rule(const OpInfo& info, Rule rule, DType t, Inputs in) {
  if (is_float8(t))
    fail<NotImplementedError>(op_name(info), "(): not implemented for ", name_of(t), "; convert to float32 first");
  switch (rule) {
    case Rule::kNumeric:
      if (t == DType::kBool) fail<NotImplementedError>("\"", op_name(info), "\" not implemented for 'Bool'");
      break;
    case Rule::kFloatOnly:
      if (!is_floating(t)) fail<NotImplementedError>("\"", op_name(info), "\" not implemented for '", name_of(t), "'");
      break;
    case Rule::kBits:
    case Rule::kShift:
      if (!is_exact(t) || (rule == Rule::kShift && t == DType::kBool))
        fail<NotImplementedError>("\"", op_name(info), "\" not implemented for '", name_of(t), "'");
      break;
    case Rule::kWhere:
      DS_CHECK(in[0].dtype() == DType::kBool || in[0].dtype() == DType::kUInt8,
               "where expected condition to be a boolean tensor, but got a tensor with dtype ", name_of(in[0].dtype()));
      for (size_t i = 1; i < in.size(); ++i)
        if (!is_reduced_float(t)) check_number_fits(in[i], t);
      break;
    case Rule::kArith:
    case Rule::kFloat:
    case Rule::kCompare:
    case Rule::kLogical:
    case Rule::kBoolToInt:
      break;
  }
}

// The order of dims of the first input that has all of them, as PyTorch; none means contiguous.
Dims result_strides(const Dims& sizes, Inputs in) {
  for (const Tensor& t : in)
    if (t.sizes() == sizes) return t.is_contiguous() ? Dims() : preserved_strides(sizes, t.strides());
  return {};
}

}  // namespace

Meta pointwise_meta(const OpInfo& info, Rule rule, Inputs in) {
  Dims sizes = in[0].sizes();
  for (size_t i = 1; i < in.size(); ++i)
    if (in[i].sizes() != sizes) sizes = broadcast_sizes(op_name(info).c_str(), sizes, in[i].sizes());
  const DType t = compute_type(rule, in);
  check_rule(info, rule, t, in);
  return {rule == Rule::kCompare || rule == Rule::kLogical ? DType::kBool : t, sizes, result_strides(sizes, in)};
}

namespace {
// Runs the kernel over plain arrays where memory allows; most calls do.
bool eval_flat(kernels::Pointwise op, DType lane, Inputs in, const Tensor& out) {
  if (out.dtype() != lane || !out.is_contiguous()) return false;
  const int64_t n = out.numel();
  kernels::FlatInput flat[3];
  for (size_t i = 0; i < in.size(); ++i) {
    const Tensor& t = in[i];
    const bool full = t.dtype() == lane && t.sizes() == out.sizes() && t.is_contiguous();
    if (!full && t.numel() != 1) return false;
    flat[i] = {t.data_ptr(), !full, t.dtype()};
  }
  if (n > 0) kernels::pointwise_flat(op, lane, n, out.data_ptr(), {flat, in.size()});
  return true;
}
}  // namespace

void pointwise_eval(kernels::Pointwise op, Rule rule, Inputs in, const Tensor& out) {
  const DType compute = compute_type(rule, in);
  if (eval_flat(op, kernels::lane_type(compute), in, out)) return;
  View views[3];
  for (size_t i = 0; i < in.size(); ++i) views[i] = in[i].view_as(out.sizes());
  kernels::pointwise(op, compute, out.view(), {views, in.size()});
}

}  // namespace deepseek
