#include "base/dtype.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include "gtest/gtest.h"

namespace deepseek {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class T>
struct Layout;
template <>
struct Layout<Half> {
  static constexpr int exponent = 5, mantissa = 10;
  static constexpr bool finite = false;
};
template <>
struct Layout<BFloat16> {
  static constexpr int exponent = 8, mantissa = 7;
  static constexpr bool finite = false;
};
template <>
struct Layout<Float8E4M3> {
  static constexpr int exponent = 4, mantissa = 3;
  static constexpr bool finite = true;
};
template <>
struct Layout<Float8E5M2> {
  static constexpr int exponent = 5, mantissa = 2;
  static constexpr bool finite = false;
};

// The meaning of a bit pattern, from the definition of the format.
template <class T>
double decode(uint32_t bits) {
  constexpr int e = Layout<T>::exponent, m = Layout<T>::mantissa, bias = (1 << (e - 1)) - 1;
  const uint32_t exponent = bits >> m & ((1u << e) - 1), mantissa = bits & ((1u << m) - 1);
  const double sign = bits >> (e + m) & 1 ? -1 : 1;
  if (exponent == (1u << e) - 1) {
    if (Layout<T>::finite ? mantissa == (1u << m) - 1 : mantissa != 0) return kNan;
    if (!Layout<T>::finite) return sign * kInf;
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - m);
  return sign * std::ldexp(mantissa + (1u << m), static_cast<int>(exponent) - bias - m);
}

template <class T>
class SmallFloatTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kSign = 1u << (Layout<T>::exponent + Layout<T>::mantissa);
  static T from_bits(uint32_t b) { return T::from_bits(static_cast<decltype(T::bits)>(b)); }
  // The positive patterns that are finite numbers are 0 ... largest().
  static uint32_t largest() {
    uint32_t b = kSign - 1;
    while (!std::isfinite(decode<T>(b))) --b;
    return b;
  }
};
using SmallFloats = ::testing::Types<Half, BFloat16, Float8E4M3, Float8E5M2>;
TYPED_TEST_SUITE(SmallFloatTest, SmallFloats);

TYPED_TEST(SmallFloatTest, EveryPatternDecodesAndRoundTrips) {
  for (uint32_t b = 0; b < 2 * this->kSign; ++b) {
    const float value = this->from_bits(b);
    const double expected = decode<TypeParam>(b);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << b;
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(value)))) << b;
    } else {
      ASSERT_EQ(value, expected) << b;
      ASSERT_EQ(std::signbit(value), b >= this->kSign) << b;
      if (!(Layout<TypeParam>::finite && std::isinf(value))) {
        ASSERT_EQ(TypeParam(value).bits, b) << value;
      }
    }
  }
}

TYPED_TEST(SmallFloatTest, RoundsToNearestEvenBetweenAllNeighbours) {
  for (uint32_t b = 0; b < this->largest(); ++b) {
    const float low = static_cast<float>(decode<TypeParam>(b)), high = static_cast<float>(decode<TypeParam>(b + 1));
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    const struct {
      float value;
      uint32_t expected;
    } cases[] = {{std::nextafter(low, kInf), b},
                 {std::nextafter(middle, -kInf), b},
                 {middle, b + b % 2},
                 {std::nextafter(middle, kInf), b + 1},
                 {std::nextafter(high, -kInf), b + 1}};
    for (const auto& c : cases) {
      // bf16 shares float's smallest exponent: its neighbours' neighbours may be no floats in between.
      if (c.value <= low || c.value >= high) continue;
      ASSERT_EQ(TypeParam(c.value).bits, c.expected) << c.value;
      ASSERT_EQ(TypeParam(-c.value).bits, c.expected + this->kSign) << -c.value;
    }
  }
}

