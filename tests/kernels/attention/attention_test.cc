// attention.h against its slow twin in double, and bits that must not depend on how the work is cut.
#include "kernels/attention/attention.h"

#include "kernels/attention/attention_plain.h"
#include "tests/kernels/attention/attention_testing.h"

namespace deepseek::kernels {
namespace {
using namespace attention_testing;

// The rounding of weights and results.
template <class T>
constexpr double kTolerance = std::is_same_v<T, float>  ? 4e-6
                              : std::is_same_v<T, Half> ? 4e-3
                                                        : 3e-2;

template <class T>
void expect_as_plain() {
  for (const Case& c : cases()) {
    std::ostringstream name;
    name << c;
    SCOPED_TRACE(name.str());
    for (const int lead : {0, 1}) {
      Problem<T> p(c, lead);
      Array<float> out(p.out.sizes), lse(p.lse.sizes);
      attention_forward_plain(p.args(), out.view(), lse.view());
      attention_forward(p.args(), p.out.view(), p.lse.view());
      expect_near(values_of(p.out.view()), values_of(out.view()), kTolerance<T>, "out");
      expect_near(values_of(p.lse.view()), values_of(lse.view()), 4e-6, "lse");
    }
  }
}

TEST(Attention, EqualsPlain) {
  for_each_target([] {
    expect_as_plain<float>();
    expect_as_plain<BFloat16>();
    expect_as_plain<Half>();
  });
}

template <class T>
void expect_bits_of_threads() {
  for (const Case& c : cases()) {
    Problem<T> p(c);
    attention_forward(p.args(), p.out.view(), p.lse.view());
    const auto out = p.out.data;
    const auto lse = p.lse.data;
    const int before = num_threads();
    set_grain_limit(1);
    for (const int threads : {1, 2, 5}) {
      set_num_threads(threads);
      attention_forward(p.args(), p.out.view(), p.lse.view());
      EXPECT_EQ(std::memcmp(out.data(), p.out.data.data(), out.size() * sizeof(T)), 0) << threads << " threads: " << c;
      EXPECT_EQ(std::memcmp(lse.data(), p.lse.data.data(), lse.size() * 4), 0) << threads << " threads: " << c;
    }
    set_num_threads(before);
    set_grain_limit(0);
  }
}

TEST(Attention, BitsDoNotDependOnThreads) {
  for_each_target([] {
    expect_bits_of_threads<float>();
    expect_bits_of_threads<BFloat16>();
  });
}

// One query, with the cache cut behind its position, gives the row of the whole sequence.
template <class T>
void expect_decode_as_prefill(const Case& c) {
  Problem<T> p(c);
  attention_forward(p.args(), p.out.view(), p.lse.view());
  for (const int64_t i : {int64_t{0}, int64_t{1}, c.queries / 2, c.queries - 1}) {
    Attention a = p.args();
    a.query_start = c.start + i;
    a.q.data = a.q.at(i * a.q.strides[2]);
    a.q.sizes[2] = 1;
    a.k.sizes[2] = a.v.sizes[2] = std::min(c.keys, c.start + i + 1);
    for (const bool causal : {true, false}) {  // every key is seen, so the mask says nothing
      a.causal = causal;
      Array<T> out({c.batch, c.heads, 1, c.dv});
      Array<float> lse({c.batch, c.heads, 1});
      for (const int threads : {1, 2}) {
        set_num_threads(threads);
        attention_forward(a, out.view(), lse.view());
        for (int64_t r = 0; r < c.batch * c.heads; ++r)
          EXPECT_EQ(
              std::memcmp(&out[r * c.dv], &p.out[(r * c.queries + i) * c.dv], static_cast<size_t>(c.dv) * sizeof(T)), 0)
              << "query " << i << " of " << c << " head " << r;
      }
    }
  }
}

TEST(Attention, OneQueryHasTheBitsOfItsRowInTheWhole) {
  const int before = num_threads();
  for_each_target([] {
    for (const Case& c : std::vector<Case>{
             {.queries = 93, .causal = true},
             {.heads = 8, .queries = 1100, .keys = 1100, .d = 32, .dv = 32, .causal = true},
             {.batch = 1, .heads = 3, .key_heads = 1, .queries = 700, .keys = 1500, .causal = true, .start = 800},
             {.queries = 600, .keys = 600, .causal = true, .window = 70, .sinks = true},
             {.queries = 200, .keys = 200, .causal = true, .softcap = 3},
             {.batch = 1, .heads = 7, .key_heads = 1, .queries = 70, .keys = 140, .d = 35, .causal = true, .start = 70},
             {.batch = 1, .heads = 1, .key_heads = 1, .queries = 70, .keys = 140, .d = 96, .causal = true, .start = 70},
             {.batch = 1, .heads = 12, .key_heads = 1, .queries = 70, .keys = 70, .d = 80, .dv = 96, .causal = true}}) {
      expect_decode_as_prefill<float>(c);
      expect_decode_as_prefill<BFloat16>(c);
      expect_decode_as_prefill<Half>(c);
    }
  });
  set_num_threads(before);
}

template <class T>
struct Gradients {
  Array<T> grad, dq, dk, dv;
  Array<float> delta;

