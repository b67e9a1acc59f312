// What the expressions of pointwise.def call.

#if defined(DEEPSEEK_KERNELS_POINTWISE_POINTWISE_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_POINTWISE_POINTWISE_MATH_INL_H_
#undef DEEPSEEK_KERNELS_POINTWISE_POINTWISE_MATH_INL_H_
#else
#define DEEPSEEK_KERNELS_POINTWISE_POINTWISE_MATH_INL_H_
#endif

#include <cmath>
#include <limits>
#include <type_traits>

#include "base/check.h"
#include "kernels/simd/vecmath-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

template <class D>
HWY_INLINE hn::Vec<D> K(D d, double value) {
  return hn::Set(d, static_cast<hn::TFromD<D>>(value));
}
template <class D>
HWY_INLINE hn::Vec<D> Infinity(D d) {
  return hn::Set(d, std::numeric_limits<hn::TFromD<D>>::infinity());
}
// True where the lanes differ or either is NaN (hn::Ne is false for NaN on AVX-512).
template <class V>
HWY_INLINE auto NotEq(V a, V b) {
  return hn::Not(hn::Eq(a, b));
}
// Masks become lanes of 0 and 1, converted to bool when stored.
template <class D, class M>
HWY_INLINE hn::Vec<D> Bool(D d, M mask) {
  return hn::IfThenElseZero(mask, K(d, 1));
}
template <class D, class V>
HWY_INLINE auto Truth(D d, V a) {
  return NotEq(a, hn::Zero(d));
}

template <class D, class V>
HWY_INLINE V Sigmoid(D d, V a) {
  return hn::Div(K(d, 1), hn::Add(K(d, 1), VExp(d, hn::Neg(a))));
}
template <class D, class V>
HWY_INLINE V SignOf(D d, V a) {
  const V one = K(d, 1);
  return hn::Sub(hn::IfThenElseZero(hn::Gt(a, K(d, 0)), one), hn::IfThenElseZero(hn::Lt(a, K(d, 0)), one));
}
template <class D, class V>
HWY_INLINE V SiluSlope(D d, V x) {
  const V s = Sigmoid(d, x);
  return hn::Mul(s, hn::Add(K(d, 1), hn::Mul(x, hn::Sub(K(d, 1), s))));
}
template <class D, class V>
HWY_INLINE V NormalCdf(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 4)
    return NormalCdfF32(d, x);
  else
    return hn::Mul(K(d, 0.5), hn::Add(K(d, 1), VErf(d, hn::Mul(x, K(d, 0.7071067811865476)))));
}
template <class D, class V>
HWY_INLINE V GeluErf(D d, V x) {
  return hn::Mul(x, NormalCdf(d, x));
}
template <class D, class V>
HWY_INLINE V GeluErfSlope(D d, V x) {
  const V density = hn::Mul(K(d, 0.3989422804014327), VExp(d, hn::Mul(hn::Mul(x, x), K(d, -0.5))));
  return hn::Add(NormalCdf(d, x), hn::Mul(x, density));
}
// gelu(x) = x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3)
template <class D, class V>
HWY_INLINE V GeluInner(D d, V x) {
  const V cubic = hn::Mul(hn::Mul(hn::Mul(x, x), x), K(d, 0.044715));
  return hn::Mul(K(d, 0.7978845608028654), hn::Add(x, cubic));
}
template <class D, class V>
HWY_INLINE V GeluTanh(D d, V x) {
  return hn::Mul(hn::Mul(K(d, 0.5), x), hn::Add(K(d, 1), VTanh(d, GeluInner(d, x))));
}
template <class D, class V>
HWY_INLINE V GeluTanhSlope(D d, V x) {
  const V t = VTanh(d, GeluInner(d, x));
  const V inner_slope = hn::Mul(K(d, 0.7978845608028654), hn::Add(K(d, 1), hn::Mul(K(d, 3 * 0.044715), hn::Mul(x, x))));
  const V left = hn::Mul(K(d, 0.5), hn::Add(K(d, 1), t));
  const V right = hn::Mul(hn::Mul(K(d, 0.5), x), hn::Mul(hn::Sub(K(d, 1), hn::Mul(t, t)), inner_slope));
  return hn::Add(left, right);
}
template <class D, class V>
HWY_INLINE V Softplus(D d, V x, V beta, V threshold) {
  const V z = hn::Mul(x, beta);
  return hn::IfThenElse(hn::Gt(z, threshold), x, hn::Div(VLog1p(d, VExp(d, z)), beta));
}
template <class D, class V>
HWY_INLINE V LogAddExp(D d, V a, V b) {
  const V high = hn::Max(a, b);
  const V sum = hn::Add(high, VLog1p(d, VExp(d, hn::Neg(hn::Abs(hn::Sub(a, b))))));
  // Equal infinities have no difference; NaN in either input wins.
  const V safe = hn::IfThenElse(hn::And(hn::Eq(a, b), hn::Eq(hn::Abs(a), Infinity(d))), a, sum);
  return hn::IfThenElse(NotEq(a, a), a, hn::IfThenElse(NotEq(b, b), b, safe));
}
// Interpolates from the nearer end, so that weight 1 gives `end` exactly.
template <class D, class V>
HWY_INLINE V Lerp(D d, V start, V end, V weight) {
  const V diff = hn::Sub(end, start);
  return hn::IfThenElse(hn::Lt(hn::Abs(weight), K(d, 0.5)), hn::Add(start, hn::Mul(weight, diff)),
                        hn::Sub(end, hn::Mul(diff, hn::Sub(K(d, 1), weight))));
}

