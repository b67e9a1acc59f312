// Products with quantized weights against plain loops, bit for bit.
#include "kernels/quant/qgemm.h"

#include "kernels/quant/qgemm_tile.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"
#include "tests/kernels/quant_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Packing {
  PackedQuant form;
  Buffer buffer;
  explicit Packing(const QuantMatrix& q) : form(packed_form(q)), buffer(packed_bytes(form)) {
    qgemm_pack(q, form, buffer.as<void>());
  }
  const PackedQuant& get() const { return *buffer.as<PackedQuant>(); }
};

// Any codes, scales that fit float16 or do not, any zero points.
QuantArray& randomize(QuantArray& q, uint32_t seed, bool half) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
  for (uint8_t& c : q.codes) c = static_cast<uint8_t>(engine());
  if (q.m.format->per_byte == 2 && q.m.k % 2)  // the half byte behind the last code is zero
    for (int64_t i = 0; i < q.m.n; ++i) q.codes[static_cast<size_t>((i + 1) * q.m.row_bytes() - 1)] &= 15;
  const std::vector<std::vector<float>> values = values_of_bytes(*q.m.format);
  for (uint8_t& c : q.codes)
    if (std::isnan(values[c][0])) c = 0;
  for (float& s : q.scales) s = half ? static_cast<float>(Half(uniform(engine))) : uniform(engine);
  for (uint8_t& z : q.zeros) z = engine() % 16;
  return q;
}

template <class T>
std::vector<T> activations(int64_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<T> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(static_cast<T>(normal(engine)));
  return x;
}

template <class T>
struct Product {
  int64_t m, n, k;
  std::vector<T> x, out;
  std::vector<float> bias;
  QGemm g;
  // Rows of x and out lie `gap` elements apart from where the last one ended, and begin off alignment.
  Product(int64_t m, int64_t n, int64_t k, bool with_bias, int64_t gap = 0, uint32_t seed = 1)
      : m(m), n(n), k(k), x(activations<T>(m * (k + gap) + 1, seed)) {
    for (const T& b : activations<T>(n, seed + 1)) bias.push_back(static_cast<float>(b));
    out.assign(static_cast<size_t>(m * (n + gap) + 1), static_cast<T>(-77));
    g = {dtype_of<T>, m, x.data() + 1, k + gap, with_bias ? bias.data() : nullptr, out.data() + 1, n + gap};
  }
  Product(const Product&) = delete;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void expect_equals_plain(const QuantCase& c, int64_t m, int64_t n, int64_t k, uint32_t seed) {
  SCOPED_TRACE(c.name() + " " + name_of(dtype_of<T>) + " " + std::to_string(m) + "x" + std::to_string(n) + "x" +
               std::to_string(k));
  QuantArray q(c, n, k);
  randomize(q, seed, seed % 2 == 0);
  const Packing p(q.m);
  EXPECT_EQ(p.get().half_scales, seed % 2 == 0 || q.scales.empty());
  const bool with_bias = seed % 3 != 0;
  const int64_t gap = seed % 4;
  Product<T> plain(m, n, k, with_bias, gap, seed);
  qgemm_plain(plain.g, q.m);
  for (int threads : {1, 2, 3}) {
    const Threads use(threads);
    Product<T> fast(m, n, k, with_bias, gap, seed);
    qgemm(fast.g, p.get());
    EXPECT_TRUE(same_bits(plain.out, fast.out)) << threads << " threads";
  }
}

std::vector<QuantCase> integer_cases() { return quant_cases(true); }

TEST(Qgemm, EqualsPlainLoops) {
  std::mt19937 engine(5);
  uint32_t seed = 0;
  for (const QuantCase& c : integer_cases()) {
    for (const int64_t m : {1, 2, 3, 7, 10, 11, 21}) expect_equals_plain<float>(c, m, 37, 200, ++seed);
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                  {2, 16, 32},
                                  {3, 17, 33},
                                  {5, 15, 31},
                                  {12, 1, 2100},
                                  {2, 300, 1},
                                  {25, 33, 1057},
                                  {4, 16, 4096}})
      expect_equals_plain<float>(c, m, n, k, ++seed);
    for (int i = 0; i < 6; ++i) {
      const int64_t m = 1 + engine() % 30, n = 1 + engine() % 70, k = 1 + engine() % 700;
      expect_equals_plain<float>(c, m, n, k, ++seed);
      expect_equals_plain<BFloat16>(c, m, n, k, ++seed);
    }
  }
}