  explicit Gradients(const Problem<T>& p)
      : grad(p.out.sizes), dq(p.q.sizes), dk(p.k.sizes), dv(p.v.sizes), delta(p.lse.sizes) {
    fill_normal(grad, 7);
  }
  void run(Problem<T>& p) {
    attention_delta(grad.view(), p.out.view(), {}, delta.view());
    attention_backward(p.args(), grad.view(), p.lse.view(), delta.view(), dq.view(), dk.view(), dv.view());
  }
};

double largest(const std::vector<double>& values) {
  double most = 1;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

template <class T>
void expect_gradients_as_plain() {
  for (const Case& c : cases()) {
    std::ostringstream name;
    name << c;
    SCOPED_TRACE(name.str());
    Problem<T> p(c);
    attention_forward(p.args(), p.out.view(), p.lse.view());
    Gradients<T> g(p);
    g.run(p);
    Array<float> dq(p.q.sizes), dk(p.k.sizes), dv(p.v.sizes);
    attention_backward_plain(p.args(), g.grad.view(), p.lse.view(), g.delta.view(), dq.view(), dk.view(), dv.view());
    const auto compare = [](const View& a, const View& b, const char* what) {
      const auto expected = values_of(b);
      expect_near(values_of(a), expected, kTolerance<T> * largest(expected), what);
    };
    compare(g.dq.view(), dq.view(), "dq");
    compare(g.dk.view(), dk.view(), "dk");
    compare(g.dv.view(), dv.view(), "dv");
  }
}

TEST(Attention, GradientsEqualPlain) {
  for_each_target([] {
    expect_gradients_as_plain<float>();
    expect_gradients_as_plain<BFloat16>();
    expect_gradients_as_plain<Half>();
  });
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
void expect_gradient_bits_of_threads() {
  for (const Case& c : cases()) {
    Problem<T> p(c);
    attention_forward(p.args(), p.out.view(), p.lse.view());
    Gradients<T> g(p);
    const int before = num_threads();
    set_num_threads(1);
    g.run(p);
    const auto dq = g.dq.data, dk = g.dk.data, dv = g.dv.data;
    set_grain_limit(1);
    for (const int threads : {2, 5}) {
      set_num_threads(threads);
      g.run(p);
      EXPECT_TRUE(same_bits(dq, g.dq.data)) << threads << " threads: " << c;
      EXPECT_TRUE(same_bits(dk, g.dk.data)) << threads << " threads: " << c;
      EXPECT_TRUE(same_bits(dv, g.dv.data)) << threads << " threads: " << c;
    }
    set_num_threads(before);
    set_grain_limit(0);
  }
}

TEST(Attention, GradientBitsDoNotDependOnThreads) {
  for_each_target([] {
    expect_gradient_bits_of_threads<float>();
    expect_gradient_bits_of_threads<BFloat16>();
  });
}

TEST(Attention, ReadsStridedTensors) {
  for_each_target([] {
    const Case c{.queries = 70, .keys = 70, .d = 64, .dv = 64, .causal = true};
    Problem<float> p(c);
    attention_forward(p.args(), p.out.view(), p.lse.view());
    const auto turn = [](const Array<float>& from, const Dims& s, int64_t row) {  // [B, H, L, D] -> [B, L, H, row]
      Array<float> to({s[0], s[2], s[1], row});
      for (int64_t b = 0; b < s[0]; ++b)
        for (int64_t h = 0; h < s[1]; ++h)
          for (int64_t i = 0; i < s[2]; ++i)
            for (int64_t d = 0; d < s[3]; ++d)
              to[((b * s[2] + i) * s[1] + h) * row + d] = from[((b * s[1] + h) * s[2] + i) * s[3] + d];
      return to;
    };
    for (const int64_t row : {64, 65, 2048}) {
      Array<float> q = turn(p.q, p.q.sizes, row), k = turn(p.k, p.k.sizes, row), v = turn(p.v, p.v.sizes, row),
                   out({c.batch, c.queries, c.heads, row});
      Array<float> lse(p.lse.sizes);
      const auto as = [](Array<float>& x, int64_t n) {
        View view = transposed(x.view(), 1, 2);
        view.sizes[3] = n;
        return view;
      };
      Attention a = p.args();
      a.q = as(q, c.d), a.k = as(k, c.d), a.v = as(v, c.dv);
      attention_forward(a, as(out, c.dv), lse.view());
      EXPECT_EQ(values_of(as(out, c.dv)), values_of(p.out.view()));
      EXPECT_EQ(lse.data, p.lse.data);
    }
  });
}

TEST(Attention, KeepsNanAndIgnoresMaskedNan) {
  for_each_target([] {
    Problem<float> p({.causal = true});
    p.q[0] = NAN;                                                   // poisons query 0 of head 0 alone
    for (int64_t d = 0; d < p.c.d; ++d) p.k[60 * p.c.d + d] = NAN;  // a key after the last query
    attention_forward(p.args(), p.out.view(), p.lse.view());
    const auto out = values_of(p.out.view());
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i < static_cast<size_t>(p.c.dv)) << i;
  });
}

}  // namespace
}  // namespace deepseek::kernels
