// kernels/moe: forward against a loop over experts (the same bits where products are summed as matmul sums them),
// gradients against doubles, and the same bits for any number of threads, on every SIMD target.
#include "kernels/moe/moe.h"

#include <numeric>

#include "kernels/gemm/matmul.h"
#include "kernels/pointwise/pointwise.h"
#include "runtime/allocator.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Shape {
  int64_t tokens, dim, hidden, experts, slots;
  int64_t used;  // experts that get tokens
};
const Shape kShapes[] = {{1, 1, 1, 1, 1, 1},       {1, 70, 33, 4, 2, 4},   {9, 33, 17, 5, 2, 3},
                         {37, 1031, 45, 5, 2, 5},  {40, 64, 130, 7, 3, 7}, {530, 20, 67, 3, 1, 1},
                         {600, 35, 16, 2, 2, 2},   {13, 19, 521, 3, 3, 2}, {25, 129, 65, 1, 1, 1},
                         {100, 1100, 70, 2, 1, 2}, {0, 8, 8, 2, 2, 2}};

template <class S>
struct Layer {
  using C = ComputeType<S>;
  Shape s;
  Array<S> x, gate, up, down, grad, out, gate_rows, up_rows, dx, d_gate, d_up, d_down;
  Array<C> weights, d_weights;
  Array<int64_t> ids;

  explicit Layer(const Shape& shape, int lead = 0)
      : s(shape),
        x({s.tokens, s.dim}, lead),
        gate({s.experts, s.hidden, s.dim}, lead),
        up({s.experts, s.hidden, s.dim}, lead),
        down({s.experts, s.dim, s.hidden}, lead),
        grad({s.tokens, s.dim}, lead),
        out({s.tokens, s.dim}),
        gate_rows({s.tokens * s.slots, s.hidden}),
        up_rows({s.tokens * s.slots, s.hidden}),
        dx({s.tokens, s.dim}),
        d_gate(gate.sizes, lead),
        d_up(up.sizes, lead),
        d_down(down.sizes, lead),
        weights({s.tokens, s.slots}),
        d_weights({s.tokens, s.slots}),
        ids({s.tokens, s.slots}) {
    const double scale = 1 / std::sqrt(static_cast<double>(s.dim));
    fill_normal(x, 1);
    fill_normal(gate, 2, scale);
    fill_normal(up, 3, scale);
    fill_normal(down, 4, 1 / std::sqrt(static_cast<double>(s.hidden)));
    fill_normal(weights, 5);
    fill_normal(grad, 6);
    fill_integers(ids, 7, 0, static_cast<int>(s.used) - 1);
  }
  MoeInputs inputs() { return {x.view(), gate.view(), up.view(), down.view(), weights.begin()}; }
  ExpertRows rows() { return sort_by_expert(ids.view(), s.experts); }
  void forward(const MoeInputs& in) {
    moe_forward(in, rows(), {in.input.dtype, out.begin(), gate_rows.begin(), up_rows.begin()});
  }
  void backward(const MoeInputs& in, const View& g) {
    moe_backward(in, rows(), gate_rows.begin(), up_rows.begin(), g,
                 {dx.begin(), d_gate.begin(), d_up.begin(), d_down.begin(), d_weights.begin()});
  }
  void run() {
    forward(inputs());
    backward(inputs(), grad.view());
  }
  // The bytes of everything that run() writes.
  std::string bits() {
    std::string all;
    const auto add = [&](auto& a) {
      all.append(reinterpret_cast<const char*>(a.begin()), static_cast<size_t>(a.numel()) * sizeof(a[0]));
    };
    add(out), add(gate_rows), add(up_rows), add(dx), add(d_gate), add(d_up), add(d_down), add(d_weights);
    return all;
  }
};

View expert_of(View stacked, int64_t e) {
  stacked.data = stacked.at(e * stacked.strides[0]);
  stacked.sizes.erase(0), stacked.strides.erase(0);
  return stacked;
}

