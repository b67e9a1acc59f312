// token_sparse.h: the bits of dense attention over the keys of each query, whatever the threads.
#include "kernels/sparse_attention/tokens/token_sparse.h"

#include <set>

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Case {
  int64_t batch = 2, heads = 4, key_heads = 1, queries = 13, keys = 150, d = 19, dv = 21, selected = 70;
  bool causal = false;
  int64_t window = 0, start = 0;
  double scale = 0.3;
};
std::vector<Case> cases() {
  return {
      {},
      {.causal = true, .start = 100},
      {.key_heads = 2, .causal = true},
      {.batch = 1, .heads = 70, .queries = 3, .keys = 900, .d = 48, .dv = 32, .selected = 700, .scale = 0.1},
      {.batch = 1, .heads = 16, .queries = 2, .keys = 300, .d = 576, .dv = 512, .selected = 130, .scale = 0.03},
      {.batch = 1, .key_heads = 2, .queries = 70, .keys = 1300, .d = 64, .dv = 64, .selected = 200, .scale = 0.1},
      {.queries = 40, .keys = 60, .causal = true, .window = 9, .start = 11},
      {.batch = 1, .heads = 1, .queries = 1, .keys = 1, .d = 1, .dv = 1, .selected = 1},
      {.selected = 0},
      {.keys = 0, .selected = 0},
      {.scale = -0.4},
  };
}

template <class T>
struct Problem {
  Case c;
  Array<T> q, k, v, out, grad, dq, dk, dv;
  Array<float> lse, delta;
  Array<int64_t> indices;
  explicit Problem(const Case& of)
      : c(of),
        q({c.batch, c.heads, c.queries, c.d}),
        k({c.batch, c.key_heads, c.keys, c.d}),
        v({c.batch, c.key_heads, c.keys, c.dv}),
        out({c.batch, c.heads, c.queries, c.dv}),
        grad(out.sizes),
        dq(q.sizes),
        dk(k.sizes),
        dv(v.sizes),
        lse({c.batch, c.heads, c.queries}),
        delta(lse.sizes),
        indices({c.batch, c.queries, c.selected}) {
    fill_normal(q, 1), fill_normal(k, 2), fill_normal(v, 3), fill_normal(grad, 4);
    fill_integers(indices, 5, -1, static_cast<int>(c.keys) - 1);
  }
  Attention args() {
    Attention a{.q = q.view(), .k = k.view(), .v = v.view(), .mask = {}, .sinks = {}, .scale = c.scale};
    a.causal = c.causal, a.window = c.window, a.query_start = c.start;
    return a;
  }
  void run() { token_sparse_forward(args(), indices.view(), out.view(), lse.view()); }
  void run_backward() {
    attention_delta(grad.view(), out.view(), {}, delta.view());
    token_sparse_backward(args(), indices.view(), grad.view(), lse.view(), delta.view(), dq.view(), dk.view(),
                          dv.view());
  }

  std::set<int64_t> keys_of(int64_t b, int64_t query) {
    std::set<int64_t> found;
    const int64_t p = c.start + query;
    for (int64_t i = 0; i < c.selected; ++i) {
      const int64_t key = indices[(b * c.queries + query) * c.selected + i];
      if (key >= 0 && !(c.causal && key > p) && !(c.window && std::abs(p - key) >= c.window)) found.insert(key);
    }
    return found;
  }
  // Dense attention of one query over its keys.
  void expect_query(int64_t b, int64_t query) {
    const std::set<int64_t> chosen = keys_of(b, query);
    const auto n = static_cast<int64_t>(chosen.size());
    Array<T> some_k({1, c.key_heads, n, c.d}), some_v({1, c.key_heads, n, c.dv}), to({1, c.heads, 1, c.dv});
    Array<float> logs({1, c.heads, 1});
    int64_t j = 0;
    for (const int64_t key : chosen) {
      for (int64_t h = 0; h < c.key_heads; ++h) {
        const int64_t from = (b * c.key_heads + h) * c.keys + key, at = h * n + j;
        std::copy_n(&k[from * c.d], c.d, &some_k[at * c.d]);
        std::copy_n(&v[from * c.dv], c.dv, &some_v[at * c.dv]);
      }
      ++j;
    }
    Attention a = args();
    a.q.data = a.q.at(b * a.q.strides[0] + query * a.q.strides[2]);
    a.q.sizes[0] = a.q.sizes[2] = 1;
    a.k = some_k.view(), a.v = some_v.view(), a.causal = false, a.window = 0;
    attention_forward(a, to.view(), logs.view());
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t at = (b * c.heads + h) * c.queries + query;
      EXPECT_EQ(std::memcmp(&to[h * c.dv], &out[at * c.dv], static_cast<size_t>(c.dv) * sizeof(T)), 0) << query;
      EXPECT_EQ(logs[h], lse[at]);
    }
  }
};