TYPED_TEST(SmallFloatTest, SpecialValues) {
  EXPECT_EQ(TypeParam(0.0f).bits, 0u);
  EXPECT_EQ(TypeParam(-0.0f).bits, this->kSign);
  EXPECT_EQ(static_cast<float>(TypeParam(1)), 1.0f);
  EXPECT_EQ(static_cast<float>(TypeParam(-2.0)), -2.0f);
  EXPECT_EQ(static_cast<float>(TypeParam(int64_t{3})), 3.0f);
  EXPECT_EQ(static_cast<float>(TypeParam(true)), 1.0f);
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(kNan))));
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(-kNan))));
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(std::bit_cast<float>(0x7f800001u)))));  // lowest payload bit only
  if (!Layout<TypeParam>::finite) {
    EXPECT_EQ(static_cast<float>(TypeParam(kInf)), kInf);
    EXPECT_EQ(static_cast<float>(TypeParam(-kInf)), -kInf);
  }
  if (Layout<TypeParam>::exponent < 8) {
    EXPECT_EQ(TypeParam(std::numeric_limits<float>::denorm_min()).bits, 0u);
    EXPECT_EQ(TypeParam(-std::numeric_limits<float>::denorm_min()).bits, this->kSign);
  }
}

TEST(SmallFloat, KnownBits) {
  EXPECT_EQ(Half(65504.0f).bits, 0x7bff);
  EXPECT_EQ(Half(std::ldexp(1.0f, -14)).bits, 0x0400);
  EXPECT_EQ(Half(std::ldexp(1.0f, -24)).bits, 0x0001);
  EXPECT_EQ(Half(std::ldexp(1.0f, -25)).bits, 0x0000);  // tie with zero
  EXPECT_EQ(Half(std::nextafter(std::ldexp(1.0f, -25), 1.0f)).bits, 0x0001);
  EXPECT_EQ(Half(std::ldexp(1.0f, -26)).bits, 0x0000);
  EXPECT_EQ(Half(1.0f / 3).bits, 0x3555);
  EXPECT_EQ(BFloat16(3.14159265f).bits, 0x4049);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(1u)).bits, 0x0000);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x00018000u)).bits, 0x0002);  // float subnormals are kept, ties to even
  EXPECT_EQ(Float8E4M3(448.0f).bits, 0x7e);
  EXPECT_EQ(Float8E4M3(0.001953125f).bits, 0x01);
  EXPECT_EQ(Float8E5M2(57344.0f).bits, 0x7b);
  EXPECT_EQ(Float8E5M2(std::ldexp(1.0f, -16)).bits, 0x01);
}

TEST(SmallFloat, Overflow) {
  EXPECT_EQ(Half(std::nextafter(65520.0f, 0.0f)).bits, 0x7bff);
  EXPECT_EQ(Half(65520.0f).bits, 0x7c00);
  EXPECT_EQ(Half(-1e30f).bits, 0xfc00);
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x7f7f7fffu)).bits, 0x7f7f);
  EXPECT_EQ(Float8E5M2(std::nextafter(61440.0f, 0.0f)).bits, 0x7b);
  EXPECT_EQ(Float8E5M2(61440.0f).bits, 0x7c);
  EXPECT_EQ(Float8E4M3(464.0f).bits, 0x7e);
  for (float x : {std::nextafter(464.0f, kInf), 480.0f, 1e30f, kInf}) {
    EXPECT_EQ(Float8E4M3(x).bits, 0x7e) << x;
    EXPECT_EQ(Float8E4M3(-x).bits, 0xfe) << x;
  }
}

TEST(DType, NamesAndSizes) {
  EXPECT_STREQ(name_of(DType::kBFloat16), "bfloat16");
  std::ostringstream out;
  out << DType::kFloat8E4M3;
  EXPECT_EQ(out.str(), "deepseek.float8_e4m3fn");
  int count = 0;
  for (int t = 0; t < kNumDTypes; ++t) {
    const auto dtype = static_cast<DType>(t);
    dispatch(dtype, [&]<class T>() {
      ++count;
      EXPECT_EQ(dtype_of<T>, dtype);
      EXPECT_EQ(size_of(dtype), static_cast<int64_t>(sizeof(T)));
      EXPECT_STREQ(name_of(dtype), traits_of(dtype).name);
    });
  }
  EXPECT_EQ(count, 12);
}

// Promotion reads the order of the table.
static_assert(std::ranges::is_sorted(kDTypeTraits, {}, &DTypeTraits::category));

