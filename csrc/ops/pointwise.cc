#include "ops/pointwise.h"

#include "core/promotion.h"
#include "core/schema.h"

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
      if (t == DType::kBool) {
        if (op_name(info) == "neg")
          fail(
              "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use "
              "the `~` or "
              "`logical_not()` operator instead.");
        fail<NotImplementedError>("\"", op_name(info), "\" not implemented for 'Bool'");
      }
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

// pow with a tensor of exponents gives 0 where |input| > 1; a plain negative number is a mistake, as in PyTorch.
void check_power(const OpInfo& info, DType t, Inputs in) {
  if (!std::string_view(info.schema).starts_with("pow(") || !in[1].cell()->wrapped_number) return;
  if (t != DType::kFloat32) check_number_fits(in[1], t);
  DS_CHECK(!is_exact(t) || in[1].item().to_double() >= 0, "Integers to negative integer powers are not allowed.");
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
  if (rule == Rule::kArith && in.size() == 2) check_power(info, t, in);
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
  // Inverting all bits of a bool's 1 would leave it true.
  const bool invert = op == kernels::Pointwise::kBitwiseNot && out.dtype() == DType::kBool;
  if (invert) op = kernels::Pointwise::kLogicalNot;
  if (eval_flat(op, kernels::lane_type(compute), in, out)) return;
  View views[3];
  for (size_t i = 0; i < in.size(); ++i) views[i] = in[i].view_as(out.sizes());
  kernels::pointwise(op, compute, out.view(), {views, in.size()});
}

// --- the structs, expanded from the list

namespace {
constexpr bool differentiable(std::string_view vjp) { return vjp != "NONE"; }
constexpr Shown shown_as(std::string_view name) { return name.starts_with('_') ? Shown::kHidden : Shown::kBoth; }
}  // namespace

#define ZERO zeros_like(g)
#define NONE Tensor()

