// Vector math on Highway vectors: glibc's libmvec (<= 4 ULP, special values as libm), one function per target width,
// and our own where that is slow (float erf and the normal distribution). f32 and f64 only. A vector's lanes do not
// influence each other, so tails may be computed on padded vectors.

#if defined(DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_
#undef DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_
#else
#define DEEPSEEK_KERNELS_SIMD_VECMATH_INL_H_
#endif

#include <immintrin.h>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX2
#define DS_MVEC_F32(n) _ZGVdN8##n##f
#define DS_MVEC_F64(n) _ZGVdN4##n
using RawF32 = __m256;
using RawF64 = __m256d;
#elif HWY_TARGET == HWY_AVX3
#define DS_MVEC_F32(n) _ZGVeN16##n##f
#define DS_MVEC_F64(n) _ZGVeN8##n
using RawF32 = __m512;
using RawF64 = __m512d;
#else
#error "kernels need -march=haswell -maes -mpclmul: without them the Highway baseline falls to SSSE3"
#endif

#define DS_VECMATH_UNARY(Name, fn)               \
  extern "C" RawF32 DS_MVEC_F32(v_##fn)(RawF32); \
  extern "C" RawF64 DS_MVEC_F64(v_##fn)(RawF64); \
  template <class D, class V>                    \
  HWY_INLINE V Name(D, V v) {                    \
    if constexpr (sizeof(hn::TFromD<D>) == 4)    \
      return V{DS_MVEC_F32(v_##fn)(v.raw)};      \
    else                                         \
      return V{DS_MVEC_F64(v_##fn)(v.raw)};      \
  }

#define DS_VECMATH_BINARY(Name, fn)                       \
  extern "C" RawF32 DS_MVEC_F32(vv_##fn)(RawF32, RawF32); \
  extern "C" RawF64 DS_MVEC_F64(vv_##fn)(RawF64, RawF64); \
  template <class D, class V>                             \
  HWY_INLINE V Name(D, V a, V b) {                        \
    if constexpr (sizeof(hn::TFromD<D>) == 4)             \
      return V{DS_MVEC_F32(vv_##fn)(a.raw, b.raw)};       \
    else                                                  \
      return V{DS_MVEC_F64(vv_##fn)(a.raw, b.raw)};       \
  }

DS_VECMATH_UNARY(VExp, exp)
DS_VECMATH_UNARY(VExp2, exp2)
DS_VECMATH_UNARY(VExpm1, expm1)
DS_VECMATH_UNARY(VLog, log)
DS_VECMATH_UNARY(VLog2, log2)
DS_VECMATH_UNARY(VLog10, log10)
DS_VECMATH_UNARY(VLog1p, log1p)
DS_VECMATH_UNARY(VSin, sin)
DS_VECMATH_UNARY(VCos, cos)
DS_VECMATH_UNARY(VTan, tan)
DS_VECMATH_UNARY(VAsin, asin)
DS_VECMATH_UNARY(VAcos, acos)
DS_VECMATH_UNARY(VAtan, atan)
DS_VECMATH_UNARY(VSinh, sinh)
DS_VECMATH_UNARY(VCosh, cosh)
DS_VECMATH_UNARY(VTanh, tanh)
DS_VECMATH_UNARY(VAsinh, asinh)
DS_VECMATH_UNARY(VAcosh, acosh)
DS_VECMATH_UNARY(VAtanh, atanh)
DS_VECMATH_UNARY(LibmErf, erf)
DS_VECMATH_UNARY(VErfc, erfc)
DS_VECMATH_BINARY(VPow, pow)
DS_VECMATH_BINARY(VAtan2, atan2)
DS_VECMATH_BINARY(VHypot, hypot)

// c0 + c1 t + c2 t^2 ...
template <class D, class V>
HWY_INLINE V Polynomial(D d, V, double c) {
  return hn::Set(d, static_cast<hn::TFromD<D>>(c));
}
template <class D, class V, class... C>
HWY_INLINE V Polynomial(D d, V t, double c, C... more) {
  return hn::MulAdd(Polynomial(d, t, more...), t, hn::Set(d, static_cast<hn::TFromD<D>>(c)));
}

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
    return LibmErf(d, v);
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

#undef DS_VECMATH_UNARY
#undef DS_VECMATH_BINARY
#undef DS_MVEC_F32
#undef DS_MVEC_F64

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
