// Element types, 16- and 8-bit float conversions (round to nearest even), PyTorch's promotion rules.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace deepseek {

// A small float with E exponent and M mantissa bits. kFinite: no infinity, one NaN pattern (e4m3fn).
template <class Bits, int E, int M, bool kFinite>
struct SmallFloat {
  Bits bits = 0;

  SmallFloat() = default;
  constexpr explicit SmallFloat(float value) : bits(from_float(value)) {}
  template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, float>) constexpr explicit SmallFloat(T value)
      : SmallFloat(static_cast<float>(value)) {}
  constexpr operator float() const { return to_float(); }
  static constexpr SmallFloat from_bits(Bits b) {
    SmallFloat f;
    f.bits = b;
    return f;
  }

 private:
  static constexpr int kBias = (1 << (E - 1)) - 1;
  static constexpr uint32_t kExpMask = (1u << E) - 1;
  static constexpr uint32_t kManMask = (1u << M) - 1;
  static constexpr uint32_t kInf = kExpMask << M;  // also e4m3fn's largest exponent
  static constexpr uint32_t kNan = kFinite ? kInf | kManMask : kInf | (1u << (M - 1));
  // e4m3fn saturates at +-448, infinities too, as PyTorch 2.13 (ml_dtypes gives NaN).
  static constexpr uint32_t kOverflow = kFinite ? kNan - 1 : kInf;

  static constexpr Bits from_float(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (u >> 31) << (E + M);
    const uint32_t mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u) return static_cast<Bits>(sign | kNan);
    if (mag == 0x7f800000u) return static_cast<Bits>(sign | kOverflow);
    const int exponent = static_cast<int>(mag >> 23) - 127;
    // Subnormal targets keep fewer mantissa bits; `shift` is how many low bits of the 24-bit significand go.
    const int shift = exponent >= 1 - kBias ? 23 - M : 23 - M + (1 - kBias - exponent);
    if (shift > 24 + 1) return static_cast<Bits>(sign);
    const uint64_t significand = mag >= 0x00800000u ? (mag & 0x7fffffu) | 0x800000u : mag & 0x7fffffu;
    if (mag < 0x00800000u && kBias < 127) return static_cast<Bits>(sign);
    const uint64_t half = 1ull << (shift - 1);
    uint64_t rounded = (significand + half - 1 + ((significand >> shift) & 1)) >> shift;
    uint32_t result;
    if (exponent >= 1 - kBias)
      result = static_cast<uint32_t>((static_cast<int64_t>(exponent + kBias - 1) << M) + static_cast<int64_t>(rounded));
    else
      result = static_cast<uint32_t>(rounded);
    const uint32_t limit = kFinite ? kNan : kInf;
    if (result >= limit) result = kOverflow;
    return static_cast<Bits>(sign | result);
  }

  constexpr float to_float() const {
    const uint32_t sign = static_cast<uint32_t>(bits >> (E + M)) << 31;
    const uint32_t exponent = (bits >> M) & kExpMask;
    const uint32_t mantissa = bits & kManMask;
    const bool special = kFinite ? (exponent == kExpMask && mantissa == kManMask) : exponent == kExpMask;
    if (special) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << (23 - M)));
    if (exponent == 0) {
      const float magnitude = static_cast<float>(mantissa) * std::bit_cast<float>(uint32_t(127 + 1 - kBias - M) << 23);
      return sign ? -magnitude : magnitude;
    }
    return std::bit_cast<float>(sign | ((exponent + 127 - kBias) << 23) | (mantissa << (23 - M)));
  }
};

using Half = SmallFloat<uint16_t, 5, 10, false>;
using Float8E4M3 = SmallFloat<uint8_t, 4, 3, true>;
using Float8E5M2 = SmallFloat<uint8_t, 5, 2, false>;

struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  constexpr explicit BFloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u)
      bits = static_cast<uint16_t>((u >> 16) | 0x40);
    else
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
  }
  template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, float>) constexpr explicit BFloat16(T value)
      : BFloat16(static_cast<float>(value)) {}
  constexpr operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
  static constexpr BFloat16 from_bits(uint16_t b) {
    BFloat16 f;
    f.bits = b;
    return f;
  }
};

