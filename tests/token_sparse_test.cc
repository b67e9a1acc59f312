// kernels/token_sparse.h: the bits of dense attention over the keys of each query, whatever the threads.
#include "kernels/token_sparse.h"

#include <set>

#include "kernel_testing.h"

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
      attention_delta(p.grad.view(), p.out.view(), {}, p.delta.view());
      token_sparse_backward(p.args(), p.indices.view(), p.grad.view(), p.lse.view(), p.delta.view(), p.dq.view(),
                            p.dk.view(), p.dv.view());
      token_sparse_forward_plain(p.args(), p.indices.view(), plain.out.view(), plain.lse.view());
      token_sparse_backward_plain(p.args(), p.indices.view(), p.grad.view(), p.lse.view(), p.delta.view(),
                                  plain.dq.view(), plain.dk.view(), plain.dv.view());
      expect_near(values_of(p.out.view()), values_of(plain.out.view()), 4e-6, "out");
      expect_near(values_of(p.lse.view()), values_of(plain.lse.view()), 4e-6, "lse");
      expect_near(values_of(p.dq.view()), values_of(plain.dq.view()), 4e-5, "dq");
      expect_near(values_of(p.dk.view()), values_of(plain.dk.view()), 4e-5, "dk");
      expect_near(values_of(p.dv.view()), values_of(plain.dv.view()), 4e-5, "dv");
    }
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
