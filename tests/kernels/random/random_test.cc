#include "kernels/random/random.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "kernels/random/random_blocks.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {

using testing::Array;
using testing::expect_same_bits;
using testing::for_each_target;

constexpr RngState kState{0x0123456789abcdef, 77};
constexpr double kInf = std::numeric_limits<double>::infinity();

// Word i of a draw by the scalar definition.
uint32_t word(RngState state, uint32_t stream, int64_t i) {
  const uint64_t c = state.offset + static_cast<uint64_t>(i) / 4;
  return philox4x32({static_cast<uint32_t>(c), static_cast<uint32_t>(c >> 32), stream, 0},
                    {static_cast<uint32_t>(state.seed), static_cast<uint32_t>(state.seed >> 32)})[i % 4];
}
uint64_t word64(RngState state, int64_t i) {
  return static_cast<uint64_t>(word(state, 0, i)) << 32 | word(state, 1, i);
}

// Largest distance between the sample's and the given distribution function, times sqrt(n): above 1.95 once in 1000.
template <class T, class F>
double kolmogorov(const Array<T>& sample, F cdf) {
  std::vector<double> x(sample.data.begin(), sample.data.end());
  std::sort(x.begin(), x.end());
  double distance = 0;
  const auto n = static_cast<double>(x.size());
  for (size_t i = 0; i < x.size(); ++i) distance = std::max({distance, cdf(x[i]) - i / n, (i + 1) / n - cdf(x[i])});
  return distance * std::sqrt(n);
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

TEST(RandomBlocks, WordsAreThoseOfTheScalarPhilox) {
  for_each_target([] {
    for (uint64_t offset : {uint64_t{0}, uint64_t{5}, (uint64_t{1} << 32) - 3, ~uint64_t{0} - 2}) {
      const RngState state{0xfedcba9876543210, offset};
      for (uint32_t stream : {0u, 1u}) {
        for (int64_t n : {1, 4, 33, 1024}) {
          std::array<uint32_t, kRandomBlock> words;
          philox_words(state, stream, n, words.data());
          for (int64_t i = 0; i < n; ++i) ASSERT_EQ(words[i], word(state, stream, i)) << offset << " " << i;
        }
      }
    }
  });
}

TEST(RandomBlocks, NormalIsBoxMuller) {
  for_each_target([] {
    std::array<uint32_t, kRandomBlock> words;
    philox_words(kState, 0, kRandomBlock, words.data());
    const uint32_t corners[] = {0,          1,          0x1fffffff, 0x20000000, 0x3fffffff, 0x40000000,
                                0x7fffffff, 0x80000000, 0xa0000000, 0xbfffffff, 0xc0000000, 0xffffffff};
    int at = 0;
    for (uint32_t radius : corners)
      for (uint32_t angle : corners) words[at++] = radius, words[at++] = angle;
    std::array<float, kRandomBlock> z;
    normal_from_words(words.data(), kRandomBlock, 0, 1, z.data());
    for (int64_t i = 0; i < kRandomBlock; i += 2) {
      const double u = static_cast<float>((static_cast<float>(words[i] >> 1) + 0.5f) * 0x1p-31f);
      const double r = std::sqrt(-2 * std::log(u)), t = 2 * M_PI * 0x1p-32 * words[i + 1];
      ASSERT_NEAR(z[i], r * std::cos(t), 3e-6) << std::hex << words[i] << " " << words[i + 1];
      ASSERT_NEAR(z[i + 1], r * std::sin(t), 3e-6) << std::hex << words[i] << " " << words[i + 1];
    }
  });
}

TEST(Random, AllTargetsGiveTheSameBits) {
  Array<float> first({5000}), again({5000});
  bool have_first = false;
  for_each_target([&] {
    Array<float>& a = have_first ? again : first;
    normal(a.view(), kState, 1, 3);
    have_first = true;
  });
  if (again.data == std::vector<float>(5000, 0.0f)) GTEST_SKIP() << "this CPU offers one target";
  EXPECT_EQ(first.data, again.data);
}

TEST(Random, ThreadsDoNotChangeBits) {
  constexpr int64_t n = 50'001;
  Array<float> f({n});
  Array<double> d({n});
  Array<BFloat16> h({n});
  Array<int64_t> i({n});
  Array<double> p({n});
  uniform(p.view(), {3, 4}, 0, 1);
  expect_same_bits(f, [&] { uniform(f.view(), kState, -1, 1); });
  expect_same_bits(f, [&] { normal(f.view(), kState, 0, 1); });
  expect_same_bits(d, [&] { uniform(d.view(), kState, -1, 1); });
  expect_same_bits(d, [&] { normal(d.view(), kState, 0, 1); });
  expect_same_bits(h, [&] { normal(h.view(), kState, 0, 1); });
  expect_same_bits(f, [&] { exponential(f.view(), kState, 2); });
  expect_same_bits(i, [&] { randint(i.view(), kState, 0, 1000); });
  expect_same_bits(f, [&] { bernoulli(f.view(), p.view(), kState); });
  Array<int64_t> samples({300, 7});
  Array<float> weights({300, 100});
  uniform(weights.view(), {5, 6}, 0.5, 1);
  for (bool replacement : {true, false})
    expect_same_bits(samples, [&] { multinomial(samples.view(), weights.view(), kState, replacement); });
}

// A draw of n elements is the draw of the first 4k, followed by the rest from offset + k.
template <class T, class Fill>
void expect_splittable(Fill fill) {
  constexpr int64_t n = 3001;
  Array<T> whole({n}), part({n});
  fill(whole.view(), kState);
  for (int64_t cut : {0, 4, 1000, 2048, 3000}) {
    View head = part.view(), tail = part.view();
    head.sizes = {cut};
    tail.sizes = {n - cut};
    tail.data = tail.at(cut);
    fill(head, kState);
    fill(tail, RngState{kState.seed, kState.offset + static_cast<uint64_t>(cut) / 4});
    ASSERT_EQ(std::memcmp(whole.data.data(), part.data.data(), n * sizeof(T)), 0) << cut;
  }
}

TEST(Random, SplitsDoNotChangeBits) {
  expect_splittable<float>([](View v, RngState s) { uniform(v, s, 2, 5); });
  expect_splittable<double>([](View v, RngState s) { uniform(v, s, 2, 5); });
  expect_splittable<float>([](View v, RngState s) { normal(v, s, 2, 5); });
  expect_splittable<double>([](View v, RngState s) { normal(v, s, 2, 5); });
  expect_splittable<Half>([](View v, RngState s) { exponential(v, s, 5); });
  expect_splittable<int32_t>([](View v, RngState s) { randint(v, s, -5, 5); });
}

TEST(Random, ConsecutiveReservesDoNotOverlap) {
  Generator g(9);
  Array<double> a({1000}), b({1000});
  uniform(a.view(), g.reserve(1000), 0, 1);
  uniform(b.view(), g.reserve(1000), 0, 1);
  std::set<double> all(a.data.begin(), a.data.end());
  all.insert(b.data.begin(), b.data.end());
  EXPECT_EQ(all.size(), 2000u);
}

TEST(Random, SeedsGiveDifferentDraws) {
  Array<float> a({1000}), b({1000});
  normal(a.view(), {1, 0}, 0, 1);
  for (uint64_t seed : {uint64_t{2}, uint64_t{1} << 32 | 1}) {
    normal(b.view(), {seed, 0}, 0, 1);
    EXPECT_NE(a.data, b.data);
  }
}

// --- uniform ---

TEST(Uniform, IsTheDocumentedFunctionOfTheWords) {
  constexpr int64_t n = 2500;
  Array<float> f({n});
  Array<double> d({n});
  Array<Half> h({n});
  uniform(f.view(), kState, 0, 1);
  uniform(d.view(), kState, 0, 1);
  uniform(h.view(), kState, 0, 1);
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(f[i], (word(kState, 0, i) >> 8) * 0x1p-24f);
    ASSERT_EQ(d[i], (word64(kState, i) >> 11) * 0x1p-53);
    ASSERT_EQ(static_cast<float>(h[i]), (word(kState, 0, i) >> 21) * 0x1p-11f);
  }
}

