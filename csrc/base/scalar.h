// A Python number: bool, int64 or double, remembering which.
#pragma once

#include <concepts>
#include <ostream>

#include "base/dtype.h"

namespace deepseek {

class Scalar {
 public:
  constexpr Scalar() : Scalar(int64_t{0}) {}
  constexpr Scalar(bool v) : dtype_(DType::kBool), i_(v) {}
  template <std::integral T>
  constexpr Scalar(T v) : dtype_(DType::kInt64), i_(static_cast<int64_t>(v)) {}
  template <std::floating_point T>
  constexpr Scalar(T v) : dtype_(DType::kFloat64), d_(v) {}

  DType dtype() const { return dtype_; }
  bool is_float() const { return dtype_ == DType::kFloat64; }
  double to_double() const { return is_float() ? d_ : static_cast<double>(i_); }
  int64_t to_int() const { return is_float() ? static_cast<int64_t>(d_) : i_; }
  bool to_bool() const { return is_float() ? d_ != 0 : i_ != 0; }
  template <class T>
  T to() const {
    if constexpr (std::is_same_v<T, bool>) return to_bool();
    return is_float() ? static_cast<T>(d_) : static_cast<T>(i_);
  }
  // Pointer to the value stored as dtype().
  void store(void* p) const {
    if (dtype_ == DType::kBool)
      *static_cast<bool*>(p) = i_ != 0;
    else if (is_float())
      *static_cast<double*>(p) = d_;
    else
      *static_cast<int64_t*>(p) = i_;
  }
  bool operator==(const Scalar& o) const {
    return dtype_ == o.dtype_ && (is_float() ? std::bit_cast<int64_t>(d_) == std::bit_cast<int64_t>(o.d_) : i_ == o.i_);
  }
  friend std::ostream& operator<<(std::ostream& os, const Scalar& s) {
    if (s.dtype_ == DType::kBool) return os << (s.i_ ? "True" : "False");
    return s.is_float() ? os << s.d_ : os << s.i_;
  }

 private:
  DType dtype_;
  union {
    int64_t i_;
    double d_;
  };
};

// PyTorch's rule for storing a number: it must fit, untruncated. An unsigned dtype also takes (and wraps) a negative
// integer whose magnitude fits, a floating one infinities and NaN.
inline void check_fits(const Scalar& v, DType t) {
  if (t == DType::kBool || is_float8(t)) return;
  const double magnitude = std::abs(v.to_double());
  bool fits = !is_floating(t) || !(magnitude > largest_finite(t)) || std::isinf(magnitude);
  dispatch(t, [&]<class T>() {
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      constexpr T kLow = std::numeric_limits<T>::min(), kHigh = std::numeric_limits<T>::max();
      if (v.is_float()) {
        const double x = v.to_double();
        fits = x >= static_cast<double>(kLow) && (sizeof(T) == 8 ? x < 0x1p63 : x <= static_cast<double>(kHigh));
      } else {
        const auto low = std::is_unsigned_v<T> ? -static_cast<int64_t>(kHigh) : static_cast<int64_t>(kLow);
        fits = v.to_int() >= low && v.to_int() <= static_cast<int64_t>(kHigh);
      }
    }
  });
  DS_CHECK(fits, "value ", v, " cannot be converted to type ", name_of(t), " without overflow");
}

}  // namespace deepseek