// One expert at a time with the dense kernels; a token's slots in order.
template <class S>
std::vector<S> by_loop(Layer<S>& l) {
  using C = ComputeType<S>;
  const Shape& s = l.s;
  Array<S> pairs({s.tokens * s.slots, s.dim});
  for (int64_t t = 0; t < s.tokens; ++t)
    for (int64_t k = 0; k < s.slots; ++k) {
      const int64_t e = l.ids[t * s.slots + k];
      Array<S> a({1, s.hidden}), b({1, s.hidden}), h({1, s.hidden});
      View row = l.x.view();
      row.data = row.at(t * s.dim), row.sizes[0] = 1;
      matmul(a.view(), row, transposed(expert_of(l.gate.view(), e), 0, 1));
      matmul(b.view(), row, transposed(expert_of(l.up.view(), e), 0, 1));
      pointwise(Pointwise::kSwiGlu, dtype_of<S>, h.view(), std::array{a.view(), b.view()});
      View to{pairs.begin() + (t * s.slots + k) * s.dim, dtype_of<S>, {1, s.dim}, {s.dim, 1}};
      matmul(to, h.view(), transposed(expert_of(l.down.view(), e), 0, 1));
    }
  std::vector<S> out;
  for (int64_t t = 0; t < s.tokens; ++t)
    for (int64_t i = 0; i < s.dim; ++i) {
      C sum = 0;
      for (int64_t k = 0; k < s.slots; ++k)
        sum += static_cast<C>(pairs[(t * s.slots + k) * s.dim + i]) * l.weights[t * s.slots + k];
      out.push_back(static_cast<S>(sum));
    }
  return out;
}

template <class T>
void expect_close(const Array<T>& got, const std::vector<double>& want, double tolerance, const char* what) {
  double scale = 1e-30, worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    scale = std::max(scale, std::abs(want[i]));
    worst = std::max(worst, std::abs(static_cast<double>(got[static_cast<int64_t>(i)]) - want[i]));
  }
  EXPECT_LE(worst, tolerance * scale) << what;
}

// Gradients in double, from the values as they are stored.
template <class S>
void expect_gradients(Layer<S>& l, double tolerance) {
  const Shape& s = l.s;
  const auto zeros = [](int64_t n) { return std::vector<double>(static_cast<size_t>(n)); };
  std::vector<double> dx = zeros(l.x.numel()), dg = zeros(l.gate.numel()), du = zeros(l.up.numel()),
                      dd = zeros(l.down.numel()), dw = zeros(l.weights.numel());
  const auto at = [](const Array<S>& a, int64_t i) { return static_cast<double>(a[i]); };
  for (int64_t p = 0; p < l.ids.numel(); ++p) {
    const int64_t t = p / s.slots, e = l.ids[p];
    const double w = static_cast<double>(l.weights[p]);
    for (int64_t f = 0; f < s.hidden; ++f) {
      double a = 0, b = 0, r = 0;
      for (int64_t i = 0; i < s.dim; ++i) {
        a += at(l.x, t * s.dim + i) * at(l.gate, (e * s.hidden + f) * s.dim + i);
        b += at(l.x, t * s.dim + i) * at(l.up, (e * s.hidden + f) * s.dim + i);
        r += at(l.grad, t * s.dim + i) * at(l.down, (e * s.dim + i) * s.hidden + f);
      }
      const double sig = 1 / (1 + std::exp(-a)), h = a * sig * b;
      const double da = w * r * b * sig * (1 + a * (1 - sig)), db = w * r * a * sig;
      dw[static_cast<size_t>(p)] += r * h;
      for (int64_t i = 0; i < s.dim; ++i) {
        const auto in = static_cast<size_t>((e * s.hidden + f) * s.dim + i);
        dx[static_cast<size_t>(t * s.dim + i)] +=
            da * at(l.gate, static_cast<int64_t>(in)) + db * at(l.up, static_cast<int64_t>(in));
        dg[in] += da * at(l.x, t * s.dim + i);
        du[in] += db * at(l.x, t * s.dim + i);
        dd[static_cast<size_t>((e * s.dim + i) * s.hidden + f)] += w * h * at(l.grad, t * s.dim + i);
      }
    }
  }
  expect_close(l.dx, dx, tolerance, "input");
  expect_close(l.d_gate, dg, tolerance, "gate");
  expect_close(l.d_up, du, tolerance, "up");
  expect_close(l.d_down, dd, tolerance, "down");
  expect_close(l.d_weights, dw, tolerance, "weights");
}

template <class S>
constexpr double kTolerance = std::is_same_v<S, double>  ? 1e-13
                              : std::is_same_v<S, float> ? 1e-5
                              : std::is_same_v<S, Half>  ? 4e-3
                                                         : 3e-2;

template <class S>
class MoeTest : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Half>;
TYPED_TEST_SUITE(MoeTest, Types);

TYPED_TEST(MoeTest, ForwardIsTheLoopOverExperts) {
  using S = TypeParam;
  for_each_target([] {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(::testing::PrintToString(std::array{s.tokens, s.dim, s.hidden, s.experts, s.slots, s.used}));
      Layer<S> l(s, 1);
      l.forward(l.inputs());
      const std::vector<S> want = by_loop(l);
      if (!is_small_float<S> && s.tokens > 0)
        EXPECT_EQ(std::memcmp(l.out.begin(), want.data(), want.size() * sizeof(S)), 0);
      else
        expect_close(l.out, {want.begin(), want.end()}, kTolerance<S>, "out");
    }
  });
}

