// The ops of pointwise.def: a struct and a C++ function for each row.
#include <initializer_list>
#include <utility>

#include "core/dispatch/inplace.h"
#include "core/dispatch/promotion.h"
#include "ops/pointwise/pointwise.h"

namespace deepseek {

// --- what rows call

namespace {

void check_negation(const Tensor& x) {
  DS_CHECK(
      x.dtype() != DType::kBool,
      "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use the `~` "
      "or `logical_not()` operator instead.");
}

void check_subtraction(const Tensor& a, const Tensor& b) {
  DS_CHECK(!(a.dtype() == DType::kBool && b.dtype() == DType::kBool),
           "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
           "operator instead.");
  DS_CHECK(
      a.dtype() != DType::kBool && b.dtype() != DType::kBool,
      "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, use "
      "the `~` or `logical_not()` operator instead.");
}

// pow with a tensor of exponents gives 0 where |input| > 1; a plain negative number is a mistake, as in PyTorch.
void check_power(const Tensor& base, const Tensor& exponent) {
  if (!exponent.cell()->wrapped_number) return;
  const DType t = result_type(std::array{base, exponent});
  if (t != DType::kFloat32) check_number_fits(exponent, t);
  DS_CHECK(!is_exact(t) || exponent.item().to_double() >= 0, "Integers to negative integer powers are not allowed.");
}

// --- and pieces of derivatives

// A derivative that is 0 / 0 at one point and taken as zero there.
Tensor over_or_zero(const Tensor& a, const Tensor& b) { return where(eq(b, 0), scalar(0.0), a / b); }

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

bool is_one(const Scalar& s) { return !s.is_bool() && s.to_double() == 1.0; }

Tensor times(const Tensor& g, const Scalar& alpha) { return is_one(alpha) ? g : g * scalar(conj(alpha)); }

// --- ops of rows; a row is a struct of its arguments and what its parts say

struct NoParts {
  uint64_t needs;       // bit i: argument i wants a gradient
  const Scalar& alpha;  // of DS_POINTWISE_SCALED
  static constexpr const char* doc = "";
  static constexpr Saves saves = Saves::kNone;
};

template <class Row>
concept HasGradients = requires(const Row& row) {
  row.gradients();
};

template <class Row>
constexpr OpInfo info_of() {
  return {.schema = Row::schema,
          .doc = Row::doc,
          .saves = Row::saves,
          .differentiable = HasGradients<Row>,
          .inplace = true,
          .elementwise = true,
          .shown = Row::schema[0] == '_' ? Shown::kHidden : Shown::kBoth};
}

template <class Row>
Row row_of(Inputs in, const Tensor& result, const Tensor& grad, uint64_t needs, const Scalar& alpha) {
  return [&]<size_t... I>(std::index_sequence<I...>) { return Row{{needs, alpha}, in[I]..., result, grad}; }
  (std::make_index_sequence<Row::arity>());
}

template <class Row>
Meta meta_of(const OpInfo& info, Inputs in) {
  if constexpr (requires(const Row& row) { row.check(); }) row_of<Row>(in, in[0], in[0], 0, {}).check();
  return pointwise_meta(info, Row::rule, in);
}

template <class Row>
Grads gradients_of(const Vjp& c, const Scalar& alpha) {
  return row_of<Row>(c.in, c.out[0], c.grad[0], c.needs, alpha).gradients();
}

template <class Row>
struct PointwiseOp {
  static constexpr OpInfo info = info_of<Row>();
  bool operator==(const PointwiseOp&) const = default;
  Meta infer(Inputs in) const { return meta_of<Row>(info, in); }
  void eval(Inputs in, Tensor& out) const {
    kernels::Pointwise op = Row::kernel;
    if constexpr (requires { Row::on_bools; })
      if (out.dtype() == DType::kBool) op = Row::on_bools;
    pointwise_eval(op, Row::rule, in, out);
  }
  Grads vjp(const Vjp& c) const requires HasGradients<Row> { return gradients_of<Row>(c, {}); }
};

// sign * alpha; what it multiplies bools with is a bool.
Scalar signed_alpha(const Scalar& alpha, int sign, DType t) {
  if (t == DType::kBool) return Scalar(alpha.to_double() != 0);
  if (alpha.is_float()) return Scalar(alpha.to_double() * sign);
  return Scalar(sign < 0 ? static_cast<int64_t>(-static_cast<uint64_t>(alpha.to_int())) : alpha.to_int());
}

void check_alpha(const OpInfo& info, DType t, const Scalar& alpha, int sign) {
  const std::string_view name(info.schema, std::string_view(info.schema).find('('));
  DS_CHECK(!(alpha.is_float() && is_exact(t)), name,
           ": For integral input tensors, argument alpha must not be a floating point number.");
  DS_CHECK(!(alpha.is_bool() && t != DType::kBool), name, ": Boolean alpha only supported for Boolean results.");
  check_fits(signed_alpha(alpha, sign, t), t);
}

template <class Row>
struct PointwiseScaledOp {
  Scalar alpha = 1;
  static constexpr OpInfo info = info_of<Row>();
  bool operator==(const PointwiseScaledOp&) const = default;
  Meta infer(Inputs in) const {
    const Meta m = meta_of<Row>(info, in);
    if (!is_one(alpha)) check_alpha(info, m.dtype, alpha, Row::sign);
    return m;
  }
  void eval(Inputs in, Tensor& out) const {
    if (is_one(alpha)) return pointwise_eval(Row::kernel, Row::rule, in, out);
    const Tensor three[] = {in[0], in[1], scalar(signed_alpha(alpha, Row::sign, out.dtype()))};
    pointwise_eval(kernels::Pointwise::kAddScaled, Row::rule, three, out);
  }
  Grads vjp(const Vjp& c) const { return gradients_of<Row>(c, alpha); }
};

}  // namespace

// --- rows become ops

#define DS_ROW(S, name, rule_, arguments, attributes, ...)                                         \
  struct S##Row : NoParts {                                                                        \
    static constexpr const char* schema =                                                          \
        #name "(" DS_TEXT(DS_LIST(DS_IN_SCHEMA, arguments)) attributes ") -> Tensor";              \
    static constexpr Rule rule = Rule::rule_;                                                      \
    static constexpr kernels::Pointwise kernel = kernels::Pointwise::k##S;                         \
    static constexpr size_t arity = std::initializer_list<int>{DS_LIST(DS_ONE, arguments)}.size(); \
    const Tensor DS_LIST(DS_REFERENCE, arguments), &result, &grad;                                 \
    __VA_ARGS__                                                                                    \
  };
