#include "kernels/index/sort.h"

#include <algorithm>
#include <numeric>

#include "kernels/index/sort_keys.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

const Dims kShapes[] = {{},    {0},    {4, 0},   {0, 4},  {1},     {2},       {300},      {511},
                        {512}, {3000}, {200000}, {7, 33}, {33, 7}, {3, 1000}, {1000, 20}, {4, 9, 21}};

bool before(double a, double b) {  // NaN last
  return std::isnan(b) ? !std::isnan(a) : a < b;
}

// Stable order of a line: the definition all kernels are held to.
std::vector<size_t> stable_order(const std::vector<double>& line, bool descending) {
  std::vector<size_t> order(line.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return descending ? before(line[b], line[a]) : before(line[a], line[b]);
  });
  return order;
}

template <class T>
void check_sort(const View& in, int dim, bool descending) {
  Array<T> values(in.sizes);
  Array<int64_t> indices(in.sizes);
  if constexpr (sizeof(T) == 1) std::fill(values.data.begin(), values.data.end(), T());
  View out = values.view();
  out.dtype = in.dtype;
  expect_same_bits<int64_t>(indices, [&] { sort(out, indices.view(), in, dim, descending); });
  const auto lines = lines_of(in, dim), sorted = lines_of(out, dim), at = lines_of(indices.view(), dim);
  ASSERT_EQ(lines.size(), sorted.size());
  for (size_t l = 0; l < lines.size(); ++l) {
    const auto order = stable_order(lines[l], descending);
    for (size_t i = 0; i < order.size(); ++i) {
      ASSERT_EQ(at[l][i], static_cast<double>(order[i])) << in.dtype << in.sizes << " dim " << dim << " line " << l;
      const double v = lines[l][order[i]];
      expect_near(sorted[l][i], v, 0, "sorted value");
      EXPECT_EQ(std::signbit(sorted[l][i]), std::signbit(v));
    }
  }
}

template <class T>
void check_topk(const View& in, int dim, int64_t k, bool largest) {
  Dims sizes = in.sizes;
  if (!sizes.empty()) sizes[dim] = k;
  Array<T> values(sizes);
  Array<int64_t> indices(sizes);
  expect_same_bits<int64_t>(indices, [&] { topk(values.view(), indices.view(), in, k, dim, largest); });
  const auto lines = lines_of(in, dim), got = lines_of(values.view(), dim), at = lines_of(indices.view(), dim);
  for (size_t l = 0; l < got.size(); ++l) {
    const auto order = stable_order(lines[l], largest);
    for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
      ASSERT_EQ(at[l][i], static_cast<double>(order[i])) << in.dtype << in.sizes << " top " << k << " of line " << l;
      expect_near(got[l][i], lines[l][order[i]], 0, "topk value");
    }
  }
}

template <class T>
void check_nth(const View& in, int dim, int64_t k) {  // k = 0: median
  Dims sizes = in.sizes;
  if (!sizes.empty()) sizes[dim] = 1;
  Array<T> values(sizes);
  Array<int64_t> indices(sizes);
  expect_same_bits<int64_t>(indices, [&] {
    k == 0 ? median(values.view(), indices.view(), in, dim) : kthvalue(values.view(), indices.view(), in, k, dim);
  });
  const auto lines = lines_of(in, dim);
  const auto got = values_of(values.view()), at = values_of(indices.view());
  for (size_t l = 0; l < lines.size(); ++l) {
    const auto order = stable_order(lines[l], false);
    size_t expected = k == 0 ? order[(order.size() - 1) / 2] : order[static_cast<size_t>(k - 1)];
    const auto nan = std::find_if(lines[l].begin(), lines[l].end(), [](double v) { return std::isnan(v); });
    if (k == 0 && nan != lines[l].end()) expected = static_cast<size_t>(nan - lines[l].begin());
    ASSERT_EQ(at[l], static_cast<double>(expected));
    expect_near(got[l], lines[l][expected], 0, "nth value");
  }
}

