// Problems for tests of attention: sizes and options, and the tensors of one.
#pragma once

#include <ostream>

#include "kernels/attention/attention.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels::attention_testing {
using namespace deepseek::testing;

enum class Mask { kNone, kBool, kAdd, kPadding };

struct Case {
  int64_t batch = 2, heads = 4, key_heads = 2, queries = 37, keys = 93, d = 19, dv = 21;
  bool causal = false;
  int64_t window = 0, start = 0;
  double softcap = 0, scale = 0.3, dropout = 0;
  Mask mask = Mask::kNone;
  bool sinks = false;
};
inline std::ostream& operator<<(std::ostream& o, const Case& c) {
  return o << c.batch << "x" << c.heads << "/" << c.key_heads << " " << c.queries << "x" << c.keys << "x" << c.d << "/"
           << c.dv << (c.causal ? " causal" : "") << " window " << c.window << " start " << c.start << " cap "
           << c.softcap << " scale " << c.scale << " dropout " << c.dropout << " mask " << static_cast<int>(c.mask)
           << (c.sinks ? " sinks" : "");
}

template <class T>
struct Problem {
  Case c;
  Array<T> q, k, v, out, numbers;
  BoolArray flags;
  Array<float> lse, sinks;

  explicit Problem(const Case& of, int lead = 0)
      : c(of),
        q({c.batch, c.heads, c.queries, c.d}, lead),
        k({c.batch, c.key_heads, c.keys, c.d}, lead),
        v({c.batch, c.key_heads, c.keys, c.dv}, lead),
        out({c.batch, c.heads, c.queries, c.dv}, lead),
        numbers({c.heads, c.queries, c.keys}),
        flags({c.batch, c.queries, c.keys}),
        lse({c.batch, c.heads, c.queries}),
        sinks({c.heads}) {
    fill_normal(q, 1), fill_normal(k, 2), fill_normal(v, 3), fill_normal(numbers, 4), fill_integers(flags, 5, 0, 1);
    fill_normal(sinks, 6);
    for (int64_t j = 0; j < c.keys && c.queries > 0; ++j) flags[j] = 0;  // a query without any key
  }

  Attention args() {
    Attention a{.q = q.view(), .k = k.view(), .v = v.view(), .mask = {}, .sinks = {}, .scale = c.scale};
    a.softcap = c.softcap, a.causal = c.causal, a.window = c.window, a.query_start = c.start;
    a.dropout_p = c.dropout, a.rng = {77, 5};
    if (c.sinks) a.sinks = sinks.view();
    const Dims sizes{c.batch, c.heads, c.queries, c.keys};
    if (c.mask == Mask::kBool) a.mask = {flags.begin(), DType::kBool, sizes, {c.queries * c.keys, 0, c.keys, 1}};
    if (c.mask == Mask::kPadding) a.mask = {flags.begin(), DType::kBool, sizes, {c.queries * c.keys, 0, 0, 1}};
    if (c.mask == Mask::kAdd) a.mask = {numbers.begin(), dtype_of<T>, sizes, {0, c.queries * c.keys, c.keys, 1}};
    return a;
  }
};

inline std::vector<Case> cases() {
  return {
      {},
      {.causal = true},
      {.batch = 1, .heads = 2, .key_heads = 2, .queries = 130, .keys = 700, .d = 64, .dv = 64},
      {.batch = 1, .heads = 2, .key_heads = 1, .queries = 200, .keys = 200, .d = 32, .dv = 48, .causal = true},
      {.batch = 1, .heads = 1, .key_heads = 1, .queries = 1, .keys = 1, .d = 1, .dv = 1},
      {.batch = 1, .heads = 8, .key_heads = 2, .queries = 1, .keys = 1201, .d = 128, .dv = 128},
      {.batch = 1, .heads = 3, .key_heads = 1, .queries = 5, .keys = 70, .d = 576, .dv = 512, .scale = 0.05},
      {.keys = 0},
      {.mask = Mask::kBool},
      {.mask = Mask::kAdd},
      {.mask = Mask::kPadding},
      {.causal = true, .sinks = true},
      {.mask = Mask::kBool, .sinks = true},
      {.softcap = 2, .mask = Mask::kAdd},
      {.causal = true, .softcap = 1.5},
      {.queries = 90, .causal = true, .window = 17},
      {.queries = 90, .window = 17},
      {.queries = 90, .causal = true, .window = 1 << 20, .start = 3},
      {.queries = 60, .keys = 1300, .causal = true, .window = 100, .start = 1200},
      {.queries = 60, .keys = 20, .causal = true, .start = 10},
      {.batch = 1, .heads = 1, .key_heads = 1, .queries = 300, .keys = 300, .causal = true},
      {.scale = -0.4},
      {.scale = 0},
      {.causal = true, .dropout = 0.3},
      {.queries = 70, .keys = 131, .dropout = 0.5, .mask = Mask::kAdd, .sinks = true},
  };
}

}  // namespace deepseek::kernels::attention_testing
