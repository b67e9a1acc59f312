#include "kernels/pointwise/pointwise.h"

#include <map>
#include <set>

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;
using Real = long double;

const Real kInf = std::numeric_limits<Real>::infinity();
Real pick_nan(Real a, Real b, Real otherwise) { return std::isnan(a) ? a : std::isnan(b) ? b : otherwise; }
Real floor_divide(Real a, Real b) { return b == 0 ? a / b : std::floor(a / b); }
Real remainder_of(Real a, Real b) {
  const Real r = std::fmod(a, b);
  return r != 0 && (b < 0) != (r < 0) ? r + b : r;
}
Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }
Real normal_cdf(Real x) { return std::erfc(-x * std::sqrt(0.5L)) / 2; }
Real gelu_inner(Real x) { return std::sqrt(2 / 3.14159265358979323846L) * (x + 0.044715L * x * x * x); }
Real gelu_tanh_slope(Real x) {
  const Real t = std::tanh(gelu_inner(x));
  return (1 + t) / 2 + x / 2 * (1 - t * t) * std::sqrt(2 / 3.14159265358979323846L) * (1 + 3 * 0.044715L * x * x);
}
Real gelu_erf_slope(Real x) {
  return normal_cdf(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * 3.14159265358979323846L);
}
Real silu_slope(Real x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }
Real logaddexp(Real a, Real b) {
  const Real high = std::max(a, b);
  return std::isnan(a) || std::isnan(b) ? a + b
         : std::isinf(high)             ? high
                                        : high + std::log1p(std::exp(-std::fabs(a - b)));
}

// One op: its meaning in long double, the error allowed in units of the last place of float and of double (0: exact),
// and an absolute floor in those units at 1, for functions that lose relative accuracy near their zeros.
struct Case {
  const char* name;
  Pointwise op;
  int arity;
  std::function<Real(Real, Real, Real)> reference;
  double ulps;
  Real low = -8, high = 8;
  bool special = true;  // also zeros, infinities, NaN, tiny and huge values
  double floor = 0;
};
#define U1(S, expr, ...)                                                                                  \
  {                                                                                                       \
#S, Pointwise::k##S, 1, []([[maybe_unused]] Real a, Real, Real) -> Real { return expr; }, __VA_ARGS__ \
  }
#define U2(S, expr, ...)                                                                                 \
  {                                                                                                      \
#S, Pointwise::k##S, 2,                                                                              \
        []([[maybe_unused]] Real a, [[maybe_unused]] Real b, Real) -> Real { return expr; }, __VA_ARGS__ \
  }
#define U3(S, expr, ...)                                                  \
  {                                                                       \
#S, Pointwise::k##S, 3,                                               \
        []([[maybe_unused]] Real a, [[maybe_unused]] Real b,              \
           [[maybe_unused]] Real c) -> Real { return expr; }, __VA_ARGS__ \
  }

