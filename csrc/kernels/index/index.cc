#include "kernels/index/index.h"

#include <algorithm>
#include <atomic>

#include "kernels/index/index_walk.h"
#include "kernels/loops/cast.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

// A walk in which `table` is indexed along dim; flat has the index's sizes.
IndexWalk walk_along(const View& flat, const View& index, const View& table, int dim) {
  View rest{table.data, table.dtype, index.sizes, table.strides};
  if (rest.ndim() == 0) return {flat, index, rest, 0, 1, false};
  rest.strides[dim] = 0;
  return {flat, index, rest, table.strides[dim], table.sizes[dim], false};
}

template <class T>
T min_value(T a, T b) {
  if constexpr (is_floating(dtype_of<T>))
    return static_cast<float>(a) != static_cast<float>(a) ||
                   static_cast<ComputeType<T>>(a) < static_cast<ComputeType<T>>(b)
               ? a
               : b;
  else
    return std::min(a, b);
}
template <class T>
T max_value(T a, T b) {
  if constexpr (is_floating(dtype_of<T>))
    return static_cast<float>(a) != static_cast<float>(a) ||
                   static_cast<ComputeType<T>>(a) > static_cast<ComputeType<T>>(b)
               ? a
               : b;
  else
    return std::max(a, b);
}

// A 1-d index seen along `dim` of `like`.
View along(const View& index, const Dims& sizes, int dim) {
  View v = index;
  v.sizes = sizes;
  v.strides = Dims::filled(sizes.size(), 0);
  if (!sizes.empty()) v.strides[dim] = index.ndim() == 0 ? 0 : index.strides[0];
  return v;
}

// Whether lowest <= ids[i] < end for all, where lowest <= 0 <= end: without branches, so that the compiler makes
// vectors of it.
template <class Id>
bool all_within(const Id* ids, int64_t n, int64_t lowest, int64_t end) {
  uint64_t signs = 0;  // of what must not be negative
  for (int64_t i = 0; i < n; ++i) {
    const auto id = static_cast<uint64_t>(static_cast<int64_t>(ids[i]));
    signs |= (id - static_cast<uint64_t>(lowest)) | (static_cast<uint64_t>(end - 1) - id);
  }
  return signs >> 63 == 0;
}

}  // namespace

void check_indices(const char* op, const View& index, int64_t size, int dim, bool allow_negative) {
  const int64_t lowest = allow_negative ? -size : 0;
  Loop<1> loop;
  View distinct = index;  // once where a dim repeats them
  for (int d = 0; d < distinct.ndim(); ++d)
    if (distinct.strides[d] == 0 && distinct.sizes[d] > 1) distinct.sizes[d] = 1;
  loop.add(distinct);
  merge_in_order(loop);
  const int64_t n = distinct.numel();
  if (n == 0) return;
  std::atomic<int64_t> first_bad{n};
  const bool wide = IndexReader(index).wide;
  const int64_t step = loop.strides[0].back();
  const auto visit = [&]<class Id>(const Id* ids, int64_t count, int64_t at) {
    if (step == 1 && all_within(ids, count, lowest, size)) return;
    int64_t i = 0, seen = first_bad.load();
    while (i < count && all_within(ids + i * step, 1, lowest, size)) ++i;
    if (i == count) return;
    while (at + i < seen && !first_bad.compare_exchange_weak(seen, at + i)) {
    }
  };
  parallel_for(n, grain_for(8), [&](int64_t begin, int64_t end) {
    int64_t at = begin;
    loop.for_range(begin, end, [&](auto p, int64_t count) {
      if (wide)
        visit(reinterpret_cast<const int64_t*>(p[0]), count, at);
      else
        visit(reinterpret_cast<const int32_t*>(p[0]), count, at);
      at += count;
    });
  });
  if (first_bad == n) return;
  loop.for_range(first_bad, first_bad + 1, [&](auto p, int64_t) {
    const int64_t x = wide ? *reinterpret_cast<const int64_t*>(p[0]) : *reinterpret_cast<const int32_t*>(p[0]);
    fail<IndexError>(op, "(): index ", x, " is out of bounds for dimension ", dim, " with size ", size);
  });
}

void gather(const View& out, const View& in, const View& index, int dim) {
  with_word(size_of(out.dtype), [&]<class Word>() { walk_along(out, index, in, dim).read<Word>(TakeFromTable{}); });
}

