// Vector math on Highway vectors, f32 and f64, at most 4 ULP, special values as libm. A vector's lanes do not influence
// each other, so tails may be computed on padded vectors; nor does a lane's value make the others slow, but for few
// that are rare (`Guarded`). Float exp, exp2, erf and the normal distribution are our own, the rest is libmvec's.

#if defined(DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_
#undef DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_
#else
#define DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_
#endif

#include <limits>

#include "hwy/highway.h"
#include "kernels/simd/libmvec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// c0 + c1 t + c2 t^2 ...
template <class D, class V>
HWY_INLINE V Polynomial(D d, V, double c) {
  return hn::Set(d, static_cast<hn::TFromD<D>>(c));
}
template <class D, class V, class... C>
HWY_INLINE V Polynomial(D d, V t, double c, C... more) {
  return hn::MulAdd(Polynomial(d, t, more...), t, hn::Set(d, static_cast<hn::TFromD<D>>(c)));
}

// --- exponentials ---

// What the exponential of a base is where it is no normal number: subnormal below `normal`, 0 below `zero`, infinity
// above `most`.
struct ExponentialRange {
  float zero, normal, most;
};

// x for the reduction: where one instruction scales, what is out of range is drawn to its edge, else it is blended.
template <class D, class V>
HWY_INLINE V Reducible(D d, V x, ExponentialRange range) {
#if HWY_TARGET == HWY_AVX3
  return hn::Min(hn::Set(d, range.most + 1), hn::Max(hn::Set(d, range.zero), x));  // in this order NaN stays
#else
  (void)d, (void)range;
  return x;
#endif
}

// power * 2^n, to infinity and to subnormal numbers with one rounding; NaN for lanes x that are.
template <class D, class V>
HWY_INLINE V ScaledByPower(D d, V x, V power, V n, ExponentialRange range) {
#if HWY_TARGET == HWY_AVX3
  (void)d, (void)x, (void)range;
  return V{_mm512_scalef_ps(power.raw, n.raw)};
#else
  const hn::RebindToSigned<D> di;
  const auto add_exponent = [=](V v, V exponent) HWY_ATTR {
    return hn::BitCast(d, hn::Add(hn::BitCast(di, v), hn::ShiftLeft<23>(hn::ConvertTo(di, exponent))));
  };
  // Blends where a branch would be mispredicted on values that are widely spread. NaN is neither small nor at most.
  const auto small = hn::Lt(x, hn::Set(d, range.normal)), at_most = hn::Le(x, hn::Set(d, range.most));
  const V y = hn::IfThenZeroElse(small, add_exponent(power, n));
  const V edge = hn::IfThenElse(at_most, y, hn::Max(hn::Inf(d), x));
  const auto subnormal = hn::And(small, hn::Ge(x, hn::Set(d, range.zero)));
  if (HWY_LIKELY(hn::AllFalse(d, subnormal))) return edge;
  // Rounded where it is added to 1, whose last place is then that of subnormal numbers: to multiply would be slow.
  const V one = hn::Set(d, 1.0f);
  const V rounded = hn::Add(one, add_exponent(power, hn::Add(n, hn::Set(d, 126.0f))));
  return hn::IfThenElse(subnormal, hn::BitCast(d, hn::Sub(hn::BitCast(di, rounded), hn::BitCast(di, one))), edge);
#endif
}

// At most 1 ULP for every x. e^x = 2^n e^r with |r| <= ln(2) / 2, e^r by a minimax fit.
template <class D, class V>
HWY_INLINE V ExpF32(D d, V x) {
  constexpr ExponentialRange kRange = {-104.0f, -87.3365402f, 88.7228317f};
  const V c = Reducible(d, x, kRange);
  const V n = hn::Round(hn::Mul(c, hn::Set(d, 1.44269504f)));
  const V r = hn::NegMulAdd(n, hn::Set(d, -1.90465421e-9f), hn::NegMulAdd(n, hn::Set(d, 0.693147182f), c));
  const V tail = Polynomial(d, r, 0.4999999403953552, 0.1666652113199234, 0.04166825860738754, 0.008368666283786297,
                            0.0013821168104186654);
  const V power = hn::Add(hn::MulAdd(hn::Mul(r, r), tail, r), hn::Set(d, 1.0f));
  return ScaledByPower(d, x, power, n, kRange);
}

template <class D, class V>
HWY_INLINE V Exp2F32(D d, V x) {
  constexpr ExponentialRange kRange = {-151.0f, -126.0f, 127.999992f};
  const V c = Reducible(d, x, kRange);
  const V n = hn::Round(c), r = hn::Sub(c, n);
  const V power = hn::MulAdd(Polynomial(d, r, 0.6931471824645996, 0.24022647738456726, 0.05550359934568405,
                                        0.009618505835533142, 0.0013390806270763278, 0.0001532646274426952),
                             r, hn::Set(d, 1.0f));
  return ScaledByPower(d, x, power, n, kRange);
}