TEST(Qgemm, ManyRowsAreCutIntoBlocks) {
  expect_equals_plain<float>({"int4", 32}, 483, 33, 64, 2);
  expect_equals_plain<BFloat16>({"int8", 0}, 1000, 5, 40, 3);
}

// Codes and activations at their ends: nothing saturates or overflows, however long the row.
TEST(Qgemm, ExtremesAreExact) {
  for (const QuantCase& c : integer_cases())
    for (const int64_t k : {128, 5000}) {
      SCOPED_TRACE(c.name());
      const int64_t n = 18;
      QuantArray q(c, n, k);
      const std::vector<std::vector<float>> values = values_of_bytes(*c.format);
      const auto lowest = std::ranges::min_element(values) - values.begin();
      const auto highest = std::ranges::max_element(values) - values.begin();
      for (int64_t i = 0; i < n; ++i)
        for (int64_t b = 0; b < q.m.row_bytes(); ++b)
          q.codes[static_cast<size_t>(i * q.m.row_bytes() + b)] = static_cast<uint8_t>(i % 2 ? highest : lowest);
      std::fill(q.scales.begin(), q.scales.end(), 1.0f);
      std::fill(q.zeros.begin(), q.zeros.end(), uint8_t{0});
      const Packing p(q.m);
      Product<float> fast(3, n, k, false), plain(3, n, k, false);
      for (Product<float>* each : {&fast, &plain})
        for (int64_t i = 0; i < 3 * k; ++i) each->x[static_cast<size_t>(1 + i)] = i / k == 1 ? -127.0f : 127.0f;
      qgemm(fast.g, p.get());
      qgemm_plain(plain.g, q.m);
      EXPECT_TRUE(same_bits(fast.out, plain.out));
      for (const int64_t i : {0, 1}) {
        const double code = values[static_cast<size_t>(i ? highest : lowest)][0];
        EXPECT_EQ(fast.out[static_cast<size_t>(1 + i)], static_cast<float>(127.0 * code * static_cast<double>(k)));
      }
    }
}

TEST(Qgemm, ARowDoesNotDependOnTheOthers) {
  for (const QuantCase& c : integer_cases()) {
    SCOPED_TRACE(c.name());
    const int64_t m = 23, n = 40, k = 333;
    QuantArray q(c, n, k);
    randomize(q, 9, true);
    const Packing p(q.m);
    Product<float> all(m, n, k, true), some(m, n, k, true);
    qgemm(all.g, p.get());
    for (const int64_t rows : {1, 2, 5, 11, 22}) {
      some.g.m = rows;
      qgemm(some.g, p.get());
      EXPECT_EQ(std::memcmp(some.out.data() + 1, all.out.data() + 1, static_cast<size_t>(rows * n) * 4), 0) << rows;
    }
  }
}

TEST(Qgemm, EmptyShapes) {
  const QuantCase c{"int4", 32};
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 5, 7}, {3, 0, 7}, {3, 5, 0}}) {
    QuantArray q(c, n, k);
    randomize(q, 1, true);
    const Packing p(q.m);
    Product<float> r(m, n, k, true);
    qgemm(r.g, p.get());
    for (int64_t i = 0; i < m * n; ++i)
      EXPECT_EQ(r.out[static_cast<size_t>(1 + i)], r.bias[static_cast<size_t>(i % n)]);
  }
}

