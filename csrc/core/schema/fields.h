// The fields of op structs: the types that attributes have, and how the fields of a struct are found.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/dims.h"
#include "base/dtype.h"
#include "base/scalar.h"
#include "core/schema/schema.h"

namespace deepseek {

// Optional attribute (std::optional is not an aggregate-friendly conversion target).
template <class T>
struct Opt {
  T value{};
  bool has = false;
  Opt() = default;
  Opt(T v) : value(v), has(true) {}
  explicit operator bool() const { return has; }
  const T& operator*() const { return value; }
  T value_or(T other) const { return has ? value : other; }
  bool operator==(const Opt& o) const { return has == o.has && (!has || value == o.value); }
};

// A short string attribute (a mode name).
struct Str {
  char s[24] = {};
  Str() = default;
  Str(std::string_view v) {
    if (v.size() >= sizeof(s)) fail<ValueError>("'", v, "' is not an accepted mode");
    v.copy(s, v.size());
  }
  Str(const char* v) : Str(std::string_view(v)) {}
  std::string_view view() const { return s; }
  bool operator==(const Str& o) const { return view() == o.view(); }
  bool operator==(const char* o) const { return view() == o; }
};

struct Field {
  ArgType kind;
  uint16_t offset;
};

// Writes the value of a schema default ("None", "True", "1e-05", "[]", "'mean'") into a field.
void set_default(ArgType kind, void* field, const std::string& text);

namespace detail {

struct AnyField {
  template <class T>
  operator T() const;
};
template <class T, size_t... I>
constexpr bool takes(std::index_sequence<I...>) {
  return requires { T{(static_cast<void>(I), AnyField{})...}; };
}
template <class T, size_t N = 9>
constexpr size_t field_count() {
  if constexpr (std::is_empty_v<T>)
    return 0;
  else if constexpr (takes<T>(std::make_index_sequence<N>{}))
    return N;
  else
    return field_count<T, N - 1>();
}
template <class T, class F>
void for_each_field(T& t, F f) {
  constexpr size_t n = field_count<T>();
  if constexpr (n == 1) {
    auto& [a] = t;
    f(a);
  }
  if constexpr (n == 2) {
    auto& [a, b] = t;
    f(a);
    f(b);
  }
  if constexpr (n == 3) {
    auto& [a, b, c] = t;
    f(a);
    f(b);
    f(c);
  }
  if constexpr (n == 4) {
    auto& [a, b, c, d] = t;
    f(a);
    f(b);
    f(c);
    f(d);
  }
  if constexpr (n == 5) {
    auto& [a, b, c, d, e] = t;
    f(a);
    f(b);
    f(c);
    f(d);
    f(e);
  }
  if constexpr (n == 6) {
    auto& [a, b, c, d, e, g] = t;
    f(a);
    f(b);
    f(c);
    f(d);
    f(e);
    f(g);
  }
  if constexpr (n == 7) {
    auto& [a, b, c, d, e, g, h] = t;
    f(a);
    f(b);
    f(c);
    f(d);
    f(e);
    f(g);
    f(h);
  }
  if constexpr (n == 8) {
    auto& [a, b, c, d, e, g, h, i] = t;
    f(a);
    f(b);
    f(c);
    f(d);
    f(e);
    f(g);
    f(h);
    f(i);
  }
  static_assert(n <= 8, "an op has at most 8 attributes");
}

template <class T>
constexpr ArgType field_kind();
#define DS_FIELD(T, k)                \
  template <>                         \
  constexpr ArgType field_kind<T>() { \
    return ArgType::k;                \
  }
// clang-format off
DS_FIELD(int64_t, kInt)
DS_FIELD(double, kFloat)
DS_FIELD(bool, kBool)
DS_FIELD(Scalar, kScalar)
DS_FIELD(Dims, kDims)
DS_FIELD(Str, kStr)
DS_FIELD(Opt<int64_t>, kOptInt)
DS_FIELD(Opt<double>, kOptFloat)
DS_FIELD(Opt<bool>, kOptBool)
DS_FIELD(Opt<Scalar>, kOptScalar)
DS_FIELD(Opt<Dims>, kOptDims)
DS_FIELD(Opt<Str>, kOptStr)
DS_FIELD(Opt<DType>, kOptDType)
// clang-format on
#undef DS_FIELD

}  // namespace detail

}  // namespace deepseek
