// index_scores.h against its slow twin, and the bits that must not depend on CPU, threads and batch mates.
#include "kernels/sparse_attention/index_scores/index_scores.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Case {
  int64_t batch = 2, queries = 19, heads = 7, d = 37, keys = 150;
  bool causal = false;
  int64_t start = 0;
};
std::vector<Case> cases() {
  return {{},
          {.causal = true, .start = 40},
          {.causal = true},
          {.batch = 1, .queries = 33, .heads = 64, .d = 128, .keys = 1100, .causal = true, .start = 1060},
          {.batch = 1, .queries = 1, .heads = 1, .d = 1, .keys = 1},
          {.queries = 3, .heads = 2, .d = 6, .keys = 64},
          {.heads = 0},
          {.d = 0},
          {.keys = 0}};
}

template <class T>
struct Problem {
  Case c;
  Array<T> q, k;
  Array<float> w, q_scale, k_scale, out;
  explicit Problem(const Case& of)
      : c(of),
        q({c.batch, c.queries, c.heads, c.d}),
        k({c.batch, c.keys, c.d}),
        w({c.batch, c.queries, c.heads}),
        q_scale(w.sizes),
        k_scale({c.batch, c.keys}),
        out({c.batch, c.queries, c.keys}) {
    if constexpr (std::is_same_v<T, int8_t>)
      fill_integers(q, 1, -127, 127), fill_integers(k, 2, -127, 127);
    else
      fill_normal(q, 1), fill_normal(k, 2);
    fill_normal(w, 3), fill_normal(q_scale, 4, 1e-3, 0.01), fill_normal(k_scale, 5, 1e-3, 0.01);
  }
  IndexScores args() {
    IndexScores a{.q = q.view(), .k = k.view(), .w = w.view(), .q_scale = {}, .k_scale = {}};
    if (std::is_same_v<T, int8_t>) a.q_scale = q_scale.view(), a.k_scale = k_scale.view();
    a.causal = c.causal, a.query_start = c.start;
    return a;
  }
};

template <class T>
void expect_as_plain(double tolerance) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.keys * 1000 + c.d);
    Problem<T> p(c), plain(c);
    expect_same_bits<float>(p.out, [&] { index_scores(p.args(), p.out.view()); });
    index_scores_plain(plain.args(), plain.out.view());
    expect_near(values_of(p.out.view()), values_of(plain.out.view()), tolerance, "score");
  }
}

TEST(IndexScores, EqualsPlain) {
  for_each_target([] {
    expect_as_plain<float>(2e-4);
    expect_as_plain<BFloat16>(2e-4);
    expect_as_plain<Half>(2e-4);
    expect_as_plain<int8_t>(2e-4);
  });
}

// VNNI, AVX-512 and AVX2 add the same integers up, in the same order.
TEST(IndexScores, Int8BitsAreThoseOfEveryCpu) {
  for (const Case& c : cases()) {
    Problem<int8_t> first(c);
    index_scores(first.args(), first.out.view());
    for_each_target([&] {
      Problem<int8_t> p(c);
      index_scores(p.args(), p.out.view());
      EXPECT_EQ(p.out.data, first.out.data);
    });
  }
}

TEST(IndexScores, OneQueryHasTheBitsOfItsRowInTheWhole) {
  for_each_target([] {
    Problem<int8_t> p({.batch = 1, .queries = 40, .keys = 300, .causal = true, .start = 200});
    index_scores(p.args(), p.out.view());
    for (const int64_t t : {0, 17, 39}) {
      IndexScores a = p.args();
      for (View* v : {&a.q, &a.w, &a.q_scale}) v->data = v->at(t * v->strides[1]), v->sizes[1] = 1;
      a.query_start += t;
      Array<float> out({1, 1, p.c.keys});
      index_scores(a, out.view());
      EXPECT_EQ(std::memcmp(out.begin(), &p.out[t * p.c.keys], static_cast<size_t>(p.c.keys) * 4), 0);
    }
  });
}

TEST(IndexScores, KeepsNan) {
  for_each_target([] {
    Problem<float> p({.batch = 1});
    for (int64_t i = 0; i < p.c.d; ++i) p.k[5 * p.c.d + i] = NAN;
    index_scores(p.args(), p.out.view());
    for (int64_t i = 0; i < p.out.numel(); ++i) EXPECT_EQ(std::isnan(p.out[i]), i % p.c.keys == 5);
  });
}

}  // namespace
}  // namespace deepseek::kernels