template <class T>
void check_everything(const View& in) {
  for (int dim = 0; dim < std::max(1, in.ndim()); ++dim) {
    const int64_t n = in.ndim() ? in.sizes[dim] : 1;
    for (bool descending : {false, true}) {
      check_sort<T>(in, dim, descending);
      for (int64_t k : {int64_t{0}, int64_t{1}, n / 9, n / 2, n}) check_topk<T>(in, dim, std::min(k, n), descending);
    }
    if (n == 0) continue;
    check_nth<T>(in, dim, 0);
    for (int64_t k : {int64_t{1}, (n + 2) / 3, n}) check_nth<T>(in, dim, k);
  }
}

template <class T>
void check_shapes() {
  for (const Dims& shape : kShapes) {
    if (sizeof(T) != 4 && shape.size() == 1 && shape[0] > 10000) continue;
    Array<T> x(shape, 1);
    if constexpr (std::is_integral_v<T>)
      fill_integers(x, 5, std::is_unsigned_v<T> ? 0 : -100, 100);
    else
      fill_normal(x, 5, 3);
    if constexpr (!std::is_integral_v<T>)
      for (int64_t i = 1; i < x.numel(); i += 11)
        x[i] = static_cast<T>(i % 4 == 0 ? 0.0f : i % 4 == 1 ? -0.0f : i % 4 == 2 ? std::nanf("") : -INFINITY);
    check_everything<T>(x.view());
    if (shape.size() < 2) continue;
    check_everything<T>(transposed(x.view(), 0, shape.size() - 1));
    if (x.numel() > 0) check_everything<T>(sliced(x.view(), shape.size() - 1, -2));
  }
}

TEST(Sort, Float) { check_shapes<float>(); }
TEST(Sort, Double) { check_shapes<double>(); }
TEST(Sort, Half) { check_shapes<Half>(); }
TEST(Sort, BFloat16) { check_shapes<BFloat16>(); }
TEST(Sort, Int64) { check_shapes<int64_t>(); }
TEST(Sort, Int8) { check_shapes<int8_t>(); }
TEST(Sort, UInt8) { check_shapes<uint8_t>(); }

TEST(Sort, Bool) {
  BoolArray x({1000});
  fill_integers(x, 1, 0, 1);
  check_sort<uint8_t>(x.view(), 0, false);
  check_sort<uint8_t>(x.view(), 0, true);
}

template <class T>
void check_keys_of_every_bit_pattern() {
  using K = Key<T>;
  for (int i = 0; i < (1 << (8 * sizeof(T))); ++i) {
    const T v = std::bit_cast<T>(static_cast<K>(i));
    T back;
    const bool invertible = from_key<T>(to_key(v), &back);
    const float f = static_cast<float>(v);
    EXPECT_EQ(invertible, f != 0 && !std::isnan(f)) << i;
    if (invertible) {
      EXPECT_EQ(std::bit_cast<K>(back), static_cast<K>(i));
    }
    for (int j : {0, 1, 0x3c, 0x7e, 0x7f, 0x80, 0xfe, (1 << (8 * sizeof(T) - 1)) + 5}) {
      const float g = static_cast<float>(std::bit_cast<T>(static_cast<K>(j)));
      EXPECT_EQ(to_key(v) < to_key(std::bit_cast<T>(static_cast<K>(j))), before(f, g)) << i << ' ' << j;
    }
  }
}

TEST(SortKeys, EveryBitPattern) {
  check_keys_of_every_bit_pattern<Half>();
  check_keys_of_every_bit_pattern<BFloat16>();
  check_keys_of_every_bit_pattern<Float8E4M3>();
  check_keys_of_every_bit_pattern<Float8E5M2>();
}

// Pairs too wide to pack.
TEST(SortKeys, WidePairsOfFullWidthKeys) {
  Array<int64_t> x({5000});
  std::mt19937_64 engine(3);
  for (int64_t& v : x.data) v = static_cast<int64_t>(engine());
  Array<int64_t> values({5000}), indices({5000});
  sort(values.view(), indices.view(), x.view(), 0, false);
  EXPECT_TRUE(std::is_sorted(values.data.begin(), values.data.end()));
  for (int64_t i = 0; i < 5000; ++i) EXPECT_EQ(values[i], x[indices[i]]);
}