// X(C++ type, enumerator, name). The order is the promotion order inside each category.
#define DS_FOR_EACH_DTYPE(X)                  \
  X(bool, kBool, "bool")                      \
  X(uint8_t, kUInt8, "uint8")                 \
  X(int8_t, kInt8, "int8")                    \
  X(int16_t, kInt16, "int16")                 \
  X(int32_t, kInt32, "int32")                 \
  X(int64_t, kInt64, "int64")                 \
  X(Float8E4M3, kFloat8E4M3, "float8_e4m3fn") \
  X(Float8E5M2, kFloat8E5M2, "float8_e5m2")   \
  X(Half, kFloat16, "float16")                \
  X(BFloat16, kBFloat16, "bfloat16")          \
  X(float, kFloat32, "float32")               \
  X(double, kFloat64, "float64")

enum class DType : uint8_t {
#define X(T, e, name) e,
  DS_FOR_EACH_DTYPE(X)
#undef X
};
inline constexpr int kNumDTypes = 12;

template <class T>
struct DTypeOf;
#define X(T, e, name)                        \
  template <>                                \
  struct DTypeOf<T> {                        \
    static constexpr DType value = DType::e; \
  };
DS_FOR_EACH_DTYPE(X)
#undef X
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

constexpr const char* name_of(DType t) {
  constexpr const char* names[] = {
#define X(T, e, name) name,
      DS_FOR_EACH_DTYPE(X)
#undef X
  };
  return names[static_cast<int>(t)];
}

constexpr int64_t size_of(DType t) {
  constexpr int64_t sizes[] = {
#define X(T, e, name) sizeof(T),
      DS_FOR_EACH_DTYPE(X)
#undef X
  };
  return sizes[static_cast<int>(t)];
}

inline std::ostream& operator<<(std::ostream& os, DType t) { return os << "deepseek." << name_of(t); }

constexpr bool is_float8(DType t) { return t == DType::kFloat8E4M3 || t == DType::kFloat8E5M2; }
constexpr bool is_floating(DType t) { return t >= DType::kFloat8E4M3; }
constexpr bool is_integral(DType t) { return t >= DType::kUInt8 && t <= DType::kInt64; }
// The largest finite value of a floating dtype.
constexpr double largest_finite(DType t) {
  switch (t) {
    case DType::kFloat8E4M3:
      return 448;
    case DType::kFloat8E5M2:
      return 57344;
    case DType::kFloat16:
      return 65504;
    case DType::kBFloat16:
      return 0x1.fep127;
    case DType::kFloat32:
      return std::numeric_limits<float>::max();
    default:
      return std::numeric_limits<double>::max();
  }
}
constexpr bool is_reduced_float(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16; }

template <class T>
inline constexpr bool is_small_float = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16> ||
                                       std::is_same_v<T, Float8E4M3> || std::is_same_v<T, Float8E5M2>;

// The type arithmetic on T is done in: small floats in float, everything else in itself.
template <class T>
using ComputeType = std::conditional_t<is_small_float<T>, float, T>;

// Calls f.template operator()<T>() with the C++ type of `t`.
template <class F>
decltype(auto) dispatch(DType t, F&& f) {
  switch (t) {
#define X(T, e, name) \
  case DType::e:      \
    return f.template operator()<T>();
    DS_FOR_EACH_DTYPE(X)
#undef X
  }
  __builtin_unreachable();
}

// Result type of two tensors of equal category priority (PyTorch's promote_types).
constexpr DType promote_types(DType a, DType b) {
  if (a == b) return a;
  if (a > b) std::swap(a, b);
  if (is_float8(b) || is_float8(a))
    fail("Promotion for Float8 Types is not supported, attempted to promote ", name_of(a), " and ", name_of(b));
  if (is_floating(b)) {
    if (is_reduced_float(a) && is_reduced_float(b)) return DType::kFloat32;
    return b;
  }
  if (a == DType::kUInt8 && b == DType::kInt8) return DType::kInt16;
  return b;
}

// 0 bool, 1 integral, 2 floating: the category that decides whether a scalar changes a tensor's dtype.
constexpr int category(DType t) { return t == DType::kBool ? 0 : is_floating(t) ? 2 : 1; }

// PyTorch's can_cast: may a result of type `from` be written into `to`?
constexpr bool can_cast(DType from, DType to) { return category(from) <= category(to); }

}  // namespace deepseek