TYPED_TEST(MoeTest, Gradients) {
  using S = TypeParam;
  for_each_target([] {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(::testing::PrintToString(std::array{s.tokens, s.dim, s.hidden, s.experts, s.slots, s.used}));
      Layer<S> l(s, 1);
      l.run();
      expect_gradients(l, kTolerance<S>);
    }
  });
}

TYPED_TEST(MoeTest, SameBitsForAnyThreadsAndLayout) {
  using S = TypeParam;
  for_each_target([] {
    for (const Shape& s : kShapes) {
      const int before = num_threads();
      set_num_threads(1);
      Layer<S> one(s);
      one.run();
      for (const int threads : {2, 3}) {
        set_num_threads(threads);
        set_grain_limit(1);
        Layer<S> more(s, 3);
        more.run();
        EXPECT_EQ(one.bits(), more.bits()) << threads << " threads";
        set_grain_limit(0);
      }
      set_num_threads(before);
      if (s.tokens == 0) continue;
      // Weights stored the other way round, rows and ids with gaps.
      Layer<S> other(s);
      const auto swapped = [](Array<S>& a) {
        Array<S> stored({a.sizes[0], a.sizes[2], a.sizes[1]});
        View v = transposed(stored.view(), 1, 2);
        for (int64_t i = 0; i < a.numel(); ++i) {
          const int64_t e = i / (a.sizes[1] * a.sizes[2]), r = i / a.sizes[2] % a.sizes[1], c = i % a.sizes[2];
          v.template as<S>()[e * v.strides[0] + r * v.strides[1] + c * v.strides[2]] = a[i];
        }
        return stored;
      };
      Array<S> gate = swapped(other.gate), up = swapped(other.up), down = swapped(other.down);
      const auto spread = [](auto& a) {
        auto wide = std::remove_reference_t<decltype(a)>({a.sizes[0], 2 * a.sizes[1]});
        for (int64_t i = 0; i < a.numel(); ++i) wide[2 * i] = a[i];
        return wide;
      };
      auto x = spread(other.x), grad = spread(other.grad);
      const MoeInputs in{sliced(x.view(), 1, 2), transposed(gate.view(), 1, 2), transposed(up.view(), 1, 2),
                         transposed(down.view(), 1, 2), other.weights.begin()};
      other.forward(in);
      other.backward(in, sliced(grad.view(), 1, 2));
      EXPECT_EQ(one.bits(), other.bits()) << "strided";
    }
  });
}

TEST(Moe, ATokenDoesNotDependOnTheOthers) {
  const Shape s{100, 600, 70, 4, 2, 4};
  Layer<float> all(s);
  all.run();
  for (const int64_t count : {1, 2, 7, 19, 40}) {
    Shape part = s;
    part.tokens = count;
    Layer<float> some(part);
    std::copy(all.x.begin(), all.x.begin() + some.x.numel(), some.x.begin());
    std::copy(all.ids.begin(), all.ids.begin() + some.ids.numel(), some.ids.begin());
    std::copy(all.weights.begin(), all.weights.begin() + some.weights.numel(), some.weights.begin());
    std::copy(all.grad.begin(), all.grad.begin() + some.grad.numel(), some.grad.begin());
    some.run();
    const auto same = [](auto& a, auto& b) {
      return std::memcmp(a.begin(), b.begin(), static_cast<size_t>(a.numel()) * sizeof(a[0])) == 0;
    };
    EXPECT_TRUE(same(some.out, all.out) && same(some.dx, all.dx) && same(some.d_weights, all.d_weights)) << count;
  }
}

// Large gradients are written past the caches where they are aligned, as tensors are: the same bits as others.
template <class S>
void expect_large_as_small() {
  Layer<S> l({24, 1024, 1088, 9, 1, 1}, 1);
  l.run();
  const size_t bytes = static_cast<size_t>(l.gate.numel()) * sizeof(S);
  Buffer gate(bytes), up(bytes), down(bytes);
  moe_backward(l.inputs(), l.rows(), l.gate_rows.begin(), l.up_rows.begin(), l.grad.view(),
               {.gate = gate.as<S>(), .up = up.as<S>(), .down = down.as<S>()});
  const auto unaligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 64 != 0; };
  EXPECT_TRUE(unaligned(l.d_gate.begin()) && unaligned(l.d_up.begin()) && unaligned(l.d_down.begin()));
  EXPECT_EQ(std::memcmp(gate.as<S>(), l.d_gate.begin(), bytes), 0);
  EXPECT_EQ(std::memcmp(up.as<S>(), l.d_up.begin(), bytes), 0);
  EXPECT_EQ(std::memcmp(down.as<S>(), l.d_down.begin(), bytes), 0);
  for (int64_t i = l.gate.numel() / 9; i < l.gate.numel(); ++i) ASSERT_EQ(static_cast<float>(l.d_gate[i]), 0);
}
TEST(Moe, LargeGradientsAreStreamed) {
  for_each_target([] {
    expect_large_as_small<float>();
    expect_large_as_small<BFloat16>();
  });
}