#define DS_POINTWISE(S, name, rule, arguments, ...) \
  namespace {                                       \
  DS_ROW(S, name, rule, arguments, "", __VA_ARGS__) \
  using S = PointwiseOp<S##Row>;                    \
  DS_OP(S);                                         \
  }                                                 \
  Tensor name(DS_LIST(DS_PARAMETER, arguments)) { return apply(S{}, DS_LIST(DS_NAME, arguments)); }
#define DS_POINTWISE_SCALED(S, name, rule, arguments, ...)             \
  namespace {                                                          \
  DS_ROW(S, name, rule, arguments, ", *, Scalar alpha=1", __VA_ARGS__) \
  using S = PointwiseScaledOp<S##Row>;                                 \
  DS_OP(S);                                                            \
  }                                                                    \
  Tensor name(DS_LIST(DS_PARAMETER, arguments), Scalar alpha) { return apply(S{alpha}, DS_LIST(DS_NAME, arguments)); }

#define FLOAT(...)
#define INT(...)
#define EXACT
#define BOOLS(Op) static constexpr auto on_bools = kernels::Pointwise::k##Op;
#define SIGN(x) static constexpr int sign = x;
#define DOC(text) static constexpr const char* doc = text;
#define SAVES(what) static constexpr Saves saves = Saves::what;
#define CHECK(...) \
  void check() const { __VA_ARGS__; }
#define VJP(...) \
  Grads gradients() const { return {DS_GRADIENT_0(__VA_ARGS__)}; }
#define DS_GRADIENT_0(g, ...) DS_WANTED(0, g) __VA_OPT__(, DS_GRADIENT_1(__VA_ARGS__))
#define DS_GRADIENT_1(g, ...) DS_WANTED(1, g) __VA_OPT__(, DS_GRADIENT_2(__VA_ARGS__))
#define DS_GRADIENT_2(g) DS_WANTED(2, g)
#define DS_WANTED(i, g) needs >> i & 1 ? Tensor(g) : Tensor()
#define ZERO zeros_like(grad)
#define NONE Tensor()

#include "kernels/pointwise/pointwise.def"

#undef DS_POINTWISE
#undef DS_POINTWISE_SCALED

const OpDef& pointwise_op(kernels::Pointwise op) {
  // In the order of the enum.
  static const OpDef* const defs[] = {
#define DS_POINTWISE(S, ...) &op_def<S>(),
#define DS_POINTWISE_SCALED DS_POINTWISE
#include "kernels/pointwise/pointwise.def"
  };
  return *defs[static_cast<size_t>(op)];
}

// --- in place

Tensor add_(const Tensor& self, const Tensor& other) {
  const Add op;
  const Tensor in[] = {self, other};
  dispatch_inplace(op_def<Add>(), &op, in);
  return self;
}

Tensor mul_(const Tensor& self, const Tensor& other) {
  const Mul op;
  const Tensor in[] = {self, other};
  dispatch_inplace(op_def<Mul>(), &op, in);
  return self;
}

}  // namespace deepseek
