// x[index tensors]: reads and writes of whole runs wherever the dimensions below the last index tensor allow.
#include <algorithm>
#include <cstring>

#include "kernels/index/index.h"
#include "kernels/index/index_walk.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

// Dimensions are split: `outer` ones on which some index varies, and an inner block with one offset for all its
// elements.
struct Split {
  int outer_dims = 0;
  int64_t outer = 1, inner = 1;

  explicit Split(const IndexPlan& plan) {
    const int n = plan.out_sizes.size();
    for (const View& v : plan.indices)
      for (int d = 0; d < n; ++d)
        if (v.strides[d] != 0 && plan.out_sizes[d] != 1) outer_dims = std::max(outer_dims, d + 1);
    for (int d = 0; d < n; ++d) (d < outer_dims ? outer : inner) *= plan.out_sizes[d];
  }
};

struct Offsets {
  int64_t indexed, other;  // elements from the start of the indexed tensor and of the other operand
};

// Offsets of outer position u.
Offsets offsets_of(const IndexPlan& plan, const Dims& other_strides, int outer_dims, int64_t u) {
  int64_t at[kMaxDims];
  for (int d = outer_dims - 1; d >= 0; --d) {
    at[d] = u % plan.out_sizes[d];
    u /= plan.out_sizes[d];
  }
  Offsets o{0, 0};
  for (int d = 0; d < outer_dims; ++d) {
    o.indexed += at[d] * plan.strides[d];
    o.other += at[d] * other_strides[d];
  }
  for (size_t k = 0; k < plan.indices.size(); ++k) {
    int64_t i = 0;
    for (int d = 0; d < outer_dims; ++d) i += at[d] * plan.indices[k].strides[d];
    const int64_t x = IndexReader(plan.indices[k])[i];
    o.indexed += (x < 0 ? x + plan.index_sizes[k] : x) * plan.index_strides[k];
  }
  return o;
}

// The inner block as a loop over (indexed tensor, other operand), in elements from the outer position.
template <class T>
Loop<2> inner_loop(const IndexPlan& plan, const Dims& other_strides, int outer_dims) {
  Loop<2> loop;
  View a, b;
  for (int d = outer_dims; d < plan.out_sizes.size(); ++d) {
    a.sizes.push_back(plan.out_sizes[d]);
    a.strides.push_back(plan.strides[d]);
    b.strides.push_back(other_strides[d]);
  }
  b.sizes = a.sizes;
  loop.add(a);
  loop.add(b);
  loop.item = {sizeof(T), sizeof(T)};
  merge_in_order(loop);
  return loop;
}

template <class T, class F>
void block(Loop<2>& loop, int64_t inner, T* indexed, T* other, F&& f) {
  if (inner == 1) return f(*indexed, *other);
  const int64_t s0 = loop.strides[0].back(), s1 = loop.strides[1].back();
  loop.data = {reinterpret_cast<char*>(indexed), reinterpret_cast<char*>(other)};
  loop.for_range(0, inner, [&](auto p, int64_t n) {
    T* a = reinterpret_cast<T*>(p[0]);
    T* b = reinterpret_cast<T*>(p[1]);
    for (int64_t i = 0; i < n; ++i) f(a[i * s0], b[i * s1]);
  });
}

// f(indexed element, value) in index order for equal destinations: each thread owns a stretch of destinations.
template <class T, class F>
void put(T* dst, const View& values, const IndexPlan& plan, F&& f) {
  const Split split(plan);
  if (split.outer == 0 || split.inner == 0) return;
  Buffer buffer(static_cast<size_t>(split.outer) * sizeof(Offsets));
  Offsets* const at = buffer.as<Offsets>();
  parallel_for(split.outer, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) at[u] = offsets_of(plan, values.strides, split.outer_dims, u);
  });
  int64_t low = at[0].indexed, high = low;
  for (int64_t u = 0; u < split.outer; ++u) low = std::min(low, at[u].indexed), high = std::max(high, at[u].indexed);
  const int64_t width = high - low + 1;
  const int64_t owners = std::min<int64_t>({num_threads(), width, split.outer * split.inner / limited_grain(8192) + 1});
  parallel_for(owners, 1, [&](int64_t begin, int64_t end) {
    Loop<2> loop = inner_loop<T>(plan, values.strides, split.outer_dims);
    const auto border = [&](int64_t i) { return low + width / owners * i + std::min(i, width % owners); };
    const int64_t from = border(begin), to = border(end);
    for (int64_t u = 0; u < split.outer; ++u)
      if (at[u].indexed >= from && at[u].indexed < to)
        block(loop, split.inner, dst + at[u].indexed, values.as<T>() + at[u].other, f);
  });
}

}  // namespace

void index_get(const View& out, const void* in, const IndexPlan& plan) {
  const Split split(plan);
  if (split.outer == 0 || split.inner == 0) return;
  with_word(size_of(out.dtype), [&]<class Word>() {
    const Loop<2> shape = inner_loop<Word>(plan, out.strides, split.outer_dims);
    const bool run =
        shape.sizes.size() == 1 && (split.inner == 1 || (shape.strides[0][0] == 1 && shape.strides[1][0] == 1));
    Word* const from = static_cast<Word*>(const_cast<void*>(in));
    parallel_for(split.outer, grain_for(split.inner * sizeof(Word) * 2), [&](int64_t begin, int64_t end) {
      Loop<2> loop = shape;
      for (int64_t u = begin; u < end; ++u) {
        const Offsets at = offsets_of(plan, out.strides, split.outer_dims, u);
        if (run)
          std::memcpy(out.as<Word>() + at.other, from + at.indexed, static_cast<size_t>(split.inner) * sizeof(Word));
        else
          block(loop, split.inner, from + at.indexed, out.as<Word>() + at.other, [](const Word& a, Word& b) { b = a; });
      }
    });
  });
}

void index_put(void* dst, const View& values, const IndexPlan& plan, bool accumulate) {
  if (!accumulate)
    return with_word(size_of(values.dtype), [&]<class Word>() {
      put(static_cast<Word*>(dst), values, plan, [](Word& to, const Word& from) { to = from; });
    });
  dispatch(values.dtype, [&]<class T>() {
    put(static_cast<T*>(dst), values, plan, [](T& to, const T& from) { to = add_values(to, from); });
  });
}

}  // namespace deepseek::kernels