// --- libmvec, kept on its fast path ---

// f, for which lanes that are `known` are replaced by what is fast and get their value. Lanes that are neither `fast`
// nor known make f slow.
template <class D, class V, class M, class F>
HWY_INLINE V Guarded(D d, V v, M fast, M known, V value, F f, double safe = 0.5) {
  if (HWY_LIKELY(hn::AllTrue(d, fast))) return f(v);
  return hn::IfThenElse(known, value, f(hn::IfThenElse(known, hn::Set(d, static_cast<hn::TFromD<D>>(safe)), v)));
}

template <class D>
inline constexpr bool kIsF32 = sizeof(hn::TFromD<D>) == 4;
// A bound that depends on the type.
template <class D>
constexpr hn::TFromD<D> Bound(float of_f32, double of_f64) {
  return kIsF32<D> ? static_cast<hn::TFromD<D>>(of_f32) : static_cast<hn::TFromD<D>>(of_f64);
}
template <class D, class V>
HWY_INLINE auto Within(D d, V v, hn::TFromD<D> bound) {
  return hn::Le(hn::Abs(v), hn::Set(d, bound));
}

// Where a function is neither near its overflow nor out of its fast range: infinity above `most`, `low` below `least`.
template <class D, class V, class F>
HWY_INLINE V GuardedExponential(D d, V v, hn::TFromD<D> fast, hn::TFromD<D> least, hn::TFromD<D> most,
                                hn::TFromD<D> low, F f) {
  const auto high = hn::Gt(v, hn::Set(d, most)), below = hn::Lt(v, hn::Set(d, least)), nan = hn::IsNaN(v);
  const V value = hn::IfThenElse(nan, v, hn::IfThenElse(high, hn::Inf(d), hn::Set(d, low)));
  return Guarded(d, v, Within(d, v, fast), hn::Or(nan, hn::Or(high, below)), value, f);
}

template <class D, class V>
HWY_INLINE V VExp(D d, V v) {
  if constexpr (kIsF32<D>)
    return ExpF32(d, v);
  else
    return GuardedExponential(d, v, 708.39, -745.14, 709.79, 0.0, MvecExp());
}
template <class D, class V>
HWY_INLINE V VExp2(D d, V v) {
  if constexpr (kIsF32<D>)
    return Exp2F32(d, v);
  else
    return GuardedExponential(d, v, 1021.99, -1075.1, 1024.0, 0.0, MvecExp2());
}
template <class D, class V>
HWY_INLINE V VExpm1(D d, V v) {
  return GuardedExponential(d, v, Bound<D>(86.643f, 707.7), Bound<D>(-86.643f, -707.7), Bound<D>(88.73f, 709.79), -1,
                            MvecExpm1());
}
template <class D, class V>
HWY_INLINE V VCosh(D d, V v) {
  const V a = hn::Abs(v);
  return GuardedExponential(d, a, Bound<D>(87.336f, 707.7), -1, Bound<D>(89.5f, 710.5), 0, MvecCosh());
}
template <class D, class V>
HWY_INLINE V VSinh(D d, V v) {
  const V a = hn::Abs(v);
  const auto large = hn::Gt(a, hn::Set(d, Bound<D>(89.5f, 710.5)));
  const V value = hn::IfThenElse(large, hn::CopySign(hn::Inf(d), v), v);
  return Guarded(d, v, Within(d, v, Bound<D>(87.336f, 707.7)), hn::Or(large, hn::IsNaN(v)), value, MvecSinh());
}
template <class D, class V>
HWY_INLINE V VTanh(D d, V v) {
  const auto fast = hn::IsFinite(v);
  const V value = hn::IfThenElse(hn::IsNaN(v), v, hn::CopySign(hn::Set(d, hn::TFromD<D>{1}), v));
  return Guarded(d, v, fast, hn::Not(fast), value, MvecTanh());
}
template <class D, class V>
HWY_INLINE V VErfc(D d, V v) {
  const auto high = hn::Gt(v, hn::Set(d, Bound<D>(10.06f, 27.3))), nan = hn::IsNaN(v);
  return Guarded(d, v, hn::Le(v, hn::Set(d, Bound<D>(10.054f, 27.226))), hn::Or(high, nan),
                 hn::IfThenElse(nan, v, hn::Zero(d)), MvecErfc());
}

// --- logarithms ---

