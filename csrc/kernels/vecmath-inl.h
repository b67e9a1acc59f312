// Vector math on Highway vectors: glibc's libmvec (<= 4 ULP, special values as libm), one function per target width.
// f32 and f64 only. A vector's lanes do not influence each other, so tails may be computed on padded vectors.

#if defined(DEEPSEEK_KERNELS_VECMATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_VECMATH_INL_H_
#undef DEEPSEEK_KERNELS_VECMATH_INL_H_
#else
#define DEEPSEEK_KERNELS_VECMATH_INL_H_
#endif

#include <immintrin.h>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::HWY_NAMESPACE {
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
DS_VECMATH_UNARY(VErf, erf)
DS_VECMATH_UNARY(VErfc, erfc)
DS_VECMATH_BINARY(VPow, pow)
DS_VECMATH_BINARY(VAtan2, atan2)
DS_VECMATH_BINARY(VHypot, hypot)

#undef DS_VECMATH_UNARY
#undef DS_VECMATH_BINARY
#undef DS_MVEC_F32
#undef DS_MVEC_F64

}  // namespace deepseek::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