// x86 max and min return the second operand when either is NaN, so only a NaN in `a` needs care.
template <class V>
HWY_INLINE V MaxNan(V a, V b) {
  return hn::IfThenElse(hn::IsNaN(a), a, hn::Max(a, b));
}
template <class V>
HWY_INLINE V MinNan(V a, V b) {
  return hn::IfThenElse(hn::IsNaN(a), a, hn::Min(a, b));
}
template <class V>
HWY_INLINE V MaxNum(V a, V b) {
  return hn::IfThenElse(NotEq(a, a), b, hn::IfThenElse(NotEq(b, b), a, hn::Max(a, b)));
}
template <class V>
HWY_INLINE V MinNum(V a, V b) {
  return hn::IfThenElse(NotEq(a, a), b, hn::IfThenElse(NotEq(b, b), a, hn::Min(a, b)));
}

// Lane by lane through a scalar function, where exactness matters more than speed.
template <class D, class V, class F>
HWY_INLINE V Lanes(D d, V a, V b, F f) {
  using T = hn::TFromD<D>;
  HWY_ALIGN T x[hn::MaxLanes(d)], y[hn::MaxLanes(d)];
  hn::Store(a, d, x);
  hn::Store(b, d, y);
  for (size_t i = 0; i < hn::MaxLanes(d); ++i) x[i] = f(x[i], y[i]);
  return hn::Load(d, x);
}
template <class D, class V>
HWY_INLINE V Fmod(D d, V a, V b) {
  return Lanes(d, a, b, [](auto x, auto y) { return std::fmod(x, y); });
}
template <class D, class V>
HWY_INLINE V Remainder(D d, V a, V b) {
  return Lanes(d, a, b, [](auto x, auto y) {
    auto r = std::fmod(x, y);
    if (r != 0 && (y < 0) != (r < 0)) r += y;
    return r;
  });
}
template <class D, class V>
HWY_INLINE V FloorDivide(D d, V a, V b) {
  return Lanes(d, a, b, [](auto x, auto y) {
    using T = decltype(x);
    if (y == 0) return x / y;
    const T r = std::fmod(x, y);
    T q = (x - r) / y;
    if (r != 0 && (y < 0) != (r < 0)) q -= T(1);
    if (q == 0) return std::copysign(T(0), x / y);
    const T floored = std::floor(q);
    return q - floored > T(0.5) ? floored + T(1) : floored;
  });
}
// Exponents with a short exact form skip libmvec's pow. Chosen lane by lane, so that an element's bits do not depend on
// its neighbours or on padding (0).
template <class D, class V>
HWY_INLINE V Pow(D d, V a, V b) {
  const auto two = hn::Eq(b, K(d, 2)), three = hn::Eq(b, K(d, 3)), half = hn::Eq(b, K(d, 0.5)),
             inverse = hn::Eq(b, K(d, -1));
  const auto simple = hn::Or(hn::Or(hn::Or(two, three), hn::Or(half, inverse)), hn::Eq(b, K(d, 0)));
  const V square = hn::Mul(a, a);
  V result = hn::IfThenElse(two, square, hn::IfThenElse(three, hn::Mul(square, a), K(d, 1)));
  // pow gives +0 and +inf where sqrt gives -0 and NaN.
  const V root = hn::IfThenElse(hn::Eq(a, hn::Neg(Infinity(d))), Infinity(d), hn::Add(hn::Sqrt(a), K(d, 0)));
  result = hn::IfThenElse(half, root, hn::IfThenElse(inverse, hn::Div(K(d, 1), a), result));
  return hn::AllTrue(d, simple) ? result : hn::IfThenElse(simple, result, VPow(d, a, b));
}