// f is a logarithm; `of_scale` what it gives for 2^24 (f64: 2^54), by which subnormal numbers become normal ones.
template <class D, class V, class F>
HWY_INLINE V GuardedLog(D d, V v, double of_scale, F f) {
  using T = hn::TFromD<D>;
  using Limits = std::numeric_limits<T>;
  const auto fast = hn::And(hn::Ge(v, hn::Set(d, Limits::min())), hn::Le(v, hn::Set(d, Limits::max())));
  if (HWY_LIKELY(hn::AllTrue(d, fast))) return f(v);
  const V zero = hn::Zero(d), scale = hn::Set(d, T{kIsF32<D> ? 0x1p24 : 0x1p54});
  const auto positive = hn::Gt(v, zero), subnormal = hn::AndNot(fast, hn::And(positive, hn::Lt(v, hn::Set(d, T{1}))));
  const V taken = hn::IfThenElse(fast, v, hn::IfThenElse(subnormal, hn::Mul(v, scale), hn::Set(d, T{1})));
  const V y = hn::Sub(f(taken), hn::IfThenElseZero(subnormal, hn::Set(d, static_cast<T>(of_scale))));
  // Left are infinity, 0, negative numbers and NaN.
  const V edge = hn::IfThenElse(hn::Eq(v, zero), hn::Neg(hn::Inf(d)), hn::IfThenElse(hn::Lt(v, zero), hn::NaN(d), v));
  return hn::IfThenElse(hn::Or(fast, subnormal), y, edge);
}
template <class D, class V>
HWY_INLINE V VLog(D d, V v) {
  return GuardedLog(d, v, (kIsF32<D> ? 24 : 54) * 0.693147180559945309417, MvecLog());
}
template <class D, class V>
HWY_INLINE V VLog2(D d, V v) {
  return GuardedLog(d, v, kIsF32<D> ? 24 : 54, MvecLog2());
}
template <class D, class V>
HWY_INLINE V VLog10(D d, V v) {
  return GuardedLog(d, v, (kIsF32<D> ? 24 : 54) * 0.301029995663981195214, MvecLog10());
}
// Of v > low up to the largest finite value; `at_low` at low, NaN below, infinity and NaN themselves.
template <class D, class V, class F>
HWY_INLINE V GuardedAbove(D d, V v, hn::TFromD<D> low, hn::TFromD<D> most, V at_low, F f) {
  const V bound = hn::Set(d, low);
  const auto fast = hn::And(hn::Gt(v, bound), hn::Le(v, hn::Set(d, most)));
  const auto known = hn::Not(hn::And(hn::Gt(v, bound), hn::Lt(v, hn::Inf(d))));
  const V value = hn::IfThenElse(hn::Eq(v, bound), at_low, hn::IfThenElse(hn::Lt(v, bound), hn::NaN(d), v));
  return Guarded(d, v, fast, known, value, f, 1.5);
}
template <class D, class V>
HWY_INLINE V VLog1p(D d, V v) {
  return GuardedAbove(d, v, -1, Bound<D>(1.7e38f, 8.7e304), hn::Neg(hn::Inf(d)), MvecLog1p());
}

// --- trigonometric and inverse functions ---

template <class D, class V, class F>
HWY_INLINE V GuardedPeriodic(D d, V v, hn::TFromD<D> most, F f) {
  return Guarded(d, v, Within(d, v, most), hn::Not(hn::IsFinite(v)), hn::NaN(d), f);
}
template <class D, class V>
HWY_INLINE V VSin(D d, V v) {
  return GuardedPeriodic(d, v, Bound<D>(10000.0f, 8388600), MvecSin());
}
template <class D, class V>
HWY_INLINE V VCos(D d, V v) {
  return GuardedPeriodic(d, v, Bound<D>(10000.0f, 8388600), MvecCos());
}
template <class D, class V>
HWY_INLINE V VTan(D d, V v) {
  return GuardedPeriodic(d, v, Bound<D>(8256.0f, 128000), MvecTan());
}