const Case kFloatCases[] = {
    U1(Exp, std::exp(a), 2, -80, 80),
    U1(Exp2, std::exp2(a), 4, -100, 100),
    U1(Expm1, std::expm1(a), 4, -20, 20),
    U1(Log, std::log(a), 4, 0, 100),
    U1(Log2, std::log2(a), 4, 0, 100),
    U1(Log10, std::log10(a), 4, 0, 100),
    U1(Log1p, std::log1p(a), 4, -1, 100),
    U1(Sqrt, std::sqrt(a), 0.5, 0, 1e6),
    U1(Rsqrt, 1 / std::sqrt(a), 1.5, 0, 1e6),
    U1(Reciprocal, 1 / a, 0.5),
    U1(Sin, std::sin(a), 4, -100, 100, true, 0.5),
    U1(Cos, std::cos(a), 4, -100, 100, true, 0.5),
    U1(Tan, std::tan(a), 4, -100, 100, true, 0.5),
    U1(Asin, std::asin(a), 4, -1, 1),
    U1(Acos, std::acos(a), 4, -1, 1),
    U1(Atan, std::atan(a), 4),
    U1(Sinh, std::sinh(a), 4, -20, 20),
    U1(Cosh, std::cosh(a), 4, -20, 20),
    U1(Tanh, std::tanh(a), 4),
    U1(Asinh, std::asinh(a), 4),
    U1(Acosh, std::acosh(a), 4, 1, 50),
    U1(Atanh, std::atanh(a), 4, -1, 1),
    U1(Erf, std::erf(a), 4, -4, 4),
    U1(Erfc, std::erfc(a), 4, -4, 4),
    U1(Sigmoid, sigmoid(a), 4),
    U1(LogSigmoid, std::fmin(a, 0) - std::log1p(std::exp(-std::fabs(a))), 4),
    U1(Relu, a < 0 ? 0 : a, 0),
    U1(Silu, a* sigmoid(a), 5, -8, 8, false),
    U1(GeluErf, a* normal_cdf(a), 6, -8, 8, false, 8),
    U1(GeluTanh, a / 2 * (1 + std::tanh(gelu_inner(a))), 6, -8, 8, false, 8),
    U1(Neg, -a, 0),
    U1(Abs, std::fabs(a), 0),
    U1(Square, a* a, 0.5),
    U1(Floor, std::floor(a), 0),
    U1(Ceil, std::ceil(a), 0),
    U1(Round, std::nearbyint(a), 0),
    U1(Trunc, std::trunc(a), 0),
    U1(Frac, a - std::trunc(a), 0),
    U1(Sign, (a > 0) - (a < 0), 0, -8, 8, false),
    U1(IsNan, std::isnan(a), 0),
    U1(IsInf, std::isinf(a), 0),
    U1(IsFinite, std::isfinite(a), 0),
    U1(IsPosInf, a == kInf, 0),
    U1(IsNegInf, a == -kInf, 0),
    U1(SignBit, std::signbit(a), 0, -8, 8, false),
    U1(LogicalNot, a == 0, 0),
    U2(Add, a + b, 0.5),
    U2(Sub, a - b, 0.5),
    U2(Mul, a* b, 0.5),
    U2(Div, a / b, 0.5),
    U2(DivTrunc, std::trunc(a / b), 0),
    U2(FloorDivide, floor_divide(a, b), 0, -8, 8, false),
    U2(Remainder, remainder_of(a, b), 0.5, -8, 8, false),
    U2(Fmod, std::fmod(a, b), 0),
    U2(Pow, std::pow(a, b), 4, 0, 8),
    U2(Maximum, pick_nan(a, b, std::max(a, b)), 0),
    U2(Minimum, pick_nan(a, b, std::min(a, b)), 0),
    U2(Fmax, std::fmax(a, b), 0),
    U2(Fmin, std::fmin(a, b), 0),
    U2(Atan2, std::atan2(a, b), 4),
    U2(Hypot, std::hypot(a, b), 4),
    U2(LogAddExp, logaddexp(a, b), 4, -8, 8, true, 2),
    U2(CopySign, std::copysign(a, b), 0),
    U2(ClampMin, pick_nan(a, b, std::max(a, b)), 0),
    U2(ClampMax, pick_nan(a, b, std::min(a, b)), 0),
    U2(Eq, a == b, 0),
    U2(Ne, a != b, 0),
    U2(Lt, a < b, 0),
    U2(Le, a <= b, 0),
    U2(Gt, a > b, 0),
    U2(Ge, a >= b, 0),
    U2(LogicalAnd, a != 0 && b != 0, 0),
    U2(LogicalOr, a != 0 || b != 0, 0),
    U2(LogicalXor, (a != 0) != (b != 0), 0),
    U2(TanhBackward, a*(1 - b * b), 4, -1, 1, false, 4),
    U2(SigmoidBackward, a* b*(1 - b), 4, 0, 1, false, 4),
    U2(SiluBackward, a* silu_slope(b), 8, -8, 8, false, 16),
    U2(GeluErfBackward, a* gelu_erf_slope(b), 8, -8, 8, false, 16),
    U2(GeluTanhBackward, a* gelu_tanh_slope(b), 8, -8, 8, false, 32),
    U2(SwiGlu, a* sigmoid(a) * b, 6, -8, 8, false),
    U2(LeakyRelu, a > 0 ? a : a * b, 0.5, -8, 8, false),
    U2(Elu, a > 0 ? a : b * std::expm1(a), 5, -8, 8, false),
    U3(Softplus, a* b > c ? a : std::log1p(std::exp(a * b)) / b, 5, 0.1, 8, false),
    U3(SwiGluBackward, a* c* silu_slope(b), 8, -8, 8, false, 128),
    U3(Where, std::isnan(a) || a != 0 ? b : c, 0),
    U3(AddScaled, a + b * c, 1, -8, 8, false, 64),
    U3(Addcmul, a + b * c, 1, -8, 8, false, 64),
    U3(Lerp, a + c * (b - a), 2, -8, 8, false, 128),
    U3(ClampBoth, pick_nan(pick_nan(a, b, std::max(a, b)), c, std::min(std::max(a, b), c)), 0, -8, 8, false),
};