#define DS_POINTWISE_COMMON(S, name, rule, saves_, diff)                       \
  bool operator==(const S&) const = default;                                   \
  Meta infer(Inputs in) const { return pointwise_meta(info, Rule::rule, in); } \
  void eval(Inputs in, Tensor& out) const { pointwise_eval(kernels::Pointwise::k##S, Rule::rule, in, out); }
#define DS_POINTWISE_INFO(name, args, doc_, saves_, vjp)              \
  static constexpr OpInfo info{.schema = #name args " -> Tensor",     \
                               .doc = doc_,                           \
                               .saves = Saves::saves_,                \
                               .differentiable = differentiable(vjp), \
                               .inplace = true,                       \
                               .elementwise = true,                   \
                               .shown = shown_as(#name)};

#define DS_UNARY(S, name, rule, kernels_, fexpr, iexpr, saves_, vjp_a, doc_)     \
  struct S {                                                                     \
    DS_POINTWISE_INFO(name, "(Tensor input)", doc_, saves_, #vjp_a)              \
    DS_POINTWISE_COMMON(S, name, rule, saves_, #vjp_a)                           \
    Grads vjp(const Vjp& c) const {                                              \
      [[maybe_unused]] const Tensor &x = c.in[0], &y = c.out[0], &g = c.grad[0]; \
      return {vjp_a};                                                            \
    }                                                                            \
  };                                                                             \
  DS_OP(S);                                                                      \
  Tensor name(const Tensor& input) { return apply(S{}, input); }

#define DS_BINARY(S, name, rule, kernels_, fexpr, iexpr, saves_, vjp_a, vjp_b, doc_)           \
  struct S {                                                                                   \
    DS_POINTWISE_INFO(name, "(Tensor input, Tensor other)", doc_, saves_, #vjp_a)              \
    DS_POINTWISE_COMMON(S, name, rule, saves_, #vjp_a)                                         \
    Grads vjp(const Vjp& c) const {                                                            \
      [[maybe_unused]] const Tensor &x = c.in[0], &z = c.in[1], &y = c.out[0], &g = c.grad[0]; \
      return {c.need(0) ? Tensor(vjp_a) : Tensor(), c.need(1) ? Tensor(vjp_b) : Tensor()};     \
    }                                                                                          \
  };                                                                                           \
  DS_OP(S);                                                                                    \
  Tensor name(const Tensor& input, const Tensor& other) { return apply(S{}, input, other); }

#define DS_TERNARY(S, name, rule, kernels_, fexpr, iexpr, saves_, vjp_a, vjp_b, vjp_c, doc_)                 \
  struct S {                                                                                                 \
    DS_POINTWISE_INFO(name, DS_TERNARY_ARGS_##S, doc_, saves_, #vjp_b)                                       \
    DS_POINTWISE_COMMON(S, name, rule, saves_, #vjp_b)                                                       \
    Grads vjp(const Vjp& c) const {                                                                          \
      [[maybe_unused]] const Tensor &x = c.in[0], &z = c.in[1], &w = c.in[2], &y = c.out[0], &g = c.grad[0]; \
      return {c.need(0) ? Tensor(vjp_a) : Tensor(), c.need(1) ? Tensor(vjp_b) : Tensor(),                    \
              c.need(2) ? Tensor(vjp_c) : Tensor()};                                                         \
    }                                                                                                        \
  };                                                                                                         \
  DS_OP(S);                                                                                                  \
  Tensor name(const Tensor& a, const Tensor& b, const Tensor& c) { return apply(S{}, a, b, c); }

namespace {
// A derivative that is 0 / 0 at one point and taken as zero there.
Tensor over_or_zero(const Tensor& a, const Tensor& b) { return where(eq(b, 0), scalar(0.0), a / b); }
}  // namespace

#define DS_TERNARY_ARGS_Where "(Tensor condition, Tensor input, Tensor other)"
#define DS_TERNARY_ARGS_Lerp "(Tensor input, Tensor end, Tensor weight)"
#define DS_TERNARY_ARGS_SwiGluBackward "(Tensor grad, Tensor gate, Tensor up)"
#define DS_TERNARY_ARGS_AddScaled "(Tensor input, Tensor other, Tensor alpha)"
#define DS_TERNARY_ARGS_Addcmul "(Tensor input, Tensor tensor1, Tensor tensor2)"
#define DS_TERNARY_ARGS_ClampBoth "(Tensor input, Tensor min, Tensor max)"
#define DS_TERNARY_ARGS_Softplus "(Tensor input, Tensor beta, Tensor threshold)"

#include "kernels/pointwise/pointwise.def"

#undef DS_UNARY
#undef DS_BINARY
#undef DS_TERNARY

const OpDef& pointwise_op(kernels::Pointwise op) {
#define DS_UNARY(S, ...)         \
  case kernels::Pointwise::k##S: \
    return op_def<S>();
#define DS_BINARY DS_UNARY
#define DS_TERNARY DS_UNARY
  switch (op) {
#include "kernels/pointwise/pointwise.def"
    default:
      fail("internal error: no op for pointwise kernel ", static_cast<int>(op));
  }
#undef DS_UNARY
#undef DS_BINARY
#undef DS_TERNARY
}

// --- derivative pieces

Tensor pow_vjp_base(const Tensor& g, const Tensor& base, const Tensor& exponent) {
  // d(x^p)/dx = p x^(p-1); exactly zero for p = 0, where x^(p-1) may be infinite.
  const Tensor slope = exponent * pow(base, exponent - 1);
  return g * conj(where(eq(exponent, 0), zeros_like(slope), slope));
}

Tensor pow_vjp_exponent(const Tensor& g, const Tensor& base, const Tensor& exponent, const Tensor& result) {
  // 0^p has slope zero for p >= 0 although log(0) is infinite.
  const Tensor slope = result * log(base);
  return g * conj(where(logical_and(eq(base, 0), ge(exponent, 0)), zeros_like(slope), slope));
}

Tensor max_share(const Tensor& a, const Tensor& b) {
  return to_dtype(logical_not(lt(a, b)), a.dtype()) - to_dtype(eq(a, b), a.dtype()) * 0.5;
}
Tensor min_share(const Tensor& a, const Tensor& b) { return max_share(b, a); }

Tensor silu_curvature(const Tensor& x) {
  const Tensor s = sigmoid(x);
  const Tensor slope = s * (1 - s);
  return slope * (2 + x * (1 - 2 * s));
}

Tensor gelu_erf_curvature(const Tensor& x) { return exp(x * x * -0.5) * 0.3989422804014327 * (2 - x * x); }

Tensor gelu_tanh_curvature(const Tensor& x) {
  constexpr double kRoot = 0.7978845608028654, kCubic = 0.044715;
  const Tensor t = tanh((x + x * x * x * kCubic) * kRoot);
  const Tensor sech2 = 1 - t * t;
  const Tensor du = (1 + x * x * (3 * kCubic)) * kRoot;
  // y = x/2 (1 + t):  y'' = t' + x/2 t'',  t' = sech2 u',  t'' = sech2 (u'' - 2 t u'^2)
  return sech2 * du + x * 0.5 * sech2 * (x * (6 * kCubic * kRoot) - t * du * du * 2);
}

}  // namespace deepseek
