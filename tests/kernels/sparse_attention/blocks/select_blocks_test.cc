// select_blocks.h against its slow twin, and selections that must not depend on threads and batch mates.
#include "kernels/sparse_attention/blocks/select_blocks.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Case {
  int64_t batch = 2, key_heads = 2, group = 3, queries = 70, d = 37, keys = 400;
  int64_t block = 16, most = 5;
  double ratio = 0, mass = 0;
  bool causal = true;
  int64_t start = 330;
};
std::vector<Case> cases() {
  return {{},
          {.mass = 1},
          {.mass = 0.7},
          {.causal = false},
          {.mass = 0.7, .causal = false},
          {.ratio = 0.2},
          {.most = 1},
          {.most = 1, .mass = 0.5},
          {.group = 1, .d = 64, .keys = 1100, .start = 1030},
          {.batch = 1, .key_heads = 1, .group = 70, .queries = 3, .mass = 0.9, .start = 14},  // more heads than a panel
          {.batch = 1, .queries = 200, .keys = 5000, .block = 48, .most = 9, .mass = 0.3, .start = 4800},
          {.batch = 1, .key_heads = 1, .group = 1, .queries = 1, .d = 1, .keys = 1, .start = 0},
          {.queries = 5, .keys = 5, .block = 64, .start = 0},
          {.queries = 0, .keys = 0, .start = 0}};
}

template <class T>
struct Problem {
  Case c;
  Array<T> q, k, means;
  Array<int64_t> out;
  explicit Problem(const Case& of)
      : c(of),
        q({c.batch, c.key_heads * c.group, c.queries, c.d}),
        k({c.batch, c.key_heads, c.keys, c.d}),
        means({c.batch, c.key_heads, (c.keys + c.block - 1) / c.block, c.d}),
        out({c.batch, c.key_heads, c.queries, std::min(c.most, (c.keys + c.block - 1) / c.block)}) {
    fill_normal(q, 1), fill_normal(k, 2), fill_normal(means, 3);
  }
  SelectBlocks args() {
    SelectBlocks a{.q = q.view(), .k = k.view(), .means = means.view()};
    a.block_size = c.block, a.most = c.most, a.ratio = c.ratio, a.mass = c.mass, a.causal = c.causal;
    a.scale = 0.2, a.query_start = c.start;
    return a;
  }
};

// Of random numbers few are so close that rounding decides.
template <class T>
void expect_as_plain() {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.keys * 1000 + static_cast<int64_t>(c.mass * 10));
    Problem<T> p(c), plain(c);
    expect_same_bits<int64_t>(p.out, [&] { select_blocks(p.args(), p.out.view()); });
    select_blocks_plain(plain.args(), plain.out.view());
    int64_t other = 0;
    const int64_t n = p.out.sizes[3], rows = n ? static_cast<int64_t>(p.out.view().numel()) / n : 0;
    for (int64_t r = 0; r < rows; ++r)
      other +=
          !std::equal(p.out.view().template as<int64_t>() + r * n, p.out.view().template as<int64_t>() + (r + 1) * n,
                      plain.out.view().template as<int64_t>() + r * n);
    EXPECT_LE(other, rows / 50);
  }
}

TEST(SelectBlocks, EqualsPlain) {
  for_each_target([] {
    expect_as_plain<float>();
    expect_as_plain<BFloat16>();
    expect_as_plain<Half>();
  });
}

}  // namespace
}  // namespace deepseek::kernels