// --- integers
// What T wraps in. Not narrower than int, which 16-bit operands would become.
template <class T>
using Wrapping = std::conditional_t<(sizeof(T) < sizeof(uint32_t)), uint32_t, std::make_unsigned_t<T>>;

template <class T>
HWY_INLINE T IntMax(T a, T b) {
  return a < b ? b : a;
}
template <class T>
HWY_INLINE T IntMin(T a, T b) {
  return b < a ? b : a;
}
template <class T>
HWY_INLINE void CheckDivisor(T b) {
  if (b == 0) fail<Error>("ZeroDivisionError: integer division or modulo by zero");
}
template <class T>
HWY_INLINE T IntDivTrunc(T a, T b) {
  CheckDivisor(b);
  return b == -1 ? T(Wrapping<T>(0) - Wrapping<T>(a)) : T(a / b);
}
template <class T>
HWY_INLINE T IntFmod(T a, T b) {
  CheckDivisor(b);
  return b == -1 ? T(0) : T(a % b);
}
template <class T>
HWY_INLINE T IntRemainder(T a, T b) {
  const T r = IntFmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? T(r + b) : r;
}
template <class T>
HWY_INLINE T IntDivFloor(T a, T b) {
  const T q = IntDivTrunc(a, b);
  return b != -1 && a % b != 0 && (a < 0) != (b < 0) ? T(q - 1) : q;
}
template <class T>
HWY_INLINE T IntPow(T base, T exponent) {
  using U = Wrapping<T>;
  if (exponent < 0) return base == 1 ? T(1) : base == -1 ? T(exponent % 2 == 0 ? 1 : -1) : T(0);
  U result = 1, square = static_cast<U>(base);
  for (U e = static_cast<U>(exponent); e != 0; e >>= 1) {
    if (e & 1) result *= square;
    square *= square;
  }
  return static_cast<T>(result);
}
template <class T>
HWY_INLINE T IntShiftLeft(T a, T b) {
  constexpr int kBits = 8 * sizeof(T);
  return b < 0 || b >= kBits ? T(0) : T(Wrapping<T>(a) << b);
}
template <class T>
HWY_INLINE T IntShiftRight(T a, T b) {
  constexpr int kBits = 8 * sizeof(T);
  return b < 0 || b >= kBits ? T(a < 0 ? -1 : 0) : T(a >> b);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