TEST(Moe, SomeGradients) {
  Layer<float> all(kShapes[2]), some(kShapes[2]);
  all.run();
  some.forward(some.inputs());
  const auto only = [&](const MoeGradients& to) {
    moe_backward(some.inputs(), some.rows(), some.gate_rows.begin(), some.up_rows.begin(), some.grad.view(), to);
  };
  only({.input = some.dx.begin()});
  only({.gate = some.d_gate.begin(), .up = some.d_up.begin()});
  only({.down = some.d_down.begin()});
  only({.weights = some.d_weights.begin()});
  EXPECT_EQ(all.bits(), some.bits());
}

TEST(Moe, SlotsWithoutAnExpertAddNothing) {
  Layer<float> none({37, 40, 60, 5, 5, 3}), zero({37, 40, 60, 5, 5, 3});
  for (int64_t p = 0; p < none.ids.numel(); p += 2) {
    none.ids[p] = -1;
    zero.weights[p] = 0;
  }
  fill_normal(none.out, 9);
  none.run();
  zero.run();
  const auto same = [](auto& a, auto& b) {
    for (int64_t i = 0; i < a.numel(); ++i) ASSERT_EQ(a[i], b[i]) << i;
  };
  same(none.out, zero.out);
  same(none.dx, zero.dx);
  for (int64_t p = 0; p < none.ids.numel(); ++p) EXPECT_EQ(none.d_weights[p], p % 2 ? zero.d_weights[p] : 0.0f);
}

TEST(Moe, SortsPairsByExpert) {
  Array<int64_t> ids({4, 2});
  const int64_t values[] = {2, 0, 2, 2, 0, 1, 4, 0};
  std::copy(values, values + 8, ids.begin());
  const ExpertRows r = sort_by_expert(ids.view(), 6);
  EXPECT_EQ(r.offset, (std::vector<int64_t>{0, 3, 4, 7, 7, 8, 8}));
  EXPECT_EQ(r.pair, (std::vector<int64_t>{1, 4, 7, 5, 0, 2, 3, 6}));
  EXPECT_EQ(r.token, (std::vector<int64_t>{0, 2, 3, 2, 0, 1, 1, 3}));
  EXPECT_EQ(sort_by_expert(transposed(ids.view(), 0, 1), 6).pair[0], 2);
  EXPECT_THROW(sort_by_expert(ids.view(), 4), IndexError);
  ids[3] = -1;
  const ExpertRows some = sort_by_expert(ids.view(), 6);
  EXPECT_EQ(some.offset, (std::vector<int64_t>{0, 3, 4, 6, 6, 7, 7}));
  EXPECT_EQ(some.pair, (std::vector<int64_t>{1, 4, 7, 5, 0, 2, 6}));
  EXPECT_EQ(some.empty, (std::vector<int64_t>{3}));
  EXPECT_EQ(some.pairs(), 8);
  ids[3] = -2;
  EXPECT_THROW(sort_by_expert(ids.view(), 6), IndexError);
}

TEST(Moe, UnitsCoverEveryRowAndPanelOnce) {
  ExpertRows rows;
  rows.experts = 4;
  rows.offset = {0, 1000, 1000, 1003, 1050};
  rows.pair.resize(1050);
  for (const int64_t panels : {1, 5, 40}) {
    std::vector<ExpertUnit> units;
    add_units(units, 0, rows, {panels, 64, 480, 16});
    sort_by_cost(units);
    std::vector<int> seen(static_cast<size_t>(1050 * panels));
    for (const ExpertUnit& u : units) {
      EXPECT_LE(u.rows, 480);
      EXPECT_LE(u.panels, 16);
      for (int64_t r = u.row0; r < u.row0 + u.rows; ++r)
        for (int64_t p = u.panel0; p < u.panel0 + u.panels; ++p) ++seen[static_cast<size_t>(r * panels + p)];
      EXPECT_LE(rows.offset[static_cast<size_t>(u.expert)], u.row0);
      EXPECT_LE(u.row0 + u.rows, rows.offset[static_cast<size_t>(u.expert) + 1]);
    }
    EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), 0), 1050 * panels);
    EXPECT_EQ(*std::max_element(seen.begin(), seen.end()), 1);
  }
}

}  // namespace
}  // namespace deepseek::kernels
