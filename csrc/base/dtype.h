// Element types, 16- and 8-bit float conversions (round to nearest even), PyTorch's promotion rules.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
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

// What kind of number a dtype holds. The order is that of promotion: the higher category decides, and a scalar changes
// a tensor's dtype only where its category is higher.
enum class Category : uint8_t { kBool, kInteger, kFloat, kComplex };

// X(C++ type, enumerator, name, category): all that is said about a dtype. Categories ascend, and the order is the
// promotion order inside each of them.
#define DS_FOR_EACH_DTYPE(X)                          \
  X(bool, kBool, "bool", kBool)                       \
  X(uint8_t, kUInt8, "uint8", kInteger)               \
  X(int8_t, kInt8, "int8", kInteger)                  \
  X(int16_t, kInt16, "int16", kInteger)               \
  X(int32_t, kInt32, "int32", kInteger)               \
  X(int64_t, kInt64, "int64", kInteger)               \
  X(Float8E4M3, kFloat8E4M3, "float8_e4m3fn", kFloat) \
  X(Float8E5M2, kFloat8E5M2, "float8_e5m2", kFloat)   \
  X(Half, kFloat16, "float16", kFloat)                \
  X(BFloat16, kBFloat16, "bfloat16", kFloat)          \
  X(float, kFloat32, "float32", kFloat)               \
  X(double, kFloat64, "float64", kFloat)

enum class DType : uint8_t {
#define X(T, e, ...) e,
  DS_FOR_EACH_DTYPE(X)
#undef X
};

struct DTypeTraits {
  const char* name;
  int64_t size;
  Category category;
};
inline constexpr DTypeTraits kDTypeTraits[] = {
#define X(T, e, name, category) {name, sizeof(T), Category::category},
    DS_FOR_EACH_DTYPE(X)
#undef X
};
inline constexpr int kNumDTypes = static_cast<int>(std::size(kDTypeTraits));
constexpr const DTypeTraits& traits_of(DType t) { return kDTypeTraits[static_cast<int>(t)]; }

template <class T>
struct DTypeOf;
#define X(T, e, ...)                         \
  template <>                                \
  struct DTypeOf<T> {                        \
    static constexpr DType value = DType::e; \
  };
DS_FOR_EACH_DTYPE(X)
#undef X
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

constexpr const char* name_of(DType t) { return traits_of(t).name; }
constexpr int64_t size_of(DType t) { return traits_of(t).size; }
constexpr Category category(DType t) { return traits_of(t).category; }

void append(std::string& text, DType t);  // "deepseek.float32"
std::ostream& operator<<(std::ostream& os, DType t);

constexpr bool is_exact(DType t) { return category(t) < Category::kFloat; }  // bools and integers
constexpr bool is_integral(DType t) { return category(t) == Category::kInteger; }
// A real float, as torch's is_floating_point. Whether gradients flow is another question: is_differentiable.
constexpr bool is_floating(DType t) { return category(t) == Category::kFloat; }
constexpr bool is_complex(DType t) { return category(t) == Category::kComplex; }
// Whether a tensor of this dtype may have a gradient: what the tape, nodes and requires_grad ask.
constexpr bool is_differentiable(DType t) { return is_floating(t) || is_complex(t); }

constexpr bool is_float8(DType t) { return t == DType::kFloat8E4M3 || t == DType::kFloat8E5M2; }
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
    case DType::kFloat64:
      return std::numeric_limits<double>::max();
    case DType::kBool:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
      break;
  }
  fail("internal: largest_finite of ", name_of(t));
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
#define X(T, e, ...) \
  case DType::e:     \
    return f.template operator()<T>();
    DS_FOR_EACH_DTYPE(X)
#undef X
  }
  __builtin_unreachable();
}

// The same for the one of the types that `t` is, where others have no kernel: refuses them in the name of `op`.
template <class T, class... Others, class F>
decltype(auto) dispatch_among(const char* op, DType t, F&& f) {
  if constexpr (sizeof...(Others) == 0) {
    if (t != dtype_of<T>) fail<NotImplementedError>(op, "(): not implemented for dtype ", t);
    return f.template operator()<T>();
  } else {
    if (t == dtype_of<T>) return f.template operator()<T>();
    return dispatch_among<Others...>(op, t, std::forward<F>(f));
  }
}
// The floats that kernels compute with; float8 is stored and converted only.
template <class F>
decltype(auto) dispatch_float(const char* op, DType t, F&& f) {
  return dispatch_among<float, double, BFloat16, Half>(op, t, std::forward<F>(f));
}

// The same for the type that numbers of dtype `t` are added up and compared in: integers and bools exactly, small
// floats in float.
template <class F>
decltype(auto) dispatch_sum(const char* op, DType t, F&& f) {
  switch (category(t)) {
    case Category::kBool:
    case Category::kInteger:
      return f.template operator()<int64_t>();
    case Category::kFloat:
      return t == DType::kFloat64 ? f.template operator()<double>() : f.template operator()<float>();
    case Category::kComplex:
      break;
  }
  fail<NotImplementedError>(op, "(): not implemented for dtype ", t);
}

// Result type of two tensors of equal category priority (PyTorch's promote_types).
constexpr DType promote_types(DType a, DType b) {
  if (a == b) return a;
  if (a > b) std::swap(a, b);
  if (is_float8(b) || is_float8(a))
    fail("Promotion for Float8 Types is not supported, attempted to promote ", name_of(a), " and ", name_of(b));
  switch (category(b)) {
    case Category::kBool:
      return b;
    case Category::kInteger:
      return a == DType::kUInt8 && b == DType::kInt8 ? DType::kInt16 : b;
    case Category::kFloat:
      return is_reduced_float(a) && is_reduced_float(b) ? DType::kFloat32 : b;
    case Category::kComplex:  // its parts must hold the other one's values: float64 and complex64 are complex128
      fail<NotImplementedError>("promotion to complex dtypes is not implemented");
  }
  __builtin_unreachable();
}

// PyTorch's can_cast: may a result of type `from` be written into `to`?
constexpr bool can_cast(DType from, DType to) { return category(from) <= category(to); }

}  // namespace deepseek
