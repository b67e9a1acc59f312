#include "kernels/loops/rows.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

const double kValues[] = {0, 1,  -1, 2.5, -2.5, 100, -100, 3,  7, 0.5, 1000, 12,
                          5, 64, 9,  33,  17,   -3,  8,    90, 6, -6,  11,   0};

// Values as C in, stored as T, and loaded again: equal to T's own conversion, at every length around the unrolled
// blocks.
template <class T, class C>
void check_round_trip() {
  SCOPED_TRACE(name_of(dtype_of<T>));
  constexpr int64_t n = std::size(kValues);
  for (int64_t stride : {1, 2, 5})
    for (int64_t count = 0; count <= n; ++count) {
      std::vector<char> bytes(static_cast<size_t>(5 * n) * sizeof(T), 0x11);
      std::vector<C> from(kValues, kValues + n), to(static_cast<size_t>(n), C(77));
      store_row(dtype_of<T>, bytes.data(), stride, count, from.data());
      load_row(dtype_of<T>, bytes.data(), stride, count, to.data());
      for (int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<size_t>(i);
        T stored;
        if constexpr (std::is_same_v<T, bool>)
          stored = from[at] != C(0);
        else
          stored = static_cast<T>(from[at]);
        const C expected = i < count ? static_cast<C>(static_cast<ComputeType<T>>(stored)) : C(77);
        ASSERT_EQ(to[at], expected) << "element " << i << " of " << count << " stride " << stride;
      }
    }
}

TEST(Rows, StoreThenLoadEveryDType) {
  for (int d = 0; d < kNumDTypes; ++d)
    dispatch(static_cast<DType>(d), []<class T>() {
      // Values an unsigned or narrow type cannot hold are another type's business.
      if constexpr (!std::is_same_v<T, uint8_t> && !std::is_same_v<T, int8_t>) {
        check_round_trip<T, float>();
        check_round_trip<T, double>();
      }
      check_round_trip<T, int64_t>();
    });
}

TEST(Rows, NonzeroFlags) {
  for (int d = 0; d < kNumDTypes; ++d)
    dispatch(static_cast<DType>(d), []<class T>() {
      std::vector<char> bytes(40 * sizeof(T));
      T* values = reinterpret_cast<T*>(bytes.data());
      for (int i = 0; i < 40; ++i) values[i] = static_cast<T>(static_cast<float>(i % 3));
      std::vector<uint8_t> flags(40);
      load_row(dtype_of<T>, values, 1, 40, flags.data());
      for (size_t i = 0; i < 40; ++i) ASSERT_EQ(flags[i], i % 3 != 0) << name_of(dtype_of<T>);
    });
}

TEST(Rows, NanAndRoundingOfHalfTypes) {
  std::vector<float> from(20, std::nanf("")), to(20);
  from[3] = 1.00390625f;  // a tie for bfloat16: to even
  from[17] = 1.01171875f;
  store_row(DType::kBFloat16, to.data(), 1, 20, from.data());
  std::vector<float> back(20);
  load_row(DType::kBFloat16, to.data(), 1, 20, back.data());
  EXPECT_TRUE(std::isnan(back[0]) && std::isnan(back[16]) && std::isnan(back[19]));
  EXPECT_EQ(back[3], 1.0f);
  EXPECT_EQ(back[17], 1.015625f);
}

TEST(Rows, Transpose16x16) {
  alignas(32) uint32_t from[256], to[256];
  for (uint32_t i = 0; i < 256; ++i) from[i] = 0x7f800001u + i;  // NaN patterns: bits, not numbers
  transpose_16x16(from, to);
  for (uint32_t i = 0; i < 16; ++i)
    for (uint32_t j = 0; j < 16; ++j) ASSERT_EQ(to[j * 16 + i], from[i * 16 + j]);
}

}  // namespace
}  // namespace deepseek::kernels