template <class T>
std::vector<T> inputs(const Case& c, int k, size_t n) {
  std::mt19937 engine(17u + static_cast<unsigned>(k));
  std::uniform_real_distribution<double> uniform(static_cast<double>(c.low), static_cast<double>(c.high));
  std::vector<T> values;
  constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> special{0,        T(-0.0),   1,       -1,     inf,     -inf,   nan,
                               T(1e-30), T(-1e-30), T(1e30), T(0.5), T(-0.5), T(2.5), T(3)};
  if (c.special)  // every pair of two special values
    for (size_t i = 0; i < special.size() * special.size(); ++i)
      values.push_back(special[k == 0 ? i % special.size() : k == 1 ? i / special.size() : (i * 5) % special.size()]);
  while (values.size() < n) values.push_back(static_cast<T>(uniform(engine)));
  return values;
}

// The distance in units of the last place of `expected` as a T.
template <class T>
Real distance(T got, Real expected, double floor) {
  if (std::isnan(expected)) return std::isnan(got) ? 0 : kInf;
  if (std::isnan(got)) return kInf;
  const T rounded = static_cast<T>(expected);
  if (got == rounded) return 0;
  if (std::isinf(rounded) || std::isinf(got)) return kInf;
  const T magnitude = std::max(std::fabs(rounded), std::numeric_limits<T>::min());
  Real unit = std::nextafter(magnitude, std::numeric_limits<T>::infinity()) - magnitude;
  unit = std::max<Real>(unit, static_cast<Real>(floor) * std::numeric_limits<T>::epsilon());
  return std::fabs(static_cast<Real>(got) - expected) / unit;
}

template <class T>
void check_floats(const Case& c) {
  constexpr size_t n = 1000;
  std::vector<std::vector<T>> in;
  std::vector<View> views;
  for (int k = 0; k < c.arity; ++k) in.push_back(inputs<T>(c, k, n));
  for (auto& v : in) views.push_back({v.data(), dtype_of<T>, {n}, {1}});
  std::vector<T> out(n);
  pointwise(c.op, dtype_of<T>, View{out.data(), dtype_of<T>, {n}, {1}}, views);
  Real worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    const Real e = c.reference(in[0][i], c.arity > 1 ? in[1][i] : T(0), c.arity > 2 ? in[2][i] : T(0));
    if (const Real d = distance(out[i], e, c.floor); d > worst) worst = d, at = i;
  }
  EXPECT_LE(worst, c.ulps == 0 ? 0 : c.ulps + 0.51)
      << name_of(dtype_of<T>) << " " << c.name << "(" << in[0][at] << ", " << (c.arity > 1 ? in[1][at] : T(0)) << ", "
      << (c.arity > 2 ? in[2][at] : T(0)) << ") = " << out[at];
}

TEST(Pointwise, FloatsAgainstLongDouble) {
  for_each_target([] {
    for (const Case& c : kFloatCases) {
      check_floats<float>(c);
      check_floats<double>(c);
    }
  });
}