template <class T>
constexpr Category kCategory = std::is_same_v<T, bool>                            ? Category::kBool
                               : std::is_integral_v<T>                            ? Category::kInteger
                               : std::is_floating_point_v<T> || is_small_float<T> ? Category::kFloat
                                                                                  : Category::kComplex;

TEST(DType, PredicatesFollowTheCategory) {
  for (int t = 0; t < kNumDTypes; ++t) {
    const auto dtype = static_cast<DType>(t);
    SCOPED_TRACE(name_of(dtype));
    dispatch(dtype, [&]<class T>() {
      const Category c = category(dtype);
      EXPECT_EQ(c, kCategory<T>);
      EXPECT_EQ(is_exact(dtype), c == Category::kBool || c == Category::kInteger);
      EXPECT_EQ(is_integral(dtype), c == Category::kInteger);
      EXPECT_EQ(is_floating(dtype), c == Category::kFloat);
      EXPECT_EQ(is_complex(dtype), c == Category::kComplex);
      EXPECT_EQ(is_differentiable(dtype), is_floating(dtype) || is_complex(dtype));
      if (is_floating(dtype)) {
        EXPECT_EQ(static_cast<double>(T(largest_finite(dtype))), largest_finite(dtype));
      } else {
        EXPECT_THROW(largest_finite(dtype), Error);
      }
    });
  }
}

template <class Visit>
std::string visited(Visit visit, DType dtype) {
  std::string seen;
  try {
    visit("an_op", dtype, [&]<class T>() { seen = name_of(dtype_of<T>); });
  } catch (const NotImplementedError& e) {
    EXPECT_NE(std::string(e.what()).find("an_op(): not implemented for dtype deepseek." + std::string(name_of(dtype))),
              std::string::npos)
        << e.what();
    return "refused";
  }
  return seen;
}

TEST(DType, VisitorsRefuseWhatTheyDoNotKnow) {
  for (int t = 0; t < kNumDTypes; ++t) {
    const auto dtype = static_cast<DType>(t);
    const std::string name = name_of(dtype);
    const bool computes = is_floating(dtype) && !is_float8(dtype);
    EXPECT_EQ(visited([](auto... a) { dispatch_float(a...); }, dtype), computes ? name : "refused");
    EXPECT_EQ(visited([](auto... a) { dispatch_among<bool, Half>(a...); }, dtype),
              name == "bool" || name == "float16" ? name : "refused");
    const std::string sum = is_exact(dtype) ? "int64" : dtype == DType::kFloat64 ? "float64" : "float32";
    EXPECT_EQ(visited([](auto... a) { dispatch_sum(a...); }, dtype), is_complex(dtype) ? "refused" : sum);
  }
}

// PyTorch 2.13's promote_types and can_cast. Letters: b bool, u uint8, 1 2 4 8 int8 ... int64, p float8_e4m3fn,
// q float8_e5m2, h float16, g bfloat16, f float32, d float64, - error.
constexpr const char* kLetters = "bu1248pqhgfd";
constexpr const char* kPromotions[] = {
    "bu1248--hgfd", "uu2248--hgfd", "121248--hgfd", "222248--hgfd", "444448--hgfd", "888888--hgfd",
    "------p-----", "-------q----", "hhhhhh--hffd", "gggggg--fgfd", "ffffff--fffd", "dddddd--dddd",
};
constexpr const char* kCasts[] = {
    "111111111111", "011111111111", "011111111111", "011111111111", "011111111111", "011111111111",
    "000000111111", "000000111111", "000000111111", "000000111111", "000000111111", "000000111111",
};

TEST(DType, PromotesAndCastsAsPyTorch) {
  for (int a = 0; a < kNumDTypes; ++a) {
    for (int b = 0; b < kNumDTypes; ++b) {
      const auto ta = static_cast<DType>(a), tb = static_cast<DType>(b);
      const char expected = kPromotions[a][b];
      if (expected == '-') {
        EXPECT_THROW(promote_types(ta, tb), Error) << ta << tb;
      } else {
        EXPECT_EQ(kLetters[static_cast<int>(promote_types(ta, tb))], expected) << ta << tb;
      }
      EXPECT_EQ(can_cast(ta, tb), kCasts[a][b] == '1') << ta << tb;
    }
  }
}

}  // namespace
}  // namespace deepseek
