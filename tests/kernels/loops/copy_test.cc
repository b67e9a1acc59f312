#include "kernels/loops/copy.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

template <class T>
void expect_copied(const View& out_shape, const View& in, Array<T>& memory) {
  const std::vector<double> expected = values_of(in);
  expect_same_bits<T>(memory, [&] { copy(out_shape, in); });
  EXPECT_EQ(values_of(out_shape), expected) << in.sizes << in.strides;
}

// Sizes on both sides of the 32-element tile, every element width.
template <class T>
void check_transposes() {
  for (const Dims& sizes :
       {Dims{1, 1}, Dims{7, 9}, Dims{8, 8}, Dims{31, 33}, Dims{32, 64}, Dims{100, 65}, Dims{1, 300}, Dims{300, 1}}) {
    Array<T> in(sizes, 1), out({sizes[1], sizes[0]}, 1);
    fill_integers(in, 1, 0, 100);
    expect_copied(out.view(), transposed(in.view(), 0, 1), out);
    std::fill(out.data.begin(), out.data.end(), T());
    expect_copied(transposed(out.view(), 0, 1), in.view(), out);
  }
}

TEST(Copy, TiledTransposesOfEveryWidth) {
  check_transposes<uint8_t>();
  check_transposes<int16_t>();
  check_transposes<float>();
  check_transposes<double>();
}

TEST(Copy, EveryPermutationOfFourDims) {
  Array<float> in({9, 10, 11, 12});
  fill_integers(in, 2, 0, 100000);
  std::vector<int> order{0, 1, 2, 3};
  do {
    View v = in.view();
    for (int d = 0; d < 4; ++d) {
      v.sizes[d] = in.sizes[order[static_cast<size_t>(d)]];
      v.strides[d] = in.view().strides[order[static_cast<size_t>(d)]];
    }
    Array<float> out(v.sizes);
    expect_copied(out.view(), v, out);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(Copy, SlicesReversalsAndBroadcasts) {
  Array<int32_t> in({40, 50}, 1);
  fill_integers(in, 3, 0, 1000);
  for (int dim : {0, 1})
    for (int64_t step : {1, 2, 3, -1, -2}) {
      const View v = sliced(in.view(), dim, step);
      Array<int32_t> out(v.sizes);
      expect_copied(out.view(), v, out);
      expect_copied(out.view(), transposed(sliced(transposed(in.view(), 0, 1), 1 - dim, step), 0, 1), out);
    }
  View row{in.begin(), DType::kInt32, {40, 50}, {0, 1}}, one{in.begin(), DType::kInt32, {40, 50}, {0, 0}};
  Array<int32_t> out({40, 50});
  expect_copied(out.view(), row, out);
  expect_copied(out.view(), one, out);
}

TEST(Copy, ConvertsWhileMoving) {
  Array<double> in({33, 20});
  fill_integers(in, 5, -100, 100);
  Array<BFloat16> out({20, 33});
  expect_copied(out.view(), transposed(in.view(), 0, 1), out);
  Array<int8_t> bytes({33, 20});
  expect_copied(bytes.view(), in.view(), bytes);
}

TEST(Copy, WritesOnlyTheElementsOfTheTarget) {
  Array<float> out({10, 10}), in({10, 5});
  fill_normal(in, 1);
  std::fill(out.data.begin(), out.data.end(), 7.0f);
  copy(sliced(out.view(), 1, 2), in.view());
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(out[i], i % 2 ? 7.0f : in[i / 10 * 5 + i % 10 / 2]);
}

TEST(Copy, EmptyAndIdentical) {
  Array<float> none({3, 0}), some({4});
  copy(none.view(), none.view());
  fill_normal(some, 1);
  const std::vector<float> before = some.data;
  copy(some.view(), some.view());
  EXPECT_EQ(some.data, before);
}

TEST(Copy, BandsOfEveryLayout) {
  constexpr int64_t kNone = INT64_MIN, kAll = INT64_MAX;
  const std::pair<int64_t, int64_t> bands[] = {{kNone, 1},   {0, kAll},      {-3, 5},
                                               {kAll, kAll}, {kNone, kNone}, {60, kAll}};
  Array<int16_t> in({3, 40, 50}, 1);
  fill_integers(in, 3, 1, 1000);
  for (const auto& [least, most] : bands)
    for (const View& v :
         {in.view(), transposed(in.view(), 1, 2), transposed(in.view(), 0, 2), sliced(in.view(), 2, -1)}) {
      std::vector<double> expected = values_of(v);
      const int64_t rows = v.sizes[1], columns = v.sizes[2];
      for (int64_t i = 0; i < static_cast<int64_t>(expected.size()); ++i) {
        const int64_t off = i % columns - i / columns % rows;
        if (off < least || off >= most) expected[static_cast<size_t>(i)] = 0;
      }
      Array<int16_t> out(v.sizes);
      expect_same_bits<int16_t>(out, [&] { copy_band(out.view(), v, least, most); });
      EXPECT_EQ(values_of(out.view()), expected) << v.strides << " " << least << " " << most;
      copy(out.view(), v);
      copy_band(out.view(), out.view(), least, most);  // in place
      EXPECT_EQ(values_of(out.view()), expected) << v.strides << " " << least << " " << most;
    }
}

TEST(Fill, EveryDTypeAndLayout) {
  const double value = 3;
  for (int d = 0; d < kNumDTypes; ++d)
    dispatch(static_cast<DType>(d), [&]<class T>() {
      std::vector<char> bytes(70 * 50 * sizeof(T));
      const View whole{bytes.data(), dtype_of<T>, {70, 50}, {50, 1}};
      fill(transposed(sliced(whole, 0, 2), 0, 1), &value, DType::kFloat64);
      const std::vector<double> got = values_of(whole);
      const double stored = std::is_same_v<T, bool> ? 1 : 3;
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], i / 50 % 2 == 0 ? stored : 0) << i;
    });
}

}  // namespace
}  // namespace deepseek::kernels