using Integer = __int128;
Integer floor_quotient(Integer a, Integer b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
Integer wrapped(Integer a) { return static_cast<int64_t>(a); }
// By squares modulo 2^64, of which the narrower types show the lower bits.
Integer power(Integer base, Integer exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
  if (exponent == 0) return 1;
  const Integer half = power(base, exponent / 2), square = wrapped(half * half);
  return exponent % 2 == 0 ? square : wrapped(square * base);
}
struct IntegerCase {
  const char* name;
  Pointwise op;
  int arity;
  std::function<Integer(Integer, Integer, Integer)> reference;
  int64_t low = -1000, high = 1000;
  bool nonzero = false;  // second input
};
#define I1(S, expr, ...)                                                                                        \
  {                                                                                                             \
#S, Pointwise::k##S, 1,                                                                                     \
        []([[maybe_unused]] Integer a, Integer, Integer) -> Integer { return expr; } __VA_OPT__(, ) __VA_ARGS__ \
  }
#define I2(S, expr, ...)                                                                                               \
  {                                                                                                                    \
#S, Pointwise::k##S, 2,                                                                                            \
        []([[maybe_unused]] Integer a, [[maybe_unused]] Integer b, Integer) -> Integer { return expr; } __VA_OPT__(, ) \
                                                                                __VA_ARGS__                            \
  }
#define I3(S, expr, ...)                                                                      \
  {                                                                                           \
#S, Pointwise::k##S, 3,                                                                   \
        []([[maybe_unused]] Integer a, [[maybe_unused]] Integer b,                            \
           [[maybe_unused]] Integer c) -> Integer { return expr; } __VA_OPT__(, ) __VA_ARGS__ \
  }

const IntegerCase kIntegerCases[] = {
    I1(Neg, -a),
    I1(Abs, a < 0 ? -a : a),
    I1(Sign, (a > 0) - (a < 0)),
    I1(Square, a* a),
    I1(Relu, a < 0 ? 0 : a),
    I1(Floor, a),
    I1(Ceil, a),
    I1(Round, a),
    I1(Trunc, a),
    I1(BitwiseNot, ~a),
    I1(LogicalNot, a == 0),
    I1(IsNan, 0),
    I1(IsInf, 0),
    I1(IsFinite, 1),
    I1(IsPosInf, 0),
    I1(IsNegInf, 0),
    I1(SignBit, a < 0),
    I2(Add, a + b),
    I2(Sub, a - b),
    I2(Mul, a* b),
    I2(DivTrunc, a / b, -1000, 1000, true),
    I2(FloorDivide, floor_quotient(a, b), -1000, 1000, true),
    I2(Remainder, a - b * floor_quotient(a, b), -1000, 1000, true),
    I2(Fmod, a % b, -1000, 1000, true),
    I2(Maximum, std::max(a, b)),
    I2(Minimum, std::min(a, b)),
    I2(Fmax, std::max(a, b)),
    I2(Fmin, std::min(a, b)),
    I2(ClampMin, std::max(a, b)),
    I2(ClampMax, std::min(a, b)),
    I2(Eq, a == b),
    I2(Ne, a != b),
    I2(Lt, a < b),
    I2(Le, a <= b),
    I2(Gt, a > b),
    I2(Ge, a >= b),
    I2(LogicalAnd, a&& b),
    I2(LogicalOr, a || b),
    I2(LogicalXor, !a != !b),
    I2(BitwiseAnd, a& b),
    I2(BitwiseOr, a | b),
    I2(BitwiseXor, a ^ b),
    I2(ShiftLeft, a*(Integer(1) << b), 0, 25),
    I2(ShiftRight, a >> b, 0, 25),
    I3(Where, a != 0 ? b : c),
    I3(AddScaled, a + b * c),
    I3(Addcmul, a + b * c),
    I3(ClampBoth, std::min(std::max(a, b), c)),
    // Overflow wraps, as in PyTorch.
    I2(Add, a + b, INT64_MIN, INT64_MAX),
    I2(Sub, a - b, INT64_MIN, INT64_MAX),
    I2(Mul, a* b, INT64_MIN, INT64_MAX),
    I1(Neg, -a, INT64_MIN, INT64_MAX),
    I1(Square, a* a, INT64_MIN, INT64_MAX),
    I3(AddScaled, wrapped(a + wrapped(b * c)), INT64_MIN, INT64_MAX),
    I3(Addcmul, wrapped(a + wrapped(b * c)), INT64_MIN, INT64_MAX),
    I2(Pow, power(a, b), 0, 100),
    I2(Pow, power(a, b), INT64_MIN, INT64_MAX),
};

template <class T>
void check_integers(const IntegerCase& c) {
  constexpr int64_t n = 501;
  std::vector<std::vector<T>> in;
  std::vector<View> views;
  for (int k = 0; k < c.arity; ++k) {
    std::mt19937_64 engine(static_cast<unsigned>(k) + 3);
    std::uniform_int_distribution<int64_t> uniform(c.low, c.high);
    std::vector<T> v;
    for (int64_t i = 0; i < n; ++i) v.push_back(static_cast<T>(uniform(engine)));
    if (k == 1 && c.nonzero)
      for (T& x : v) x = x == 0 ? T(-1) : x;
    in.push_back(v);
  }
  for (auto& v : in) views.push_back({v.data(), dtype_of<T>, {n}, {1}});
  std::vector<T> out(n);
  pointwise(c.op, dtype_of<T>, View{out.data(), dtype_of<T>, {n}, {1}}, views);
  for (size_t i = 0; i < n; ++i) {
    const Integer e = c.reference(in[0][i], c.arity > 1 ? in[1][i] : 0, c.arity > 2 ? in[2][i] : 0);
    ASSERT_EQ(out[i], static_cast<T>(e)) << c.name << " of " << in[0][i] << " and " << (c.arity > 1 ? in[1][i] : T(0));
  }
}

TEST(Pointwise, IntegersAgainstWideArithmetic) {
  for (const IntegerCase& c : kIntegerCases) {
    check_integers<int8_t>(c);
    check_integers<uint8_t>(c);
    check_integers<int16_t>(c);
    check_integers<int32_t>(c);
    check_integers<int64_t>(c);
  }
}

// Bytes of 0 and 1, also where an op's lanes may hold more: true + true.
TEST(Pointwise, BoolsStayBools) {
  const struct {
    Pointwise op;
    bool (*expected)(bool, bool);
  } cases[] = {
      {Pointwise::kAdd, [](bool a, bool b) { return a || b; }},
      {Pointwise::kMul, [](bool a, bool b) { return a && b; }},
      {Pointwise::kMaximum, [](bool a, bool b) { return a || b; }},
      {Pointwise::kBitwiseAnd, [](bool a, bool b) { return a && b; }},
      {Pointwise::kBitwiseOr, [](bool a, bool b) { return a || b; }},
      {Pointwise::kBitwiseXor, [](bool a, bool b) { return a != b; }},
      {Pointwise::kLogicalXor, [](bool a, bool b) { return a != b; }},
      {Pointwise::kEq, [](bool a, bool b) { return a == b; }},
      {Pointwise::kLt, [](bool a, bool b) { return a < b; }},
  };
  for_each_target([&] {
    for (const auto& c : cases)
      for (int64_t n : {1, 15, 64, 1093}) {
        BoolArray a({n}, 1), b({n}), out({n}, 3), apart({n, 2});
        fill_integers(a, 1, 0, 1);
        fill_integers(b, 2, 0, 1);
        const View inputs[] = {a.view(), b.view()};
        pointwise(c.op, DType::kBool, out.view(), inputs);
        pointwise(c.op, DType::kBool, View{apart.begin(), DType::kBool, {n}, {2}}, inputs);
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_EQ(out[i], c.expected(a[i] != 0, b[i] != 0)) << static_cast<int>(c.op) << " at " << i;
          ASSERT_EQ(apart[2 * i], out[i]) << static_cast<int>(c.op) << " at " << i;
        }
      }
  });
}

