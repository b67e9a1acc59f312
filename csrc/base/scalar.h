// A Python number: bool, int64, double or complex double, remembering which.
#pragma once

#include <concepts>

#include "base/dtype.h"

namespace deepseek {

class Scalar {
 public:
  constexpr Scalar() : Scalar(int64_t{0}) {}
  constexpr Scalar(bool v) : category_(Category::kBool), i_(v) {}
  template <std::integral T>
  constexpr Scalar(T v) : category_(Category::kInteger), i_(static_cast<int64_t>(v)) {}
  template <std::floating_point T>
  constexpr Scalar(T v) : category_(Category::kFloat), d_(v) {}
  // Of std::complex, whose header is heavy.
  template <class T>
  requires requires(const T& v) { v.real() + v.imag(); }
  constexpr Scalar(const T& v) : category_(Category::kComplex), d_(v.real()), imaginary_(v.imag()) {}

  Category category() const { return category_; }
  bool is_bool() const { return category_ == Category::kBool; }
  bool is_float() const { return category_ == Category::kFloat; }
  bool is_complex() const { return category_ == Category::kComplex; }
  // What a tensor of this number has. No dtype holds a complex one yet, so asking is where it is refused.
  DType dtype() const {
    check_real();
    return is_bool() ? DType::kBool : is_float() ? DType::kFloat64 : DType::kInt64;
  }
  // An imaginary part is never dropped in silence: whoever wants a real number refuses a complex one.
  void check_real() const {
    if (is_complex()) [[unlikely]]
      fail<TypeError>("complex numbers are not supported yet: no dtype holds ", *this);
  }
  double to_double() const {
    check_real();
    return is_float() ? d_ : static_cast<double>(i_);
  }
  double real() const { return is_complex() ? d_ : to_double(); }
  double imag() const { return is_complex() ? imaginary_ : 0; }
  int64_t to_int() const {
    check_real();
    return is_float() ? static_cast<int64_t>(d_) : i_;
  }
  bool to_bool() const { return is_complex() ? d_ != 0 || imaginary_ != 0 : is_float() ? d_ != 0 : i_ != 0; }
  template <class T>
  T to() const {
    if constexpr (std::is_same_v<T, bool>) return to_bool();
    check_real();
    return is_float() ? static_cast<T>(d_) : static_cast<T>(i_);
  }
  // Pointer to the value stored as dtype().
  void store(void* p) const {
    check_real();
    if (is_bool())
      *static_cast<bool*>(p) = i_ != 0;
    else if (is_float())
      *static_cast<double*>(p) = d_;
    else
      *static_cast<int64_t*>(p) = i_;
  }
  bool operator==(const Scalar& o) const {
    if (category_ != o.category_) return false;
    if (!is_float() && !is_complex()) return i_ == o.i_;
    return std::bit_cast<int64_t>(d_) == std::bit_cast<int64_t>(o.d_) &&
           std::bit_cast<int64_t>(imaginary_) == std::bit_cast<int64_t>(o.imaginary_);
  }
  friend Scalar conj(Scalar s) {
    if (s.is_complex()) s.imaginary_ = -s.imaginary_;
    return s;
  }

 private:
  Category category_;
  union {
    int64_t i_;
    double d_;  // the real part of a complex number
  };
  double imaginary_ = 0;
};

void append(std::string& text, const Scalar& s);  // as Python writes it
std::ostream& operator<<(std::ostream& os, const Scalar& s);

// PyTorch's rule for storing a number: it must fit, untruncated. An unsigned dtype also takes (and wraps) a negative
// integer whose magnitude fits, a floating one infinities and NaN.
inline void check_fits(const Scalar& v, DType t) {
  v.check_real();
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