// NaN beyond [-1, 1]. `at_one` are the values at -1 and 1.
template <class D, class V, class F>
HWY_INLINE V GuardedUnit(D d, V v, V at_one, F f) {
  const V one = hn::Set(d, hn::TFromD<D>{1}), a = hn::Abs(v);
  const auto fast = hn::Lt(a, one);
  return Guarded(d, v, fast, hn::Not(fast), hn::IfThenElse(hn::Eq(a, one), at_one, hn::NaN(d)), f);
}
template <class D, class V>
HWY_INLINE V VAsin(D d, V v) {
  return GuardedUnit(d, v, hn::CopySign(hn::Set(d, hn::TFromD<D>{1.57079632679489661923}), v), MvecAsin());
}
template <class D, class V>
HWY_INLINE V VAcos(D d, V v) {
  const V pi = hn::Set(d, hn::TFromD<D>{3.14159265358979323846});
  return GuardedUnit(d, v, hn::IfThenZeroElse(hn::Gt(v, hn::Zero(d)), pi), MvecAcos());
}
template <class D, class V>
HWY_INLINE V VAtanh(D d, V v) {
  return GuardedUnit(d, v, hn::CopySign(hn::Inf(d), v), MvecAtanh());
}
template <class D, class V>
HWY_INLINE V VAcosh(D d, V v) {
  return GuardedAbove(d, v, 1, std::numeric_limits<hn::TFromD<D>>::max(), hn::Zero(d), MvecAcosh());
}
template <class D, class V>
HWY_INLINE V VAsinh(D d, V v) {
  const auto finite = hn::IsFinite(v);
  return Guarded(d, v, finite, hn::Not(finite), v, MvecAsinh());
}
template <class D, class V>
HWY_INLINE V VAtan(D, V v) {
  return MvecAtan()(v);
}
template <class D, class V>
HWY_INLINE V VPow(D, V a, V b) {
  return MvecPow()(a, b);
}
template <class D, class V>
HWY_INLINE V VAtan2(D, V a, V b) {
  return MvecAtan2()(a, b);
}
template <class D, class V>
HWY_INLINE V VHypot(D, V a, V b) {
  return MvecHypot()(a, b);
}

// --- error function and normal distribution ---

// Float erf, at most 1.3 ULP: x + x P(x^2) below 1, else 1 - 2^Q(x). Minimax fits of erf(x) / x - 1 on [0, 1], of
// log2(erfc(x)) on [1, 4], beyond which the result is 1, and of 2^f on [-1/2, 1/2].
template <class D, class V>
HWY_INLINE V ErfF32(D d, V x) {
  const V a = hn::Min(hn::Set(d, 4.0f), hn::Abs(x));  // in this order NaN stays
  const V t = hn::Mul(a, a);
  const V inner = Polynomial(d, t, 0.12837916612625122, -0.3761262595653534, 0.1128358542919159, -0.026853812858462334,
                             0.005188327748328447, -0.0008010193705558777, 7.853861461626366e-05);
  const V low = hn::MulAdd(inner, a, a);
  const V exponent =
      Polynomial(d, a, -0.0004927137633785605, -1.6260459423065186, -0.9206483960151672, -0.14875160157680511,
                 0.03150566667318344, -0.004252572078257799, 0.00026888831052929163);
  const V whole = hn::Round(exponent);
  const V power = Polynomial(d, hn::Sub(exponent, whole), 1.0000001192092896, 0.6931469440460205, 0.24022120237350464,
                             0.05550713092088699, 0.009675540961325169, 0.0013276472454890609);
  const hn::RebindToSigned<D> di;
  const V scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127))));
  const V high = hn::NegMulAdd(power, scale, hn::Set(d, 1.0f));
  return hn::CopySign(hn::IfThenElse(hn::Lt(a, hn::Set(d, 1.0f)), low, high), x);
}

template <class D, class V>
HWY_INLINE V VErf(D d, V v) {
  if constexpr (sizeof(hn::TFromD<D>) == 4)
    return ErfF32(d, v);
  else
    return MvecErf()(v);
}

// Float probability that a standard normal is below x, in one branch: Phi(-t) = 2^Q(t), Phi(t) = 1 - 2^Q(t). At most
// 4 ULP for x >= -1, 18 ULP down to -3; an absolute error of 1e-9 and then exactly 0 below (1 + erf is as good as 0
// from -5.6 on). Minimax fits of log2(Phi(-t)) on [0, 13.5], relative where it matters, and of 2^f on [-1/2, 1/2].
template <class D, class V>
HWY_INLINE V NormalCdfF32(D d, V x) {
  const V t = hn::Min(hn::Set(d, 13.5f), hn::Abs(x));  // in this order NaN stays
  const V fit =
      Polynomial(d, t, -1.0, -1.1511057615280151, -0.45920249819755554, -0.05251007527112961, 0.007068600505590439,
                 -0.00011729013931471854, -0.0002137460687663406, 5.4372678278014064e-05, -6.656193363596685e-06,
                 4.1131397665594704e-07, -1.006355976329587e-08);
  const V exponent = hn::Max(hn::Set(d, -127.0f), fit);
  // Adding this leaves the nearest whole number, with the bias of an exponent, in the lowest bits. -127 gives 0.
  const V shifter = hn::Set(d, 12582912.0f + 127);
  const V whole = hn::Add(exponent, shifter);
  const V power = Polynomial(d, hn::Sub(exponent, hn::Sub(whole, shifter)), 1.0, 0.6931470036506653,
                             0.24022246897220612, 0.0555071085691452, 0.009671292267739773, 0.0013269535265862942);
  const hn::RebindToUnsigned<D> du;
  const V tail = hn::Mul(power, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, whole))));
  return hn::IfNegativeThenElse(x, tail, hn::Sub(hn::Set(d, 1.0f), tail));
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