// The same list of ops as the kernels: a new op without a reference fails here.
TEST(Pointwise, EveryOpHasAReference) {
  std::set<std::string> have;
  for (const Case& c : kFloatCases) have.insert(c.name);
  for (const IntegerCase& c : kIntegerCases) have.insert(c.name);
#define DS_UNARY(S, ...) EXPECT_TRUE(have.contains(#S)) << #S;
#define DS_BINARY(S, ...) EXPECT_TRUE(have.contains(#S)) << #S;
#define DS_TERNARY(S, ...) EXPECT_TRUE(have.contains(#S)) << #S;
#include "kernels/pointwise/pointwise.def"
#undef DS_UNARY
#undef DS_BINARY
#undef DS_TERNARY
}

TEST(Pointwise, IntegerDivisionByZeroIsAnError) {
  for (Pointwise op : {Pointwise::kDivTrunc, Pointwise::kFloorDivide, Pointwise::kRemainder, Pointwise::kFmod}) {
    Array<int64_t> a({3}), b({3}), out({3});
    a[0] = a[1] = a[2] = 5;
    b[0] = b[2] = 1;
    const std::array<View, 2> in{a.view(), b.view()};
    EXPECT_THROW(pointwise(op, DType::kInt64, out.view(), in), Error);
  }
}

TEST(Pointwise, ExtremeIntegersDivideByMinusOne) {
  Array<int64_t> a({1}), b({1}), out({1});
  a[0] = std::numeric_limits<int64_t>::min();
  b[0] = -1;
  const std::array<View, 2> in{a.view(), b.view()};
  for (const auto& [op, expected] : {std::pair{Pointwise::kFloorDivide, a[0]},
                                     {Pointwise::kDivTrunc, a[0]},
                                     {Pointwise::kRemainder, int64_t{0}},
                                     {Pointwise::kFmod, int64_t{0}}}) {
    pointwise(op, DType::kInt64, out.view(), in);
    EXPECT_EQ(out[0], expected);
  }
}