TEST(TopK, RisingInputRefillsTheThreshold) {
  Array<float> x({50000});
  std::iota(x.data.begin(), x.data.end(), 0.0f);
  check_topk<float>(x.view(), 0, 7, true);
  check_topk<float>(x.view(), 0, 7, false);
  check_topk<float>(x.view(), 0, 3000, true);
  std::fill(x.data.begin(), x.data.end(), 1.0f);
  check_topk<float>(x.view(), 0, 100, true);
}

// Long lines are selected by a histogram of leading bits, unless too many keys share them.
template <class T>
void check_long_lines() {
  Array<T> x({2, 5000});
  for (const double scale : {1.0, 1e-3, 30.0}) {
    fill_normal(x, 9, scale, scale < 1 ? 5 : 0);
    for (const int64_t k : {79, 700, 1249})
      for (const bool largest : {true, false}) check_topk<T>(x.view(), 1, k, largest);
  }
}
TEST(TopK, LongLines) {
  check_long_lines<float>();
  check_long_lines<double>();
  check_long_lines<BFloat16>();
  check_long_lines<int64_t>();
  check_long_lines<int16_t>();
  check_long_lines<int8_t>();
  Array<float> x({5000});
  fill_normal(x, 10);
  for (int64_t i = 0; i < 5000; i += 50) x[i] = NAN, x[i + 1] = -0.0f, x[i + 2] = -INFINITY;
  for (const int64_t k : {99, 101, 1200})
    for (const bool largest : {true, false}) check_topk<float>(x.view(), 0, k, largest);
}

TEST(SearchSorted, LeftRightAndNan) {
  Array<float> sorted({5}), values({2, 4});
  sorted.data = {1, 2, 2, 2, 5};
  values.data = {0, 1, 2, 3, 5, 6, std::nanf(""), -INFINITY};
  Array<int64_t> out({2, 4});
  searchsorted(out.view(), sorted.view(), values.view(), false);
  EXPECT_EQ(out.data, (std::vector<int64_t>{0, 0, 1, 4, 4, 5, 5, 0}));
  searchsorted(out.view(), sorted.view(), values.view(), true);
  EXPECT_EQ(out.data, (std::vector<int64_t>{0, 1, 4, 4, 5, 5, 5, 0}));
}

TEST(SearchSorted, OneLinePerRowAndManyValues) {
  Array<int32_t> sorted({3, 100}), values({3, 20000});
  fill_integers(sorted, 1, -1000, 1000);
  fill_integers(values, 2, -1100, 1100);
  for (int64_t r = 0; r < 3; ++r) std::sort(sorted.begin() + r * 100, sorted.begin() + (r + 1) * 100);
  Array<int64_t> out({3, 20000});
  for (bool right : {false, true}) {
    expect_same_bits<int64_t>(out, [&] { searchsorted(out.view(), sorted.view(), values.view(), right); });
    for (int64_t i = 0; i < out.numel(); ++i) {
      const int32_t* row = sorted.begin() + i / 20000 * 100;
      const int32_t* at =
          right ? std::upper_bound(row, row + 100, values[i]) : std::lower_bound(row, row + 100, values[i]);
      ASSERT_EQ(out[i], at - row);
    }
  }
}

TEST(SearchSorted, ScalarValueAndEmpty) {
  Array<double> sorted({3}), value({}), none({0}), empty({0});
  sorted.data = {1, 2, 3};
  value.data = {2};
  Array<int64_t> out({}), no({0});
  searchsorted(out.view(), sorted.view(), value.view(), false);
  EXPECT_EQ(out[0], 1);
  searchsorted(out.view(), empty.view(), value.view(), false);
  EXPECT_EQ(out[0], 0);
  searchsorted(no.view(), sorted.view(), none.view(), false);
}

}  // namespace
}  // namespace deepseek::kernels
