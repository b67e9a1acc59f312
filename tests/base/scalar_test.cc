#include "base/scalar.h"

#include <cmath>
#include <complex>
#include <sstream>

#include "gtest/gtest.h"

namespace deepseek {
namespace {

std::string text(const Scalar& s) {
  std::ostringstream os;
  os << s;
  return os.str();
}

TEST(Scalar, RemembersTheKindOfNumber) {
  const struct {
    Scalar value;
    DType dtype;
    double as_double;
    int64_t as_int;
    bool as_bool;
    const char* text;
  } cases[] = {
      {Scalar(), DType::kInt64, 0, 0, false, "0"},
      {Scalar(true), DType::kBool, 1, 1, true, "True"},
      {Scalar(false), DType::kBool, 0, 0, false, "False"},
      {Scalar(-7), DType::kInt64, -7, -7, true, "-7"},
      {Scalar(uint8_t{200}), DType::kInt64, 200, 200, true, "200"},
      {Scalar(2.75), DType::kFloat64, 2.75, 2, true, "2.75"},
      {Scalar(-0.5f), DType::kFloat64, -0.5, 0, true, "-0.5"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    EXPECT_EQ(c.value.dtype(), c.dtype);
    EXPECT_EQ(c.value.is_float(), c.dtype == DType::kFloat64);
    EXPECT_EQ(c.value.to_double(), c.as_double);
    EXPECT_EQ(c.value.to_int(), c.as_int);
    EXPECT_EQ(c.value.to_bool(), c.as_bool);
    EXPECT_EQ(text(c.value), c.text);
  }
}

TEST(Scalar, LargeIntegersAreExact) {
  const int64_t big = (int64_t{1} << 53) + 1;
  EXPECT_EQ(Scalar(big).to_int(), big);
  EXPECT_NE(Scalar(big), Scalar(big - 1));
}

TEST(Scalar, EqualityIsOfKindAndBits) {
  EXPECT_EQ(Scalar(1), Scalar(int64_t{1}));
  EXPECT_NE(Scalar(1), Scalar(1.0));
  EXPECT_NE(Scalar(1), Scalar(true));
  EXPECT_EQ(Scalar(NAN), Scalar(NAN));   // attributes compare: the same constant is the same op
  EXPECT_NE(Scalar(0.0), Scalar(-0.0));  // 1 / x tells them apart
}

TEST(Scalar, ComplexNumbersNeverLoseTheirImaginaryPart) {
  const Scalar s(std::complex<double>(2, -3)), zero(std::complex<double>(0, 0));
  EXPECT_EQ(s.category(), Category::kComplex);
  EXPECT_GT(s.category(), Scalar(2.0).category());
  EXPECT_TRUE(s.is_complex() && !s.is_float() && !s.is_bool());
  EXPECT_EQ(s.real(), 2);
  EXPECT_EQ(s.imag(), -3);
  EXPECT_EQ(Scalar(7).real(), 7);
  EXPECT_EQ(Scalar(7).imag(), 0);
  EXPECT_TRUE(s.to_bool() && Scalar(std::complex<double>(0, 1)).to_bool());
  EXPECT_FALSE(zero.to_bool());
  double place = 0;
  EXPECT_THROW(s.to_double(), TypeError);
  EXPECT_THROW(s.to_int(), TypeError);
  EXPECT_THROW(s.to<float>(), TypeError);
  EXPECT_THROW(s.store(&place), TypeError);
  EXPECT_THROW(s.dtype(), TypeError);
  EXPECT_THROW(zero.dtype(), TypeError);  // by its kind, not its value
  for (int t = 0; t < kNumDTypes; ++t) EXPECT_THROW(check_fits(s, static_cast<DType>(t)), TypeError);
  EXPECT_EQ(conj(s), Scalar(std::complex<double>(2, 3)));
  EXPECT_EQ(conj(Scalar(2.5)), Scalar(2.5));
}

TEST(Scalar, ComplexEqualityAndText) {
  EXPECT_EQ(Scalar(std::complex<double>(1, 2)), Scalar(std::complex<double>(1, 2)));
  EXPECT_NE(Scalar(std::complex<double>(1, 2)), Scalar(std::complex<double>(1, 3)));
  EXPECT_NE(Scalar(std::complex<double>(1, 2)), Scalar(std::complex<double>(3, 2)));
  EXPECT_NE(Scalar(std::complex<double>(1, 0)), Scalar(1.0));
  EXPECT_NE(Scalar(std::complex<double>(0, 0.0)), Scalar(std::complex<double>(0, -0.0)));
  EXPECT_EQ(text(std::complex<double>(0, 1)), "1j");
  EXPECT_EQ(text(std::complex<double>(1, 2.5)), "(1+2.5j)");
  EXPECT_EQ(text(std::complex<double>(-1, -2)), "(-1-2j)");
}

TEST(Scalar, StoresAsItsDType) {
  bool b = false;
  int64_t i = 0;
  double d = 0;
  Scalar(true).store(&b);
  Scalar(-3).store(&i);
  Scalar(0.25).store(&d);
  EXPECT_TRUE(b);
  EXPECT_EQ(i, -3);
  EXPECT_EQ(d, 0.25);
}

}  // namespace
}  // namespace deepseek
