// block_sparse.h: the bits of dense attention under the mask of the selection, whatever the threads.
#include "kernels/sparse_attention/blocks/block_sparse.h"

#include "runtime/cpu.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Case {
  int64_t batch = 2, heads = 4, key_heads = 2, queries = 150, keys = 300, d = 19, dv = 21;
  int64_t block_size = 64, group = 1, selected = 3;
  bool causal = false;
  int64_t window = 0, start = 0;
  double scale = 0.3;
};
std::ostream& operator<<(std::ostream& o, const Case& c) {
  return o << c.batch << "x" << c.heads << "/" << c.key_heads << " " << c.queries << "x" << c.keys << "x" << c.d << "/"
           << c.dv << " " << c.selected << " blocks of " << c.block_size << " by " << c.group
           << (c.causal ? " causal" : "") << " window " << c.window << " start " << c.start << " scale " << c.scale;
}

std::vector<Case> cases() {
  return {
      {},
      {.causal = true},
      {.block_size = 16, .selected = 7, .causal = true},
      {.block_size = 48, .group = 5, .selected = 4},
      {.block_size = 128, .group = 7, .selected = 2, .causal = true},
      {.batch = 1, .heads = 16, .key_heads = 1, .queries = 70, .keys = 1500, .d = 64, .dv = 64, .selected = 9},
      {.batch = 1, .heads = 2, .key_heads = 2, .queries = 1100, .keys = 1100, .d = 32, .dv = 32, .causal = true},
      {.batch = 1,
       .heads = 3,
       .key_heads = 1,
       .queries = 60,
       .keys = 1201,
       .d = 128,
       .dv = 48,
       .group = 100,
       .scale = 0.09},
      {.queries = 1, .keys = 1, .d = 1, .dv = 1, .selected = 1},
      {.queries = 1, .selected = 5, .causal = true, .start = 299},
      {.block_size = 16, .selected = 12, .causal = true, .window = 40},
      {.group = 3, .window = 70},
      {.selected = 0},
      {.keys = 0, .selected = 0},
      {.group = 2, .causal = true, .scale = -0.4},
      {.causal = true, .start = 60},
  };
}

template <class T>
struct Problem {
  Case c;
  Array<T> q, k, v, out, grad, dq, dk, dv;
  Array<float> lse, delta;
  Array<int64_t> indices;
  BlockSelection sel{};

  explicit Problem(const Case& of, int lead = 0)
      : c(of),
        q({c.batch, c.heads, c.queries, c.d}, lead),
        k({c.batch, c.key_heads, c.keys, c.d}, lead),
        v({c.batch, c.key_heads, c.keys, c.dv}, lead),
        out({c.batch, c.heads, c.queries, c.dv}, lead),
        grad(out.sizes),
        dq(q.sizes),
        dk(k.sizes),
        dv(v.sizes),
        lse({c.batch, c.heads, c.queries}),
        delta(lse.sizes),
        indices({c.batch, c.key_heads, (c.queries + c.group - 1) / c.group, c.selected}) {
    fill_normal(q, 1), fill_normal(k, 2), fill_normal(v, 3), fill_normal(grad, 4);
    fill_integers(indices, 5, -1, static_cast<int>((c.keys + c.block_size - 1) / c.block_size) - 1);
    sel = {indices.view(), c.block_size, c.group};
  }
  Attention args() {
    Attention a{.q = q.view(), .k = k.view(), .v = v.view(), .mask = {}, .sinks = {}, .scale = c.scale};
    a.causal = c.causal, a.window = c.window, a.query_start = c.start;
    return a;
  }
  void run() {
    block_sparse_forward(args(), sel, out.view(), lse.view());
    attention_delta(grad.view(), out.view(), {}, delta.view());
    block_sparse_backward(args(), sel, grad.view(), lse.view(), delta.view(), dq.view(), dk.view(), dv.view());
  }
  // Dense attention under the mask.
  void run_dense() {
    BoolArray mask({c.batch, c.heads, c.queries, c.keys});
    Attention a = args();
    selection_mask(sel, AttentionShape(a), mask.view());
    a.mask = mask.view();
    attention_forward(a, out.view(), lse.view());
    attention_delta(grad.view(), out.view(), {}, delta.view());
    attention_backward(a, grad.view(), lse.view(), delta.view(), dq.view(), dk.view(), dv.view());
  }
};

template <class T>
void expect_equal(const Array<T>& a, const Array<T>& b, const char* what) {
  ASSERT_EQ(a.numel(), b.numel());
  int64_t differ = 0;
  for (int64_t i = 0; i < a.numel(); ++i) differ += !(a[i] == b[i]) && !(std::isnan(static_cast<float>(a[i])));
  EXPECT_EQ(differ, 0) << what << ": of " << a.numel();
}