float plain_activation(std::optional<Pointwise> a, float x) {
  constexpr double kSqrtHalf = 0.70710678118654752, kTanhScale = 0.79788456080286536;
  const double v = x;
  if (!a) return x;
  switch (*a) {
    case Pointwise::kRelu:
      return x < 0 ? 0 : x;
    case Pointwise::kGeluErf:
      return static_cast<float>(0.5 * v * (1 + std::erf(v * kSqrtHalf)));
    case Pointwise::kGeluTanh:
      return static_cast<float>(0.5 * v * (1 + std::tanh(kTanhScale * (v + 0.044715 * v * v * v))));
    case Pointwise::kSilu:
      return static_cast<float>(v / (1 + std::exp(-v)));
    case Pointwise::kSigmoid:
      return static_cast<float>(1 / (1 + std::exp(-v)));
    case Pointwise::kTanh:
      return static_cast<float>(std::tanh(v));
    default:  // a new one: what it is defined by
      Array<float> one({1});
      one[0] = x;
      pointwise(*a, DType::kFloat32, one.view(), std::array{one.view()});
      return one[0];
  }
}

// Against the product alone, then the activation and the residual in turn, each rounded.
template <class T>
void expect_epilogue(const QuantCase& c, std::optional<Pointwise> a, bool with_residual) {
  SCOPED_TRACE(c.name() + " " + name_of(dtype_of<T>) + " activation " + std::to_string(a ? static_cast<int>(*a) : -1));
  const int64_t m = 13, n = 75, k = 140;
  QuantArray q(c, n, k);
  randomize(q, 3, true);
  const auto run = [&](const QGemm& g) { c.format->packed ? qgemm(g, Packing(q.m).get()) : qgemm_dequantized(g, q.m); };
  Product<T> alone(m, n, k, true, 3), fused(m, n, k, true, 3);
  run(alone.g);
  const std::vector<T> residual = activations<T>(m * (n + 1), 8);
  fused.g.activation = a;
  if (with_residual) fused.g.residual = residual.data(), fused.g.residual_row = n + 1;
  run(fused.g);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<size_t>(1 + i * (n + 3) + j);
      const T y = static_cast<T>(plain_activation(a, static_cast<float>(alone.out[at])));
      const float r = with_residual ? static_cast<float>(residual[static_cast<size_t>(i * (n + 1) + j)]) : 0;
      const float want = static_cast<float>(static_cast<T>(static_cast<float>(y) + r));
      const float tolerance = !a || a == Pointwise::kRelu ? 0 : is_small_float<T> ? 8e-3f : 1e-6f;
      ASSERT_NEAR(static_cast<float>(fused.out[at]), want, tolerance * (1 + std::abs(want)) * (1 + std::abs(r)))
          << i << ", " << j;
    }
}
TEST(Qgemm, ActivationAndResidual) {
  std::vector<std::optional<Pointwise>> all{std::nullopt};
  for (const Activation& a : kActivations) all.push_back(a.op);
  for_each_target([&] {
    for (const QuantFormat& f : quant_formats())
      for (const std::optional<Pointwise> a : all)
        for (const bool residual : {false, true}) {
          expect_epilogue<float>({f, f.blocks[0]}, a, residual);
          expect_epilogue<BFloat16>({f, f.blocks[0]}, a, residual);
        }
  });
}

TEST(Qgemm, NotFiniteRowsAreNan) {
  QuantArray q({"int8", 32}, 20, 64);
  randomize(q, 1, true);
  const Packing p(q.m);
  Product<float> r(4, 20, 64, true);
  r.x[1 + 64 + 5] = std::nanf("");
  r.x[1 + 128 + 5] = HUGE_VALF;
  qgemm(r.g, p.get());
  for (int64_t i = 0; i < 80; ++i) EXPECT_EQ(std::isnan(r.out[static_cast<size_t>(1 + i)]), i / 20 == 1 || i / 20 == 2);
}

