#include "kernels/index/index.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/index/index_walk.h"
#include "kernels/loops/cast.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

// `table` is indexed along dim; `flat` has index's sizes. Calls f(table element, flat element) for every position;
// positions that differ only along dim are visited in order by one thread.
struct LineWalk {
  Dims sizes, table, flat, index;  // without dim
  int64_t count = 1, length, table_step, flat_step, index_step;

  LineWalk(const View& t, const View& f, const View& i, int dim)
      : sizes(i.sizes), table(t.strides), flat(f.strides), index(i.strides) {
    if (sizes.empty()) {  // 0-d operands are lines of one element
      length = 1;
      table_step = flat_step = index_step = 0;
      return;
    }
    length = sizes[dim];
    table_step = table[dim];
    flat_step = flat[dim];
    index_step = index[dim];
    for (Dims* d : {&sizes, &table, &flat, &index}) d->erase(dim);
    for (int64_t s : sizes) count *= s;
  }

  // f(table offset, flat offset, index offset, n, table stride, flat stride, index stride) per stretch of lines.
  template <class F>
  void stretches(int64_t begin, int64_t end, F&& f) const {
    const int last = sizes.size() - 1;
    while (begin < end) {
      int64_t rest = begin, t = 0, v = 0, i = 0, n = 1;
      for (int d = last; d >= 0; --d) {
        const int64_t at = rest % sizes[d];
        rest /= sizes[d];
        t += at * table[d], v += at * flat[d], i += at * index[d];
        if (d == last) n = std::min(sizes[d] - at, end - begin);
      }
      if (last < 0)
        f(t, v, i, int64_t{1}, int64_t{0}, int64_t{0}, int64_t{0});
      else
        f(t, v, i, n, table[last], flat[last], index[last]);
      begin += n;
    }
  }
};

template <class T, class F>
void walk_lines(const View& table, const View& flat, const View& index, int dim, F&& f) {
  if (index.numel() == 0) return;
  const LineWalk w(table, flat, index, dim);
  const IndexReader ids(index);
  T* const table_data = table.as<T>();
  T* const flat_data = flat.as<T>();
  parallel_for(w.count, grain_for(w.length * 2 * sizeof(T) + w.length * 8), [&](int64_t begin, int64_t end) {
    w.stretches(begin, end, [&](int64_t t, int64_t v, int64_t i, int64_t n, int64_t ts, int64_t vs, int64_t is) {
      for (int64_t r = 0; r < w.length; ++r) {
        T* to = flat_data + v + r * w.flat_step;
        const int64_t ir = i + r * w.index_step;
        if (is == 0) {
          T* from = table_data + t + ids[ir] * w.table_step;
          for (int64_t j = 0; j < n; ++j) f(from[j * ts], to[j * vs]);
        } else {
          for (int64_t j = 0; j < n; ++j) f(table_data[t + j * ts + ids[ir + j * is] * w.table_step], to[j * vs]);
        }
      }
    });
  });
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

// Elements below dim when they are one contiguous block in both views, else 0.
int64_t block_below(const View& a, const View& b, int dim) {
  int64_t block = 1;
  for (int d = a.ndim() - 1; d > dim; --d) {
    if (a.sizes[d] != 1 && (a.strides[d] != block || b.strides[d] != block)) return 0;
    block *= a.sizes[d];
  }
  return block;
}

}  // namespace

void check_indices(const char* op, const View& index, int64_t size, int dim, bool allow_negative) {
  const int64_t lowest = allow_negative ? -size : 0;
  Loop<1> loop;
  loop.add(index);
  merge_in_order(loop);
  const int64_t n = index.numel();
  if (n == 0) return;
  std::atomic<int64_t> first_bad{n};
  const bool wide = IndexReader(index).wide;
  const int64_t step = loop.strides[0].back();
  parallel_for(n, grain_for(8), [&](int64_t begin, int64_t end) {
    int64_t at = begin;
    loop.for_range(begin, end, [&](auto p, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t x =
            wide ? reinterpret_cast<const int64_t*>(p[0])[i * step] : reinterpret_cast<const int32_t*>(p[0])[i * step];
        if (x >= lowest && x < size) continue;
        int64_t seen = first_bad.load();
        while (at + i < seen && !first_bad.compare_exchange_weak(seen, at + i)) {
        }
      }
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
  with_word(size_of(out.dtype), [&]<class Word>() {
    walk_lines<Word>(in, out, index, dim, [](const Word& from, Word& to) { to = from; });
  });
}

void scatter(const View& out, const View& index, const View& src, int dim, ScatterMode mode) {
  if (mode == ScatterMode::kSet)
    return with_word(size_of(out.dtype), [&]<class Word>() {
      walk_lines<Word>(out, src, index, dim, [](Word& to, const Word& from) { to = from; });
    });
  dispatch(out.dtype, [&]<class T>() {
    const auto run = [&](auto combine) {
      walk_lines<T>(out, src, index, dim, [=](T& to, const T& from) { to = combine(to, from); });
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
  const int64_t block = out.ndim() == 0 ? 0 : block_below(out, in, dim);
  if (block <= 1) return gather(out, in, along(index, out.sizes, dim), dim);
  if (out.numel() == 0) return;
  const IndexReader ids(index);
  const int64_t step = index.ndim() == 0 ? 0 : index.strides[0], n = out.sizes[dim];
  const size_t bytes = static_cast<size_t>(block * size_of(out.dtype));
  int64_t outer = 1;
  for (int d = 0; d < dim; ++d) outer *= out.sizes[d];
  parallel_for(outer * n, grain_for(static_cast<int64_t>(bytes)), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      int64_t rest = u / n, to = u % n * out.strides[dim], from = ids[u % n * step] * in.strides[dim];
      for (int d = dim - 1; d >= 0; --d) {
        to += rest % out.sizes[d] * out.strides[d];
        from += rest % out.sizes[d] * in.strides[d];
        rest /= out.sizes[d];
      }
      std::memcpy(out.at(to), in.at(from), bytes);
    }
  });
}

void index_add(const View& out, int dim, const View& index, const View& src, double alpha) {
  dispatch(out.dtype, [&]<class T>() {
    if (alpha == 1.0)
      return walk_lines<T>(out, src, along(index, src.sizes, dim), dim,
                           [](T& to, const T& from) { to = add_values(to, from); });
    const auto scale = convert<ComputeType<T>>(alpha);
    walk_lines<T>(out, src, along(index, src.sizes, dim), dim, [=](T& to, const T& from) {
      if constexpr (std::is_integral_v<T>)
        to = add_values(to, multiply_values(static_cast<T>(scale), from));
      else
        to = T(static_cast<ComputeType<T>>(to) + scale * static_cast<ComputeType<T>>(from));
    });
  });
}

void index_copy(const View& out, int dim, const View& index, const View& src) {
  scatter(out, along(index, src.sizes, dim), src, dim, ScatterMode::kSet);
}

void bincount(const View& out, const View& index, const View* weights) {
  const IndexReader ids(index);
  const int64_t n = index.numel(), step = index.ndim() ? index.strides[0] : 0;
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