template <class T>
void expect_as_dense() {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.keys * 1000 + c.d);
    Problem<T> p(c);
    expect_same_bits<T>(p.out, [&] { p.run(); });
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t i = 0; i < c.queries; ++i) p.expect_query(b, i);
  }
}

TEST(TokenSparse, EqualsDenseOverTheChosenKeys) {
  for_each_target([] {
    expect_as_dense<float>();
    expect_as_dense<BFloat16>();
    expect_as_dense<Half>();
  });
}

TEST(TokenSparse, EqualsPlain) {
  for_each_target([] {
    for (const Case& c : cases()) {
      SCOPED_TRACE(c.keys * 1000 + c.d);
      Problem<float> p(c), plain(c);
      p.run();
      token_sparse_forward_plain(p.args(), p.indices.view(), plain.out.view(), plain.lse.view());
      expect_near(values_of(p.out.view()), values_of(plain.out.view()), 4e-6, "out");
      expect_near(values_of(p.lse.view()), values_of(plain.lse.view()), 4e-6, "lse");
    }
  });
}

// Of the largest gradient.
template <class T>
void expect_gradients_as_plain(double tolerance) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.keys * 1000 + c.d);
    Problem<T> p(c);
    p.run();
    p.run_backward();
    Array<float> dq(p.q.sizes), dk(p.k.sizes), dv(p.v.sizes);
    token_sparse_backward_plain(p.args(), p.indices.view(), p.grad.view(), p.lse.view(), p.delta.view(), dq.view(),
                                dk.view(), dv.view());
    const auto compare = [&](Array<T>& got, Array<float>& want, const char* what) {
      double most = 1;
      for (int64_t i = 0; i < want.numel(); ++i) most = std::max(most, std::abs(static_cast<double>(want[i])));
      expect_near(values_of(got.view()), values_of(want.view()), tolerance * most, what);
    };
    compare(p.dq, dq, "dq"), compare(p.dk, dk, "dk"), compare(p.dv, dv, "dv");
  }
}

TEST(TokenSparse, GradientsEqualPlain) {
  for_each_target([] {
    expect_gradients_as_plain<float>(4e-6);
    expect_gradients_as_plain<BFloat16>(3e-2);
    expect_gradients_as_plain<Half>(4e-3);
  });
}

template <class T>
void expect_gradient_bits_of_threads() {
  for (const Case& c : cases()) {
    Problem<T> p(c);
    p.run();
    const int before = num_threads();
    set_num_threads(1);
    p.run_backward();
    const auto dq = p.dq.data, dk = p.dk.data, dv = p.dv.data;
    set_grain_limit(1);
    for (const int threads : {2, 5}) {
      set_num_threads(threads);
      p.run_backward();
      const auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
        return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
      };
      EXPECT_TRUE(same(dq, p.dq.data) && same(dk, p.dk.data) && same(dv, p.dv.data))
          << threads << " threads, " << c.keys << " keys of " << c.d;
    }
    set_num_threads(before);
    set_grain_limit(0);
  }
}

TEST(TokenSparse, GradientBitsDoNotDependOnThreads) {
  for_each_target([] {
    expect_gradient_bits_of_threads<float>();
    expect_gradient_bits_of_threads<BFloat16>();
  });
}

TEST(TokenSparse, FindsIndicesOutOfRange) {
  Problem<float> p({});
  EXPECT_EQ(wrong_token(p.indices.view(), 150), -1);
  p.indices[7] = 150;
  EXPECT_EQ(wrong_token(p.indices.view(), 150), 150);
  p.indices[7] = -2;
  EXPECT_EQ(wrong_token(p.indices.view(), 150), -2);
}

}  // namespace
}  // namespace deepseek::kernels
