// Codes and scales: round trips, error bounds, special values.
#include "kernels/quant/quantize.h"

#include <algorithm>
#include <limits>
#include <map>

#include "tests/kernels/quant_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

std::vector<float> values_of(const QuantArray& q) {
  std::vector<float> out(static_cast<size_t>(q.m.n * q.m.k));
  dequantize(q.m, DType::kFloat32, out.data());
  return out;
}

// Weights as they occur: normal rows of different scales, some with outliers, zero or all of one sign.
std::vector<float> weights(int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> w;
  for (int64_t i = 0; i < n; ++i) {
    const float scale = std::pow(10.0f, static_cast<float>(i % 9) - 5);
    for (int64_t j = 0; j < k; ++j) {
      float v = normal(engine) * scale * (engine() % 50 == 0 ? 20.0f : 1.0f);
      if (i % 5 == 1) v = std::abs(v);
      if (i % 5 == 2) v = -std::abs(v);
      if (i % 7 == 3 && j / 32 % 2 == 0) v = 0;
      w.push_back(v);
    }
  }
  return w;
}

TEST(Quantize, OfDequantizedIsTheSame) {
  uint32_t seed = 0;
  for (const QuantCase& c : quant_cases())
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{40, 256}, {17, 130}, {3, 33}, {1, 1}, {130, 1}, {1, 300}}) {
      SCOPED_TRACE(c.name() + " " + std::to_string(n) + "x" + std::to_string(k));
      QuantArray q(c, n, k), again(c, n, k);
      quantize(q.m, weights(n, k, ++seed).data());
      quantize(again.m, values_of(q).data());
      EXPECT_EQ(q.codes, again.codes);
      EXPECT_EQ(q.scales, again.scales);
      EXPECT_EQ(q.zeros, again.zeros);
    }
}

// In order, at scale 1.
std::vector<float> values_of_codes(const QuantFormat& f, uint8_t zero) {
  std::vector<float> all;
  for (const std::vector<float>& values : values_of_bytes(f, zero))
    if (!std::isnan(values[0])) all.push_back(values[0]);
  std::ranges::sort(all);
  const auto same = std::ranges::unique(all);
  all.erase(same.begin(), same.end());
  return all;
}

// Each value has the nearest code, or where both ends of a block are to be exact one nearly as near, and lies in the
// range of codes or, where that is not symmetric, a step beyond it.
TEST(Quantize, ErrorIsBounded) {
  for (const QuantCase& c : quant_cases()) {
    SCOPED_TRACE(c.name());
    const int64_t n = 150, k = 290;
    QuantArray q(c, n, k);
    const std::vector<float> w = weights(n, k, 7), back = [&] {
      quantize(q.m, w.data());
      return values_of(q);
    }();
    std::map<uint8_t, std::vector<float>> codes_of;  // by zero point
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j) {
        const auto at = static_cast<size_t>(i * k + j);
        const double scale = q.scale_at(i, j);
        if (scale == 0) {
          EXPECT_EQ(back[at], 0) << i << ", " << j << ": " << w[at];
          continue;
        }
        std::vector<float>& codes = codes_of[q.zero_at(i, j)];
        if (codes.empty()) codes = values_of_codes(*c.format, q.zero_at(i, j));
        const double v = w[at] / scale, error = std::abs(v - back[at] / scale);
        const auto above = std::ranges::lower_bound(codes, v);
        double nearest = 1e30;
        if (above != codes.end()) nearest = *above - v;
        if (above != codes.begin()) nearest = std::min(nearest, v - above[-1]);
        EXPECT_LE(error, nearest + 15 * 0x1p-11) << i << ", " << j << ": " << w[at];
        EXPECT_LE(nearest, 1.01 * (codes.back() - codes.end()[-2])) << i << ", " << j << ": " << w[at];
      }
  }
}