TEST(Qgemm, UnpackIsTheInverseOfPack) {
  uint32_t seed = 0;
  for (const QuantCase& c : integer_cases())
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {16, 32}, {35, 77}, {20, 1500}, {3, 130}}) {
      QuantArray q(c, n, k), back(c, n, k);
      ++seed;
      randomize(q, seed, seed % 2 == 0);
      const Packing p(q.m);
      qgemm_unpack(p.get(), back.m);
      EXPECT_EQ(q.codes, back.codes) << c.name();
      EXPECT_EQ(q.scales, back.scales) << c.name();
      EXPECT_EQ(q.zeros, back.zeros) << c.name();
    }
}

// The kernels themselves, whatever the CPU prefers.
TEST(Qgemm, Avx2AndVnniTilesAgree) {
  if (!cpu_features().avx512_vnni) GTEST_SKIP() << "no AVX-512 VNNI";
  std::mt19937 engine(11);
  for (const QuantCase& c : integer_cases())
    for (int64_t rows = 1; rows <= kQTileRows; ++rows) {
      QuantArray q(c, 16, 230);
      randomize(q, static_cast<uint32_t>(rows), rows % 2);
      const Packing p(q.m);
      std::vector<int32_t> x(static_cast<size_t>(p.get().steps() * 8 * rows)), start;
      for (int32_t& word : x)
        for (int b = 0; b < 4; ++b) reinterpret_cast<int8_t*>(&word)[b] = static_cast<int8_t>(engine() % 255) - 127;
      for (int64_t i = 0; i < p.get().blocks() * rows; ++i)
        start.push_back(static_cast<int32_t>(engine() % 4000) - 2000);
      std::vector<float> one(static_cast<size_t>(rows * 16), 3), other = one;
      for (const bool first : {true, false}) {
        QTile t{&p.get(), rows, p.get().steps(), x.data(), start.data(), p.get().panel(0), one.data(), 16, first};
        qtile_vnni(p.get(), rows)(t);
        t.sums = other.data();
        qtile_avx2(p.get(), rows)(t);
        EXPECT_TRUE(same_bits(one, other)) << c.name() << ", " << rows << " rows";
      }
    }
}

template <class T>
void expect_near(const QuantCase& c, int64_t m, int64_t n, int64_t k, double tolerance) {
  QuantArray q(c, n, k);
  randomize(q, 4, false);
  std::vector<float> w(static_cast<size_t>(n * k));
  dequantize(q.m, DType::kFloat32, w.data());
  Product<T> r(m, n, k, true, 3);
  qgemm_dequantized(r.g, q.m);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = r.bias[static_cast<size_t>(j)], most = 1;
      for (int64_t l = 0; l < k; ++l) {
        const double term =
            static_cast<double>(r.x[static_cast<size_t>(1 + i * (k + 3) + l)]) * w[static_cast<size_t>(j * k + l)];
        sum += term, most += std::abs(term);
      }
      ASSERT_NEAR(r.out[static_cast<size_t>(1 + i * (n + 3) + j)], sum, tolerance * most) << i << ", " << j;
    }
  for (int threads : {1, 2, 3}) {
    const Threads use(threads);
    Product<T> again(m, n, k, true, 3);
    qgemm_dequantized(again.g, q.m);
    EXPECT_TRUE(same_bits(r.out, again.out)) << threads;
  }
}
TEST(Qgemm, OfDequantizedWeights) {
  for (const QuantCase& c : quant_cases(false))
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 130, 257}, {3, 64, 128}, {33, 7, 300}, {1, 1, 1}}) {
      expect_near<float>(c, m, n, k, 1e-6);
      expect_near<BFloat16>(c, m, n, k, 8e-3);
    }
}

}  // namespace
}  // namespace deepseek::kernels
