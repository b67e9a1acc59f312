// kernels/moe_quant against a loop over experts in plain products, bit for bit, and fp8 weights in kernels/moe against
// the weights they stand for.
#include "kernels/moe/moe_quant.h"

#include "kernels/moe/moe.h"
#include "kernels/pointwise/pointwise.h"
#include "runtime/allocator.h"
#include "tests/kernels/quant_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Shape {
  int64_t tokens, dim, hidden, experts, slots, used;  // `used` experts get tokens
};
const Shape kShapes[] = {{1, 1, 1, 1, 1, 1},      {1, 70, 33, 4, 2, 4},    {9, 33, 17, 5, 2, 3},
                         {37, 1031, 45, 5, 2, 5}, {40, 64, 130, 7, 3, 7},  {300, 20, 67, 2, 1, 1},
                         {25, 129, 65, 1, 1, 1},  {30, 40, 1100, 2, 1, 2}, {0, 8, 8, 2, 2, 2}};

// A stack that owns its memory, and its packed form.
struct Stack {
  QuantMatrix m;  // the first
  std::vector<uint8_t> codes, zeros;
  std::vector<float> scales;

  Stack(const QuantCase& c, int64_t count, int64_t n, int64_t k, uint32_t seed) : m{c.format, n, k, c.block} {
    const auto sides = static_cast<size_t>(count * m.scale_rows() * m.blocks());
    codes.resize(static_cast<size_t>(count * n * m.row_bytes()));
    scales.resize(sides);
    if (m.format->has_zeros) zeros.resize(sides);
    m.codes = codes.data(), m.scales = scales.data(), m.zeros = zeros.data();
    Array<float> w({count, n, k});
    fill_normal(w, seed, 1 / std::sqrt(static_cast<double>(k)));
    for (int64_t e = 0; e < count; ++e) quantize(m.of_stack(e), w.begin() + e * n * k);
  }
  Stack(const Stack&) = delete;
};

struct PackedStack {
  Buffer buffer;
  PackedStack(const Stack& s, const PackedQuant& form, int64_t count) : buffer(packed_bytes(form, count)) {
    qgemm_pack(s.m, form, buffer.as<void>(), count);
  }
  PackedStack(const Stack& s, int64_t count) : PackedStack(s, packed_form(s.m, count), count) {}
  const PackedQuant* get() const { return buffer.as<PackedQuant>(); }
};

template <class S>
struct Layer {
  Shape s;
  Stack gate, up, down;
  Array<S> x, out;
  Array<float> weights;
  Array<int64_t> ids;
  Layer(const Shape& shape, const QuantCase& c, const QuantCase& c_down)
      : s(shape),
        gate(c, s.experts, s.hidden, s.dim, 1),
        up(c, s.experts, s.hidden, s.dim, 2),
        down(c_down, s.experts, s.dim, s.hidden, 3),
        x({s.tokens, s.dim}),
        out({s.tokens, s.dim}),
        weights({s.tokens, s.slots}),
        ids({s.tokens, s.slots}) {
    fill_normal(x, 4);
    fill_normal(weights, 5);
    fill_integers(ids, 6, 0, static_cast<int>(s.used) - 1);
  }
  ExpertRows rows() { return sort_by_expert(ids.view(), s.experts); }
  void run() {
    const PackedStack g(gate, s.experts), u(up, s.experts), d(down, s.experts);
    moe_quant_forward({dtype_of<S>, dtype_of<S>, s.tokens, x.begin(), weights.begin(), out.begin()}, rows(),
                      {g.get(), u.get(), d.get()});
  }
  std::vector<S> result() { return {out.begin(), out.begin() + out.numel()}; }
};

// One pair at a time; what an expert gives stays in float until a token's slots are added.
template <class S>
std::vector<S> by_loop(Layer<S>& l) {
  const Shape& s = l.s;
  std::vector<S> out;
  for (int64_t t = 0; t < s.tokens; ++t) {
    std::vector<float> sum(static_cast<size_t>(s.dim), 0.0f);
    for (int64_t k = 0; k < s.slots; ++k) {
      const int64_t e = l.ids[t * s.slots + k];
      Array<S> a({1, s.hidden}), b({1, s.hidden}), h({1, s.hidden});
      Array<float> wide({1, s.hidden}), y({1, s.dim});
      qgemm_plain({dtype_of<S>, 1, l.x.begin() + t * s.dim, s.dim, nullptr, a.begin(), s.hidden}, l.gate.m.of_stack(e));
      qgemm_plain({dtype_of<S>, 1, l.x.begin() + t * s.dim, s.dim, nullptr, b.begin(), s.hidden}, l.up.m.of_stack(e));
      pointwise(Pointwise::kSwiGlu, dtype_of<S>, h.view(), std::array{a.view(), b.view()});
      for (int64_t i = 0; i < s.hidden; ++i) wide[i] = static_cast<float>(h[i]);
      qgemm_plain({DType::kFloat32, 1, wide.begin(), s.hidden, nullptr, y.begin(), s.dim}, l.down.m.of_stack(e));
      for (int64_t i = 0; i < s.dim; ++i) sum[static_cast<size_t>(i)] += y[i] * l.weights[t * s.slots + k];
    }
    for (const float v : sum) out.push_back(static_cast<S>(v));
  }
  return out;
}

