// glibc's libmvec: vector functions with at most 4 ULP and the special values of libm, one for each target width, f32
// and f64. They leave their fast path for a call a lane as soon as one lane is out of range; vecmath-inl.h keeps them
// on it.

#if defined(DEEPSEEK_KERNELS_SIMD_LIBMVEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_SIMD_LIBMVEC_INL_H_
#undef DEEPSEEK_KERNELS_SIMD_LIBMVEC_INL_H_
#else
#define DEEPSEEK_KERNELS_SIMD_LIBMVEC_INL_H_
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

#define DS_MVEC_UNARY(Name, fn)                  \
  extern "C" RawF32 DS_MVEC_F32(v_##fn)(RawF32); \
  extern "C" RawF64 DS_MVEC_F64(v_##fn)(RawF64); \
  struct Mvec##Name {                            \
    template <class V>                           \
    HWY_INLINE V operator()(V v) const {         \
      if constexpr (sizeof(hn::TFromV<V>) == 4)  \
        return V{DS_MVEC_F32(v_##fn)(v.raw)};    \
      else                                       \
        return V{DS_MVEC_F64(v_##fn)(v.raw)};    \
    }                                            \
  };

#define DS_MVEC_BINARY(Name, fn)                          \
  extern "C" RawF32 DS_MVEC_F32(vv_##fn)(RawF32, RawF32); \
  extern "C" RawF64 DS_MVEC_F64(vv_##fn)(RawF64, RawF64); \
  struct Mvec##Name {                                     \
    template <class V>                                    \
    HWY_INLINE V operator()(V a, V b) const {             \
      if constexpr (sizeof(hn::TFromV<V>) == 4)           \
        return V{DS_MVEC_F32(vv_##fn)(a.raw, b.raw)};     \
      else                                                \
        return V{DS_MVEC_F64(vv_##fn)(a.raw, b.raw)};     \
    }                                                     \
  };

DS_MVEC_UNARY(Exp, exp)
DS_MVEC_UNARY(Exp2, exp2)
DS_MVEC_UNARY(Expm1, expm1)
DS_MVEC_UNARY(Log, log)
DS_MVEC_UNARY(Log2, log2)
DS_MVEC_UNARY(Log10, log10)
DS_MVEC_UNARY(Log1p, log1p)
DS_MVEC_UNARY(Sin, sin)
DS_MVEC_UNARY(Cos, cos)
DS_MVEC_UNARY(Tan, tan)
DS_MVEC_UNARY(Asin, asin)
DS_MVEC_UNARY(Acos, acos)
DS_MVEC_UNARY(Atan, atan)
DS_MVEC_UNARY(Sinh, sinh)
DS_MVEC_UNARY(Cosh, cosh)
DS_MVEC_UNARY(Tanh, tanh)
DS_MVEC_UNARY(Asinh, asinh)
DS_MVEC_UNARY(Acosh, acosh)
DS_MVEC_UNARY(Atanh, atanh)
DS_MVEC_UNARY(Erf, erf)
DS_MVEC_UNARY(Erfc, erfc)
DS_MVEC_BINARY(Pow, pow)
DS_MVEC_BINARY(Atan2, atan2)
DS_MVEC_BINARY(Hypot, hypot)

#undef DS_MVEC_UNARY
#undef DS_MVEC_BINARY
#undef DS_MVEC_F32
#undef DS_MVEC_F64

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