TEST(Quantize, NibblesLieAsDocumented) {
  QuantArray q({"int4", 32}, 1, 5);
  const std::vector<float> w = {-8, 7, 1, 0, -3};
  quantize(q.m, w.data());
  EXPECT_EQ(q.scales, (std::vector<float>{1}));
  EXPECT_EQ(q.codes, (std::vector<uint8_t>{0xf0, 0x89, 0x05}));
  QuantArray z({"int4_zero", 32}, 1, 4);
  const std::vector<float> shifted = {-1, 14, 0, 3};
  quantize(z.m, shifted.data());
  EXPECT_EQ(z.scales, (std::vector<float>{1}));
  EXPECT_EQ(z.zeros, (std::vector<uint8_t>{1}));
  EXPECT_EQ(z.codes, (std::vector<uint8_t>{0xf0, 0x41}));
}

TEST(Quantize, ZeroTinyAndNotFiniteBlocks) {
  const float inf = std::numeric_limits<float>::infinity(), most = 3e38f;
  for (const QuantCase& c : quant_cases()) {
    SCOPED_TRACE(c.name());
    for (const float v : {0.0f, -0.0f, 1e-40f, 1e-31f}) {
      QuantArray q(c, 2, 40);
      quantize(q.m, std::vector<float>(80, v).data());
      for (float s : q.scales) EXPECT_EQ(s, 0);
      for (float x : values_of(q)) EXPECT_EQ(x, 0);
    }
    for (const float v : {inf, -inf, std::nanf("")}) {
      QuantArray q(c, 1, 32);
      std::vector<float> w(32, 1);
      w[3] = v;
      quantize(q.m, w.data());
      for (float x : values_of(q)) EXPECT_TRUE(std::isnan(x));
    }
    QuantArray q(c, 1, 2);
    quantize(q.m, std::vector<float>{most, -most}.data());
    for (float x : values_of(q)) EXPECT_TRUE(std::isfinite(x)) << x;
  }
}

TEST(Quantize, EveryE4M3CodeComesBack) {
  QuantArray q({"fp8", 128}, 1, 256);
  for (int i = 0; i < 256; ++i) q.codes[static_cast<size_t>(i)] = static_cast<uint8_t>(i);
  q.scales = {1, 1};
  q.m = q.matrix();
  const std::vector<float> got = values_of(q);
  for (int i = 0; i < 256; ++i) {
    const float want = Float8E4M3::from_bits(static_cast<uint8_t>(i));
    if (std::isnan(want))
      EXPECT_TRUE(std::isnan(got[static_cast<size_t>(i)]));
    else
      EXPECT_EQ(std::bit_cast<uint32_t>(got[static_cast<size_t>(i)]), std::bit_cast<uint32_t>(want)) << i;
  }
}

TEST(Quantize, SameBitsForAnyThreads) {
  for (const QuantCase& c : quant_cases()) {
    const int64_t n = 300, k = 300;
    const std::vector<float> w = weights(n, k, 3);
    std::vector<std::vector<uint8_t>> codes;
    for (int threads : {1, 2, 3}) {
      const Threads use(threads);
      QuantArray q(c, n, k);
      quantize(q.m, w.data());
      codes.push_back(q.codes);
    }
    EXPECT_EQ(codes[0], codes[1]);
    EXPECT_EQ(codes[0], codes[2]);
  }
}

TEST(Quantize, Activations) {
  std::vector<int8_t> q(5);
  EXPECT_EQ(quantize_activations(std::vector<float>{127, -127, 0.5f, 1.5f, -2.5f}.data(), 5, q.data()), 1);
  EXPECT_EQ(q, (std::vector<int8_t>{127, -127, 0, 2, -2}));
  EXPECT_EQ(quantize_activations(std::vector<float>(5, 0).data(), 5, q.data()), 0);
  EXPECT_EQ(q, std::vector<int8_t>(5, 0));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    EXPECT_TRUE(std::isnan(quantize_activations(std::vector<float>{1, bad, 3, 4, 5}.data(), 5, q.data())));
    EXPECT_EQ(q, std::vector<int8_t>(5, 0));
  }
  for (const float v : {1e-44f, 1e-38f, 1e-20f, 3e38f}) {
    const float scale = quantize_activations(std::vector<float>{v, -v, 0, v / 2, -v}.data(), 5, q.data());
    EXPECT_NEAR(scale * static_cast<float>(q[0]), v, v / 127 + 3e-39f);
    EXPECT_EQ(q[1], -q[0]);
  }
  EXPECT_EQ(quantize_activations(nullptr, 0, nullptr), 0);
}

}  // namespace
}  // namespace deepseek::kernels