template <class T>
class UniformTest : public ::testing::Test {};
using Floats = ::testing::Types<Half, BFloat16, float, double>;
TYPED_TEST_SUITE(UniformTest, Floats);

TYPED_TEST(UniformTest, NeverReachesHigh) {
  // Ranges in which low + range * u rounds up to high.
  const double ranges[][2] = {{0, 1}, {-1, 0}, {1, 1.0625}, {100, 101}, {-3, -2.9375}, {1000, 1004}, {-1e-3, 0}};
  for (const auto& [low, high] : ranges) {
    Array<TypeParam> a({40'000});
    uniform(a.view(), kState, low, high);
    const double bottom = static_cast<double>(static_cast<float>(TypeParam(low)));
    for (int64_t i = 0; i < a.numel(); ++i) {
      const auto x = static_cast<double>(a[i]);
      ASSERT_TRUE(x < high && x >= std::min(low, bottom)) << x << " is not in [" << low << ", " << high << ")";
    }
  }
}

TYPED_TEST(UniformTest, EmptyRangeAndEmptyTensor) {
  Array<TypeParam> a({100});
  uniform(a.view(), kState, 2.5, 2.5);
  for (int64_t i = 0; i < 100; ++i) ASSERT_EQ(static_cast<double>(a[i]), 2.5);
  Array<TypeParam> none({0, 3});
  uniform(none.view(), kState, 0, 1);
  normal(none.view(), kState, 0, 1);
}

TYPED_TEST(UniformTest, MomentsAndSpread) {
  Array<TypeParam> a({200'000});
  uniform(a.view(), kState, -2, 6);
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < a.numel(); ++i)
    sum += static_cast<double>(a[i]), squares += std::pow(static_cast<double>(a[i]), 2);
  const double mean = sum / a.numel();
  // A draw of `digits` bits is low by half a step on average.
  EXPECT_NEAR(mean, 2, 8 / std::sqrt(12.0 * a.numel()) * 4 + 8.0 / 512);
  EXPECT_NEAR(squares / a.numel() - mean * mean, 64 / 12.0, 0.05);
}

TEST(Uniform, Distribution) {
  Array<float> f({100'000});
  uniform(f.view(), kState, 0, 1);
  EXPECT_LT(kolmogorov(f, [](double x) { return x; }), 1.95);
  Array<double> d({100'000});
  uniform(d.view(), kState, 0, 1);
  EXPECT_LT(kolmogorov(d, [](double x) { return x; }), 1.95);
}

TEST(Uniform, RefusesOtherDtypes) {
  Array<Float8E4M3> a({4});
  Array<int32_t> i({4});
  EXPECT_THROW(uniform(a.view(), kState, 0, 1), NotImplementedError);
  EXPECT_THROW(normal(i.view(), kState, 0, 1), NotImplementedError);
}

// --- normal, exponential ---

TYPED_TEST(UniformTest, NormalMomentsAndIndependence) {
  Array<TypeParam> a({400'001});
  normal(a.view(), kState, 3, 2);
  const int64_t n = a.numel();
  std::array<double, 5> moment{};
  double neighbours = 0, largest = 0;
  const auto z = [&](int64_t i) { return (static_cast<double>(a[i]) - 3) / 2; };
  for (int64_t i = 0; i < n; ++i) {
    for (int k = 1; k <= 4; ++k) moment[k] += std::pow(z(i), k) / n;
    if (i > 0) neighbours += z(i) * z(i - 1) / n;
    largest = std::max(largest, std::abs(z(i)));
  }
  const double error = 5 / std::sqrt(static_cast<double>(n));
  EXPECT_NEAR(moment[1], 0, error);
  EXPECT_NEAR(moment[2], 1, error * std::sqrt(2.0));
  EXPECT_NEAR(moment[3], 0, error * std::sqrt(15.0));
  EXPECT_NEAR(moment[4], 3, error * std::sqrt(96.0));
  EXPECT_NEAR(neighbours, 0, error);
  EXPECT_GT(largest, 4);
  EXPECT_LT(largest, 9);
}

TEST(Normal, Distribution) {
  Array<float> f({100'000});
  normal(f.view(), kState, 0, 1);
  EXPECT_LT(kolmogorov(f, normal_cdf), 1.95);
  Array<double> d({100'000});
  normal(d.view(), kState, 0, 1);
  EXPECT_LT(kolmogorov(d, normal_cdf), 1.95);
}

TEST(Normal, ZeroDeviationGivesTheMean) {
  Array<float> f({1000});
  normal(f.view(), kState, 1.5, 0);
  EXPECT_EQ(f.data, std::vector<float>(1000, 1.5f));
}

TEST(Exponential, Distribution) {
  Array<float> f({100'000});
  exponential(f.view(), kState, 2);
  EXPECT_LT(kolmogorov(f, [](double x) { return 1 - std::exp(-2 * x); }), 1.95);
  Array<double> d({100'000});
  exponential(d.view(), kState, 0.5);
  EXPECT_LT(kolmogorov(d, [](double x) { return 1 - std::exp(-0.5 * x); }), 1.95);
  EXPECT_GT(*std::min_element(d.data.begin(), d.data.end()), 0);
}

// --- integers ---

// Pearson's statistic against equal counts; for k cells above k - 1 + 4 sqrt(2 (k - 1)) less than once in 1000.
double chi_squared(const std::vector<int64_t>& counts) {
  const double expected =
      static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0})) / counts.size();
  double sum = 0;
  for (int64_t c : counts) sum += (c - expected) * (c - expected) / expected;
  return sum;
}
double chi_limit(size_t cells) { return cells - 1 + 4 * std::sqrt(2.0 * (cells - 1)); }

TEST(Randint, CoversItsRangeEvenly) {
  for (int64_t range : {2, 3, 10, 97}) {
    Array<int64_t> a({100'000});
    randint(a.view(), kState, -7, range - 7);
    std::vector<int64_t> counts(range);
    for (int64_t x : a.data) {
      ASSERT_TRUE(x >= -7 && x < range - 7);
      ++counts[x + 7];
    }
    EXPECT_LT(chi_squared(counts), chi_limit(range));
  }
}

TEST(Randint, WideRanges) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
  Array<int64_t> a({20'000});
  randint(a.view(), kState, kMin, kMax);
  EXPECT_LT(*std::min_element(a.data.begin(), a.data.end()), kMin + (int64_t{1} << 51));
  EXPECT_GT(*std::max_element(a.data.begin(), a.data.end()), kMax - (int64_t{1} << 51));
  randint(a.view(), kState, kMax - 1, kMax);
  EXPECT_EQ(a.data, std::vector<int64_t>(20'000, kMax - 1));
  EXPECT_THROW(randint(a.view(), kState, 3, 3), Error);
}

TEST(Randint, EveryDtypeHoldsTheSameIntegers) {
  Array<int64_t> expected({3000});
  randint(expected.view(), kState, 0, 100);
  for (int t = 1; t < kNumDTypes; ++t) {
    const auto dtype = static_cast<DType>(t);
    if (is_float8(dtype)) continue;  // cannot hold them
    dispatch(dtype, [&]<class T>() {
      const auto values = std::make_unique<T[]>(3000);
      randint(View{values.get(), dtype, {3000}, {1}}, kState, 0, 100);
      for (int64_t i = 0; i < 3000; ++i)
        ASSERT_EQ(static_cast<int64_t>(static_cast<float>(values[i])), expected[i]) << dtype;
    });
  }
  testing::BoolArray flags({3000});
  randint(flags.view(), kState, 0, 2);
  randint(expected.view(), kState, 0, 2);
  for (int64_t i = 0; i < 3000; ++i) ASSERT_EQ(flags[i], expected[i]);
}

// --- bernoulli ---

TEST(Bernoulli, FrequencyFollowsP) {
  for (double p : {0.0, 0.001, 0.25, 0.5, 0.9, 1.0}) {
    constexpr int64_t n = 100'000;
    testing::BoolArray flags({n});
    const View one{&p, DType::kFloat64, {n}, {0}};
    bernoulli(flags.view(), one, kState);
    const double ones = std::accumulate(flags.data.begin(), flags.data.end(), 0.0);
    EXPECT_NEAR(ones / n, p, 4 * std::sqrt(p * (1 - p) / n)) << p;
  }
}

TEST(Bernoulli, StridedAndBroadcastProbabilities) {
  constexpr int64_t rows = 70, cols = 90;
  Array<float> p({cols, rows});
  uniform(p.view(), {1, 1}, 0, 1);
  Array<float> dense({rows, cols});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) dense[r * cols + c] = p[c * rows + r];
  Array<float> expected({rows, cols}), actual({rows, cols});
  bernoulli(expected.view(), dense.view(), kState);
  for (int64_t i = 0; i < rows * cols; ++i)
    ASSERT_EQ(expected[i], word(kState, 0, i) < std::ceil(static_cast<double>(dense[i]) * 0x1p32) ? 1.0f : 0.0f);
  bernoulli(actual.view(), testing::transposed(p.view(), 0, 1), kState);
  EXPECT_EQ(actual.data, expected.data);

  View column = p.view();  // one probability a row
  column.sizes = {rows, cols};
  column.strides = {1, 0};
  for (int64_t i = 0; i < rows * cols; ++i) dense[i] = p[i / cols];
  bernoulli(expected.view(), dense.view(), kState);
  bernoulli(actual.view(), column, kState);
  EXPECT_EQ(actual.data, expected.data);
}

TEST(Bernoulli, ScalarAndEmpty) {
  double p = 1;
  float out = 0;
  bernoulli(View{&out, DType::kFloat32, {}, {}}, View{&p, DType::kFloat64, {}, {}}, kState);
  EXPECT_EQ(out, 1.0f);
  Array<float> none({0, 4});
  bernoulli(none.view(), none.view(), kState);
}

TEST(Bernoulli, RefusesWhatIsNoProbability) {
  Array<float> out({10'000}), p({10'000});
  for (float bad : {-0.5f, 1.5f, std::numeric_limits<float>::quiet_NaN()}) {
    p[9'999] = bad;
    EXPECT_THROW(bernoulli(out.view(), p.view(), kState), Error) << bad;
  }
}

// --- permutation ---

TEST(Permutation, IsOne) {
  for (int64_t n : {0, 1, 2, 1023, 1024, 1025, 30'000}) {
    std::vector<int64_t> p(n), sorted(n);
    random_permutation(p.data(), n, kState);
    std::vector<int64_t> expected(n);
    std::iota(expected.begin(), expected.end(), 0);
    if (n > 1000) {
      EXPECT_NE(p, expected);
    }
    std::sort(p.begin(), p.end());
    EXPECT_EQ(p, expected);
  }
}

TEST(Permutation, AllOrdersAreEquallyLikely) {
  std::map<std::vector<int64_t>, int64_t> seen;
  for (uint64_t i = 0; i < 24'000; ++i) {
    std::vector<int64_t> p(4);
    random_permutation(p.data(), 4, {11, i});
    ++seen[p];
  }
  std::vector<int64_t> counts;
  for (const auto& [order, count] : seen) counts.push_back(count);
  ASSERT_EQ(counts.size(), 24u);
  EXPECT_LT(chi_squared(counts), chi_limit(24));
}

// --- multinomial ---

// Sampling without replacement: the probability that `first`, then `second` come first.
TEST(Multinomial, FrequenciesWithAndWithoutReplacement) {
  constexpr int64_t rows = 60'000;
  Array<float> row({1, 4});
  row.data = {1, 0, 3, 4};
  View weights = row.view();
  weights.sizes = {rows, 4};
  weights.strides = {0, 1};
  Array<int64_t> out({rows, 2});
  for (bool replacement : {true, false}) {
    multinomial(out.view(), weights, kState, replacement);
    std::map<std::pair<int64_t, int64_t>, double> seen;
    for (int64_t r = 0; r < rows; ++r) ++seen[{out[2 * r], out[2 * r + 1]}];
    for (int64_t a = 0; a < 4; ++a) {
      for (int64_t b = 0; b < 4; ++b) {
        const double second = replacement ? row[b] / 8 : a == b || row[a] == 0 ? 0 : row[b] / (8 - row[a]);
        const double p = row[a] / 8 * second;
        const double count = seen[{a, b}];
        EXPECT_NEAR(count, rows * p, 4.5 * std::sqrt(rows * p * (1 - p))) << a << b << replacement;
      }
    }
  }
}

TEST(Multinomial, WithoutReplacementAllDistinct) {
  Array<double> weights({3, 50});
  uniform(weights.view(), {2, 2}, 0.1, 1);
  Array<int64_t> out({3, 50});
  multinomial(out.view(), weights.view(), kState, false);
  for (int64_t r = 0; r < 3; ++r)
    EXPECT_EQ(std::set<int64_t>(out.begin() + 50 * r, out.begin() + 50 * (r + 1)).size(), 50u);
}

TEST(Multinomial, StridedWeights) {
  Array<float> weights({100, 20});
  uniform(weights.view(), {2, 2}, 0, 1);
  Array<float> columns({20, 100});
  for (int64_t r = 0; r < 100; ++r)
    for (int64_t c = 0; c < 20; ++c) columns[c * 100 + r] = weights[r * 20 + c];
  Array<int64_t> a({100, 5}), b({100, 5});
  for (bool replacement : {true, false}) {
    multinomial(a.view(), weights.view(), kState, replacement);
    multinomial(b.view(), testing::transposed(columns.view(), 0, 1), kState, replacement);
    EXPECT_EQ(a.data, b.data);
  }
}

TEST(Multinomial, RefusesBadWeights) {
  const struct {
    std::vector<double> weights;
    bool replacement;
  } cases[] = {{{-1, 2}, true},  {{0, 0}, true},  {{0, 0}, false},   {{kInf, 1}, true},
               {{NAN, 1}, true}, {{1, 0}, false}, {{NAN, 1}, false}, {{1e308, 1e308}, true}};
  for (const auto& c : cases) {
    Array<double> w({1, 2});
    w.data = c.weights;
    Array<int64_t> out({1, 2});
    EXPECT_THROW(multinomial(out.view(), w.view(), kState, c.replacement), Error)
        << c.weights[0] << " " << c.weights[1];
  }
  Array<double> none({1, 0}), no_rows({0, 3});
  Array<int64_t> one({1, 1}), empty({0, 1});
  EXPECT_THROW(multinomial(one.view(), none.view(), kState, true), Error);
  multinomial(empty.view(), no_rows.view(), kState, true);
  EXPECT_EQ(multinomial_draws(3, 10, 2, true), 6);
  EXPECT_EQ(multinomial_draws(3, 10, 2, false), 30);
}

}  // namespace
}  // namespace deepseek::kernels