template <class S>
bool same_bits(const std::vector<S>& a, const std::vector<S>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(S)) == 0);
}

template <class S>
void expect_is_the_loop() {
  // Each beside itself and beside the next.
  std::vector<std::pair<QuantCase, QuantCase>> formats;
  const std::vector<QuantCase> all = quant_cases(true);
  for (size_t i = 0; i < all.size(); i += 2) {
    formats.emplace_back(all[i], all[i]);
    formats.emplace_back(all[i], all[(i + 1) % all.size()]);
  }
  for_each_target([&] {
    for (const auto& [c, d] : formats)
      for (const Shape& s : kShapes) {
        SCOPED_TRACE(c.name() + " " + d.name() + " " +
                     ::testing::PrintToString(std::array{s.tokens, s.dim, s.hidden, s.experts, s.slots}));
        Layer<S> l(s, c, d);
        const std::vector<S> want = by_loop(l);
        for (const int threads : {1, 2, 3}) {
          const Threads use(threads);
          set_grain_limit(threads > 1 ? 1 : 0);
          std::fill(l.out.begin(), l.out.begin() + l.out.numel(), static_cast<S>(-77));
          l.run();
          set_grain_limit(0);
          EXPECT_TRUE(same_bits(l.result(), want)) << threads << " threads";
        }
      }
  });
}
TEST(MoeQuant, IsTheLoopOverExperts) {
  expect_is_the_loop<float>();
  expect_is_the_loop<BFloat16>();
}

TEST(MoeQuant, ATokenDoesNotDependOnTheOthers) {
  const QuantCase c{"int4", 32};
  const Shape s{100, 300, 70, 4, 2, 4};
  Layer<float> all(s, c, c);
  all.run();
  for (const int64_t count : {1, 2, 7, 19, 40}) {
    Shape part = s;
    part.tokens = count;
    Layer<float> some(part, c, c);
    std::copy(all.x.begin(), all.x.begin() + some.x.numel(), some.x.begin());
    std::copy(all.ids.begin(), all.ids.begin() + some.ids.numel(), some.ids.begin());
    std::copy(all.weights.begin(), all.weights.begin() + some.weights.numel(), some.weights.begin());
    some.run();
    EXPECT_EQ(std::memcmp(some.out.begin(), all.out.begin(), static_cast<size_t>(some.out.numel()) * 4), 0) << count;
  }
}

TEST(MoeQuant, NotFiniteTokensAreNan) {
  const QuantCase c{"int8", 0};
  Layer<float> l({5, 40, 20, 2, 1, 2}, c, c);
  l.x[40 + 3] = std::nanf("");
  l.x[80 + 3] = HUGE_VALF;
  l.run();
  for (int64_t i = 0; i < 5 * 40; ++i) EXPECT_EQ(std::isnan(l.out[i]), i / 40 == 1 || i / 40 == 2);
}

TEST(MoeQuant, NoHiddenFeaturesGiveZeros) {
  const QuantCase c{"int4", 32};
  Layer<float> l({3, 8, 0, 2, 2, 2}, c, c);
  l.run();
  for (int64_t i = 0; i < l.out.numel(); ++i) EXPECT_EQ(l.out[i], 0);
}

// The weights as they are dequantized, in the input's dtype.
template <class S>
void expect_is_dequantized(const QuantCase& c) {
  for_each_target([&] {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(::testing::PrintToString(std::array{s.tokens, s.dim, s.hidden, s.experts, s.slots}));
      Layer<S> l(s, c, c);
      Array<S> gate({s.experts, s.hidden, s.dim}), up({s.experts, s.hidden, s.dim}), down({s.experts, s.dim, s.hidden}),
          want({s.tokens, s.dim});
      const auto fill = [&](Array<S>& to, const Stack& from) {
        for (int64_t e = 0; e < s.experts; ++e)
          dequantize(from.m.of_stack(e), dtype_of<S>, to.begin() + e * from.m.n * from.m.k);
      };
      fill(gate, l.gate), fill(up, l.up), fill(down, l.down);
      const MoeInputs plain{l.x.view(), gate.view(), up.view(), down.view(), l.weights.begin()};
      moe_forward(plain, l.rows(), {plain.input.dtype, want.begin()});
      MoeInputs coded = plain;
      for (View* v : {&coded.gate, &coded.up, &coded.down}) v->data = nullptr;
      coded.codes = {&l.gate.m, &l.up.m, &l.down.m};
      for (const int threads : {1, 3}) {
        const Threads use(threads);
        moe_forward(coded, l.rows(), {coded.input.dtype, l.out.begin()});
        EXPECT_TRUE(same_bits(l.result(), {want.begin(), want.begin() + want.numel()})) << threads << " threads";
      }
    }
  });
}
TEST(MoeQuant, OthersAreTheDequantizedWeight) {
  for (const QuantCase& c : quant_cases(false)) {
    expect_is_dequantized<float>(c);
    expect_is_dequantized<BFloat16>(c);
  }
}

}  // namespace
}  // namespace deepseek::kernels