template <class T>
void expect_as_dense() {
  for (const Case& c : cases()) {
    std::ostringstream name;
    name << c;
    SCOPED_TRACE(name.str());
    for (const int lead : {0, 1}) {
      Problem<T> sparse(c, lead), dense(c, lead);
      sparse.run(), dense.run_dense();
      expect_equal(sparse.out, dense.out, "out");
      expect_equal(sparse.lse, dense.lse, "lse");
      expect_equal(sparse.dq, dense.dq, "dq");
      if (uses_bf16_dot(dtype_of<T>)) {  // rows are summed in other pairs
        expect_near(values_of(sparse.dk.view()), values_of(dense.dk.view()), 3e-2, "dk");
        expect_near(values_of(sparse.dv.view()), values_of(dense.dv.view()), 3e-2, "dv");
      } else {
        expect_equal(sparse.dk, dense.dk, "dk");
        expect_equal(sparse.dv, dense.dv, "dv");
      }
    }
  }
}

TEST(BlockSparse, EqualsDenseUnderTheMask) {
  for_each_target([] {
    expect_as_dense<float>();
    expect_as_dense<BFloat16>();
    expect_as_dense<Half>();
  });
}

TEST(BlockSparse, EqualsPlain) {
  for_each_target([] {
    for (const Case& c : cases()) {
      std::ostringstream name;
      name << c;
      SCOPED_TRACE(name.str());
      Problem<float> p(c), plain(c);
      p.run();
      block_sparse_forward_plain(p.args(), p.sel, plain.out.view(), plain.lse.view());
      block_sparse_backward_plain(p.args(), p.sel, p.grad.view(), p.lse.view(), p.delta.view(), plain.dq.view(),
                                  plain.dk.view(), plain.dv.view());
      expect_near(values_of(p.out.view()), values_of(plain.out.view()), 4e-6, "out");
      expect_near(values_of(p.lse.view()), values_of(plain.lse.view()), 4e-6, "lse");
      expect_near(values_of(p.dq.view()), values_of(plain.dq.view()), 2e-5, "dq");
      expect_near(values_of(p.dk.view()), values_of(plain.dk.view()), 4e-5, "dk");
      expect_near(values_of(p.dv.view()), values_of(plain.dv.view()), 4e-5, "dv");
    }
  });
}

template <class T>
void expect_bits_of_threads() {
  for (const Case& c : cases()) {
    std::ostringstream name;
    name << c;
    SCOPED_TRACE(name.str());
    const int before = num_threads();
    set_num_threads(1);
    Problem<T> one(c);
    one.run();
    set_grain_limit(1);
    for (const int threads : {2, 5}) {
      set_num_threads(threads);
      Problem<T> more(c);
      more.run();
      expect_equal(more.out, one.out, "out");
      expect_equal(more.dq, one.dq, "dq");
      expect_equal(more.dk, one.dk, "dk");
      expect_equal(more.dv, one.dv, "dv");
    }
    set_num_threads(before);
    set_grain_limit(0);
  }
}

TEST(BlockSparse, BitsDoNotDependOnThreads) {
  for_each_target([] {
    expect_bits_of_threads<float>();
    expect_bits_of_threads<BFloat16>();
  });
}

// Order and repetition of the blocks say nothing; nor does what other queries select.
TEST(BlockSparse, RowsStandAlone) {
  for_each_target([] {
    Problem<float> p({.causal = true}), turned({.causal = true});
    const int64_t n = p.c.selected;
    for (int64_t i = 0; i < p.indices.numel() / n; ++i) {
      int64_t *from = &p.indices[i * n], *to = &turned.indices[i * n];
      from[2] = from[1];
      to[0] = from[1], to[1] = from[0], to[2] = from[0];
    }
    p.run(), turned.run();
    expect_equal(turned.out, p.out, "out");
    for (int64_t i = n; i < turned.indices.numel(); ++i) turned.indices[i] = -1;  // all but one query
    turned.run();
    EXPECT_EQ(std::memcmp(&turned.out[0], &p.out[0], static_cast<size_t>(p.c.dv) * 4), 0);
  });
}

TEST(BlockSparse, FindsIndicesOutOfRange) {
  Problem<float> p({});
  EXPECT_EQ(wrong_block(p.sel, 5), -1);
  p.indices[7] = 5;
  EXPECT_EQ(wrong_block(p.sel, 5), 5);
  p.indices[7] = -2;
  EXPECT_EQ(wrong_block(p.sel, 5), -2);
}

}  // namespace
}  // namespace deepseek::kernels