// Every length around the vector widths, unaligned, with guards on both sides.
TEST(Pointwise, OddLengthsAndUnalignedPointers) {
  for_each_target([] {
    for (int64_t n = 0; n <= 67; ++n)
      for (int lead = 0; lead < 3; ++lead) {
        Array<float> a({n}, lead), b({n}, 2 - lead), out({n + 1}, lead);
        fill_normal(a, 1), fill_normal(b, 2);
        out[n] = -7;
        View target = out.view();
        target.sizes = {n};
        const std::array<View, 2> in{a.view(), b.view()};
        pointwise(Pointwise::kAdd, DType::kFloat32, target, in);
        for (int64_t i = 0; i < n; ++i) ASSERT_EQ(out[i], a[i] + b[i]);
        ASSERT_EQ(out[n], -7);
      }
  });
}

// Strided, reversed, transposed, broadcast and converted operands against the values themselves.
template <class A, class B, class Out>
void check_layouts(DType compute) {
  const Dims shape{37, 50};
  Array<A> a(shape, 1);
  Array<B> b(shape), flipped({50, 37});
  fill_integers(a, 1, 1, 9), fill_integers(b, 2, 1, 9), fill_integers(flipped, 3, 1, 9);
  const View row{b.begin(), dtype_of<B>, shape, {0, 1}}, column{b.begin(), dtype_of<B>, shape, {1, 0}},
      one{b.begin(), dtype_of<B>, shape, {0, 0}};
  std::vector<std::pair<View, View>> pairs{{a.view(), b.view()},
                                           {a.view(), row},
                                           {a.view(), column},
                                           {a.view(), one},
                                           {a.view(), transposed(flipped.view(), 0, 1)}};
  for (int dim : {0, 1})
    for (int64_t step : {2, -1, -3}) pairs.push_back({sliced(a.view(), dim, step), sliced(b.view(), dim, step)});
  for (const auto& [x, y] : pairs) {
    const std::vector<double> xs = values_of(x), ys = values_of(y);
    std::vector<double> expected;
    for (size_t i = 0; i < xs.size(); ++i) expected.push_back(xs[i] * ys[i]);
    const std::array<View, 2> in{x, y};
    Array<Out> out(x.sizes, 1), turned({x.sizes[1], x.sizes[0]});
    expect_same_bits<Out>(out, [&] { pointwise(Pointwise::kMul, compute, out.view(), in); });
    EXPECT_EQ(values_of(out.view()), expected) << x.strides << y.strides;
    pointwise(Pointwise::kMul, compute, transposed(turned.view(), 0, 1), in);
    EXPECT_EQ(values_of(transposed(turned.view(), 0, 1)), expected);
  }
}

TEST(Pointwise, LayoutsAndMixedDTypes) {
  for_each_target([] {
    check_layouts<float, float, float>(DType::kFloat32);
    check_layouts<double, double, double>(DType::kFloat64);
    check_layouts<BFloat16, BFloat16, BFloat16>(DType::kBFloat16);
    check_layouts<Half, float, float>(DType::kFloat32);
    check_layouts<int8_t, int32_t, int32_t>(DType::kInt32);
    check_layouts<uint8_t, uint8_t, uint8_t>(DType::kUInt8);
    check_layouts<int64_t, int16_t, int64_t>(DType::kInt64);
    check_layouts<int32_t, double, double>(DType::kFloat64);
    check_layouts<float, int64_t, Half>(DType::kFloat32);
  });
}

