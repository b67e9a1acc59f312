#include "kernels/loops/cast.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

const double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
const double kValues[] = {0,    -0.0,  1,    -1,    0.5,     -0.5,  1.5,    -2.5,     3.75, 100,   -100,  127,
                          128,  -128,  -129, 255,   256,     300.7, -300.7, 448,      449,  464,   470,   65504,
                          1e5,  -1e5,  1e-8, 1e-30, 2e9,     3e9,   -3e9,   16777217, 1e19, -1e19, 1e300, 5e-324,
                          kInf, -kInf, kNan, 0.1,   1.0 / 3, 7,     8,      9,        10,   11,    12};

// Elements of any dtype as bytes: std::vector<bool> has no address.
template <class T>
struct Buffer {
  std::vector<char> bytes;
  explicit Buffer(size_t n) : bytes(n * sizeof(T)) {}
  T* data() { return reinterpret_cast<T*>(bytes.data()); }
};

// What one conversion means, from the language's and the format's own rules.
template <class To, class From>
To reference(From value) {
  const auto wide = static_cast<ComputeType<From>>(value);
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<To, bool>) {
    return wide != 0;
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<ComputeType<From>>) {
    using Wide = std::conditional_t<sizeof(To) == 8, int64_t, int32_t>;
    const long double t = std::trunc(static_cast<long double>(wide));
    const bool fits = t >= static_cast<long double>(std::numeric_limits<Wide>::min()) &&
                      t <= static_cast<long double>(std::numeric_limits<Wide>::max());
    return static_cast<To>(fits ? static_cast<Wide>(t) : std::numeric_limits<Wide>::min());
  } else if constexpr (is_small_float<To>) {
    return To(static_cast<float>(wide));
  } else {
    return static_cast<To>(wide);
  }
}

template <class From, class To>
void check_pair() {
  SCOPED_TRACE(std::string(name_of(dtype_of<From>)) + " to " + name_of(dtype_of<To>));
  constexpr size_t n = std::size(kValues);
  const CastFn cast = cast_function(dtype_of<From>, dtype_of<To>);
  for (const auto& [to_stride, from_stride] :
       {std::pair<int64_t, int64_t>{1, 1}, {2, 1}, {1, 3}, {1, 0}, {3, 2}, {-1, 1}}) {
    Buffer<From> from(3 * n);
    Buffer<To> to(3 * n);
    for (size_t i = 0; i < 3 * n; ++i) from.data()[i] = convert<From>(kValues[i % n]);
    To* first = to_stride < 0 ? to.data() + n - 1 : to.data();
    cast(first, to_stride, from.data(), from_stride, n);
    for (size_t i = 0; i < n; ++i) {
      const auto at = static_cast<int64_t>(i);
      const To got = first[at * to_stride], want = reference<To>(from.data()[at * from_stride]);
      const bool both_nan = got != got && want != want;
      EXPECT_TRUE(both_nan || std::memcmp(&got, &want, sizeof(To)) == 0)
          << "value " << static_cast<double>(from.data()[at * from_stride]) << " strides " << to_stride << " "
          << from_stride << ": " << static_cast<double>(got) << " instead of " << static_cast<double>(want);
    }
  }
}

TEST(Cast, All144Pairs) {
  for (int from = 0; from < kNumDTypes; ++from)
    for (int to = 0; to < kNumDTypes; ++to)
      dispatch(static_cast<DType>(from),
               [&]<class From>() { dispatch(static_cast<DType>(to), []<class To>() { check_pair<From, To>(); }); });
}

// The vectorised conversions against the scalar ones, every bit pattern that can round differently.
TEST(Cast, FloatToHalfTypesRoundsEveryTie) {
  std::vector<float> values;
  for (uint32_t high = 0; high < 0x10000; high += 7)
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      values.push_back(std::bit_cast<float>(high << 16 | low));
  std::vector<BFloat16> brain(values.size());
  std::vector<Half> half(values.size());
  const auto n = static_cast<int64_t>(values.size());
  cast_function(DType::kFloat32, DType::kBFloat16)(brain.data(), 1, values.data(), 1, n);
  cast_function(DType::kFloat32, DType::kFloat16)(half.data(), 1, values.data(), 1, n);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) {
      EXPECT_TRUE(std::isnan(static_cast<float>(brain[i])) && std::isnan(static_cast<float>(half[i])));
      continue;
    }
    ASSERT_EQ(brain[i].bits, BFloat16(values[i]).bits) << values[i];
    ASSERT_EQ(half[i].bits, Half(values[i]).bits) << values[i];
  }
}

TEST(Cast, EveryHalfPatternSurvivesARoundTrip) {
  std::vector<Half> all(65536), back(65536);
  for (uint32_t i = 0; i < 65536; ++i) all[i] = Half::from_bits(static_cast<uint16_t>(i));
  std::vector<float> wide(65536);
  cast_function(DType::kFloat16, DType::kFloat32)(wide.data(), 1, all.data(), 1, 65536);
  cast_function(DType::kFloat32, DType::kFloat16)(back.data(), 1, wide.data(), 1, 65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    if (std::isnan(wide[i])) continue;
    ASSERT_EQ(wide[i], static_cast<float>(all[i])) << i;
    ASSERT_EQ(back[i].bits, i);
  }
}

TEST(Cast, EveryLengthAroundTheVectorWidth) {
  for (int64_t n = 0; n <= 40; ++n) {
    Array<float> in({n}, 1);
    Array<BFloat16> out({n + 2}, 1);
    fill_normal(in, static_cast<uint32_t>(n));
    out[n] = out[n + 1] = BFloat16(77.0f);
    cast_function(DType::kFloat32, DType::kBFloat16)(out.begin(), 1, in.begin(), 1, n);
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(out[i].bits, BFloat16(in[i]).bits);
    EXPECT_EQ(static_cast<float>(out[n]), 77);  // nothing is written behind the end
  }
}

}  // namespace
}  // namespace deepseek::kernels