void scatter(const View& out, const View& index, const View& src, int dim, ScatterMode mode) {
  IndexWalk walk = walk_along(src, index, out, dim);
  if (mode == ScatterMode::kSet)
    return with_word(size_of(out.dtype), [&]<class Word>() { walk.write<Word>(PutIntoTable{}); });
  dispatch(out.dtype, [&]<class T>() {
    const auto run = [&](auto combine) {
      walk.write<T>(EachElement{[=](T& to, const T& from) { to = combine(to, from); }});
    };
    switch (mode) {
      case ScatterMode::kSum:
        return run([](T a, T b) { return add_values(a, b); });
      case ScatterMode::kProd:
        return run([](T a, T b) { return multiply_values(a, b); });
      case ScatterMode::kMin:
        return run([](T a, T b) { return min_value(a, b); });
      case ScatterMode::kMax:
        return run([](T a, T b) { return max_value(a, b); });
      case ScatterMode::kSet:  // above: it moves elements of any dtype
        break;
    }
  });
}

void index_select(const View& out, const View& in, int dim, const View& index) {
  gather(out, in, along(index, out.sizes, dim), dim);
}

void index_add(const View& out, int dim, const View& index, const View& src, const Scalar& alpha) {
  IndexWalk walk = walk_along(src, along(index, src.sizes, dim), out, dim);
  dispatch(out.dtype, [&]<class T>() {
    if (alpha.to_double() == 1.0)
      return walk.write<T>(EachElement{[](T& to, const T& from) { to = add_values(to, from); }});
    if constexpr (std::is_integral_v<T>) {
      const auto scale = convert<T>(alpha.to_int());
      walk.write<T>(EachElement{[=](T& to, const T& from) { to = add_values(to, multiply_values(scale, from)); }});
    } else {
      const auto scale = convert<ComputeType<T>>(alpha.to_double());
      walk.write<T>(EachElement{[=](T& to, const T& from) {
        to = T(static_cast<ComputeType<T>>(to) + scale * static_cast<ComputeType<T>>(from));
      }});
    }
  });
}

void index_copy(const View& out, int dim, const View& index, const View& src) {
  scatter(out, along(index, src.sizes, dim), src, dim, ScatterMode::kSet);
}

namespace {
// Few bins: every thread counts in several copies of its own, so that equal neighbours do not wait for each other.
template <class Id>
void count_few(const View& out, const Id* ids, int64_t n, int64_t step) {
  constexpr int64_t kCopies = 4, kGrain = 16384;
  const int64_t bins = out.numel(), threads = std::clamp<int64_t>(n / limited_grain(kGrain), 1, num_threads());
  Buffer buffer(static_cast<size_t>(threads * kCopies * bins) * sizeof(int64_t));
  int64_t* const counts = buffer.as<int64_t>();
  std::fill_n(counts, threads * kCopies * bins, 0);
  parallel_for(threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      int64_t* const mine = counts + t * kCopies * bins;
      const int64_t end = n * (t + 1) / threads;
      int64_t i = n * t / threads;
      for (; i + kCopies <= end; i += kCopies)
        for (int64_t copy = 0; copy < kCopies; ++copy) ++mine[copy * bins + ids[(i + copy) * step]];
      for (; i < end; ++i) ++mine[ids[i * step]];
    }
  });
  for (int64_t copy = 0; copy < threads * kCopies; ++copy)
    for (int64_t b = 0; b < bins; ++b) out.as<int64_t>()[b] += counts[copy * bins + b];
}
}  // namespace

std::pair<int64_t, int64_t> index_range(const View& index) {
  const int64_t *const ids = index.as<int64_t>(), n = index.numel();
  int64_t least = ids[0], largest = ids[0];
  for (int64_t i = 1; i < n; ++i) {
    least = ids[i] < least ? ids[i] : least;
    largest = ids[i] > largest ? ids[i] : largest;
  }
  return {least, largest};
}

void bincount(const View& out, const View& index, const View* weights) {
  const IndexReader ids(index);
  const int64_t n = index.numel(), step = index.ndim() ? index.strides[0] : 0;
  constexpr int64_t kFewBins = 2048;
  if (!weights && out.numel() <= kFewBins && n >= 4 * kFewBins) {
    return ids.wide ? count_few(out, static_cast<const int64_t*>(ids.data), n, step)
                    : count_few(out, static_cast<const int32_t*>(ids.data), n, step);
  }
  if (!weights) {
    for (int64_t i = 0; i < n; ++i) ++out.as<int64_t>()[ids[i * step]];
    return;
  }
  const int64_t w_step = weights->ndim() ? weights->strides[0] : 0;
  dispatch(out.dtype, [&]<class T>() {
    for (int64_t i = 0; i < n; ++i) {
      T& to = out.as<T>()[ids[i * step]];
      to = add_values(to, weights->as<T>()[i * w_step]);
    }
  });
}

}  // namespace deepseek::kernels