// An element's bits depend on its own inputs only: not on its neighbours, its place in a vector or the padding behind
// it.
TEST(Pointwise, ElementsDoNotDependOnTheirNeighbours) {
  for_each_target([] {
    for (const Case& c : kFloatCases) {
      constexpr int64_t n = 61;
      std::vector<std::vector<float>> in;
      for (int k = 0; k < c.arity; ++k) in.push_back(inputs<float>(c, k, 400));
      for (auto& v : in) v.erase(v.begin(), v.begin() + 400 - n);
      if (c.op == Pointwise::kPow)  // exponents with a short cut between others
        for (size_t i = 0; i < n; ++i) in[1][i] = std::array{2.f, 3.f, 0.5f, -1.f, 1.7f, 0.f}[i % 6];
      std::vector<View> views;
      for (auto& v : in) views.push_back({v.data(), DType::kFloat32, {n}, {1}});
      std::vector<float> all(n);
      pointwise(c.op, DType::kFloat32, View{all.data(), DType::kFloat32, {n}, {1}}, views);
      for (int64_t i = 0; i < n; ++i) {
        float one = 0;
        std::vector<View> single = views;
        for (View& v : single) v.data = v.at(i), v.sizes = {1};
        pointwise(c.op, DType::kFloat32, View{&one, DType::kFloat32, {1}, {1}}, single);
        ASSERT_EQ(std::bit_cast<uint32_t>(one), std::bit_cast<uint32_t>(all[static_cast<size_t>(i)]))
            << c.name << " at " << i;
      }
    }
  });
}

TEST(Pointwise, ComparisonsStoreBool) {
  BoolArray out({600});
  Array<float> a({600}), b({600});
  fill_integers(a, 1, 0, 3), fill_integers(b, 2, 0, 3);
  const std::array<View, 2> in{a.view(), b.view()};
  pointwise(Pointwise::kLt, DType::kFloat32, out.view(), in);
  for (int64_t i = 0; i < 600; ++i) ASSERT_EQ(out[i], a[i] < b[i] ? 1 : 0);
}

TEST(Pointwise, LargeInputsGiveTheSameBitsOnOneAndTwoThreads) {
  Array<float> a({300, 1001}, 1), out({300, 1001});
  fill_normal(a, 1);
  for (const View& x : {a.view(), View{a.begin(), DType::kFloat32, {300, 1001}, {0, 1}}}) {
    const std::array<View, 1> in{x};
    expect_same_bits<float>(out, [&] { pointwise(Pointwise::kTanh, DType::kFloat32, out.view(), in); });
    for (int64_t i : {0, 999, 1000, 1001, 300299})
      EXPECT_NEAR(out[i], std::tanh(values_of(x)[static_cast<size_t>(i)]), 3e-7);
  }
}

// Dense 16-bit floats are read and written in place, others through blocks of floats: the same bits.
template <class T>
void check_small_floats(const Case& c, int64_t n, int wide) {  // operand `wide` is of float
  Array<T> in[3] = {Array<T>({n}), Array<T>({n}, 1), Array<T>({n}, 3)}, dense({n}, 1), apart({n, 2});
  Array<float> floats({n}, 1);
  fill_normal(floats, 9, 3);
  View views[3];
  for (int k = 0; k < c.arity; ++k) {
    fill_normal(in[k], static_cast<uint32_t>(k + n), 3);
    const float special[] = {0, -0.0F, INFINITY, -INFINITY, NAN, 1e-40F, -1e-39F, 3e38F, 6e-8F, -6e4F};
    for (int64_t i = 0; i < n; i += 5) in[k][i] = T(special[(i / 5 + k) % 10]);
    views[k] = k == wide ? floats.view() : in[k].view();
  }
  const std::span<const View> inputs(views, static_cast<size_t>(c.arity));
  reset_route_counts();
  pointwise(c.op, DType::kFloat32, View{apart.begin(), dtype_of<T>, {n}, {2}}, inputs);
  EXPECT_EQ(times_run("pointwise.small_floats"), 0U) << c.name;
  pointwise(c.op, DType::kFloat32, dense.view(), inputs);
  EXPECT_EQ(times_run("pointwise.small_floats"), 1U) << c.name;
  for (int64_t i = 0; i < n; ++i) {
    const T got = dense[i], want = apart[2 * i];
    if (!std::isnan(static_cast<float>(want)))
      ASSERT_EQ(got.bits, want.bits) << c.name << " element " << i << " of " << n << ", wide " << wide;
    else
      ASSERT_TRUE(std::isnan(static_cast<float>(got))) << c.name << " element " << i << " of " << n;
  }
}

TEST(Pointwise, SmallFloatsInPlaceAsThroughFloats) {
  for_each_target([] {
    for (const Case& c : kFloatCases)
      for (int64_t n : {2, 15, 16, 31, 32, 33, 70, 1024, 1093})
        for (int wide = 0; wide < c.arity + 1; ++wide) {  // the last time none
          check_small_floats<BFloat16>(c, n, wide);
          check_small_floats<Half>(c, n, wide);
        }
  });
}

}  // namespace
}  // namespace deepseek::kernels
