// Sizes of an attention call, and which keys a row sees by its position. Rows of a key head: the queries of all its
// query heads, row r is query r / group of head r % group, so that neighbours see nearly the same keys.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/attention/attention.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {

struct AttentionShape {
  int64_t batch, heads, key_heads, group, queries, keys, d, dv, rows;
  int64_t start, window;
  bool causal;

  explicit AttentionShape(const Attention& a)
      : batch(a.q.sizes[0]),
        heads(a.q.sizes[1]),
        key_heads(a.k.sizes[1]),
        group(key_heads ? heads / key_heads : 0),
        queries(a.q.sizes[2]),
        keys(a.k.sizes[2]),
        d(a.q.sizes[3]),
        dv(a.v.sizes[3]),
        rows(queries * group),
        start(a.query_start),
        window(a.window),
        causal(a.causal) {}

  int64_t position(int64_t row) const { return start + row / group; }
  // Whether any row of positions lo..hi sees any key of first..last, and whether all see all of them.
  bool any(int64_t lo, int64_t hi, int64_t first, int64_t last) const {
    if (causal && first > hi) return false;
    return !window || (lo - last < window && (causal || first - hi < window));
  }
  bool all(int64_t lo, int64_t hi, int64_t first, int64_t last) const {
    if (causal && last > lo) return false;
    return !window || (hi - first < window && (causal || last - lo < window));
  }
  // Keys that rows of positions lo..hi may see lie in [first_key, end_key).
  int64_t first_key(int64_t lo) const { return window ? std::clamp<int64_t>(lo - window + 1, 0, keys) : 0; }
  int64_t end_key(int64_t hi) const {
    int64_t end = keys;
    if (causal) end = std::min(end, hi + 1);
    if (window) end = std::min(end, hi + window);
    return std::max<int64_t>(end, 0);
  }
};

// top + log(sum), the logarithm of a denominator, and what rounding it to T cut off: under a mask of large numbers that
// is all of log(sum), and a weight exp(score - high - low) needs it. Stays finite where top is.
template <class T>
struct LogSum {
  T high, low;
  LogSum(double top, double log_sum) : high(static_cast<T>(top)), low(0) {
    if (!std::isfinite(top)) return;
    constexpr double kMost = std::numeric_limits<T>::max();
    high = static_cast<T>(std::clamp(top + log_sum, -kMost, kMost));
    low = static_cast<T>(top - static_cast<double>(high) + log_sum);
  }
};

// Offset in elements of row r of key head `head`; the view is [B, H, L, ...].
struct RowWalk {
  int64_t batch, head, row;
  RowWalk(const View& v) : batch(v.strides[0]), head(v.strides[1]), row(v.strides[2]) {}
  int64_t at(const AttentionShape& s, int64_t b, int64_t key_head, int64_t r) const {
    return b * batch + (key_head * s.group + r % s.group) * head + r / s.group * row;
  }
};

// Calls worker(next) on as many threads as the units are worth; each takes units in ascending order from `next` until
// it is at `units`.
template <class F>
void share_units(int64_t units, double flops_per_unit, F&& worker) {
  constexpr double kFlopsPerThread = 1 << 21;
  const int64_t grain =
      limited_grain(static_cast<int64_t>(std::clamp(kFlopsPerThread / std::max(flops_per_unit, 1.0), 1.0, 1e9)));
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(num_threads(), (units + grain - 1) / grain);
  parallel_for(workers, 1, [&](int64_t, int64_t) { worker(next); });
}

}  // namespace deepseek::kernels
