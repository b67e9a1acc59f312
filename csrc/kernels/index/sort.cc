#include "kernels/index/sort.h"

#include "kernels/index/sort_keys.h"
#include "kernels/loops/lines.h"

namespace deepseek::kernels {
namespace {

template <class T>
int key_bits() {
  return std::is_same_v<T, bool> ? 1 : static_cast<int>(8 * sizeof(T));
}

template <class T, class P>
void sort_line(const T* in, int64_t n, bool descending, T* values, RawLine indices) {
  const Key<T> flip = descending ? static_cast<Key<T>>(~Key<T>(0)) : Key<T>(0);
  Scratch<P, 256> pairs(n);
  P* const p = pairs.data();
  parallel_for(n, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p[i] = P::make(static_cast<Key<T>>(to_key(in[i]) ^ flip), i);
  });
  sort_pairs(p, n, key_bits<T>());
  int64_t* index = static_cast<int64_t*>(indices.data);
  parallel_for(n, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = p[i].index();
      // Reading the value off the key saves a random access to `in`.
      if (!from_key<T>(static_cast<Key<T>>(p[i].key()) ^ flip, &values[i])) values[i] = in[at];
      index[i * indices.stride] = at;
    }
  });
}

// Two values and flags never need comparing: bool keys flip within one bit.
template <>
void sort_line<bool, PackedPair>(const bool* in, int64_t n, bool descending, bool* values, RawLine indices) {
  int64_t* index = static_cast<int64_t*>(indices.data);
  int64_t out = 0;
  for (const bool wanted : {descending, !descending})
    for (int64_t i = 0; i < n; ++i)
      if (in[i] == wanted) values[out] = wanted, index[out++ * indices.stride] = i;
}

template <class T>
void sort_as(const View& values, const View& indices, const View& in, int dim, bool descending) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  for_each_line<T, 1, 1, 1>({in}, {values}, {indices}, dim, [=](const auto& x, const auto& y, const auto& raw) {
    if constexpr (std::is_same_v<T, bool>)
      sort_line<bool, PackedPair>(x[0], n, descending, y[0], raw[0]);
    else
      with_pair<Key<T>>(n, [&]<class P>() { sort_line<T, P>(x[0], n, descending, y[0], raw[0]); });
  });
}

// torch's comparisons, on NaN too: a NaN value goes to the end.
template <class T>
int64_t insertion_point(const T* sorted, int64_t n, T value, bool right) {
  using C = ComputeType<T>;
  const C v = static_cast<C>(value);
  int64_t begin = 0, end = n;
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    const C x = static_cast<C>(sorted[middle]);
    if (right ? !(x > v) : !(x >= v))
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

template <class T>
void searchsorted_as(const View& out, const View& sorted, const View& values, bool right) {
  const int last = values.ndim() - 1;
  const int64_t n = sorted.sizes[last], m = values.sizes[last];
  for_each_line<T, 2, 0, 1>({sorted, values}, {}, {out}, last, [=](const auto& x, const auto&, const auto& raw) {
    int64_t* to = static_cast<int64_t*>(raw[0].data);
    parallel_for(m, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i * raw[0].stride] = insertion_point(x[0], n, x[1][i], right);
    });
  });
}

View at_least_1d(View v) {
  if (v.ndim() == 0) v.sizes = {1}, v.strides = {1};
  return v;
}

}  // namespace

void sort(const View& values, const View& indices, const View& in, int dim, bool descending) {
  dispatch(in.dtype, [&]<class T>() { sort_as<T>(values, indices, in, dim, descending); });
}

void searchsorted(const View& out_view, const View& sorted_view, const View& values_view, bool right) {
  const View out = at_least_1d(out_view), values = at_least_1d(values_view);
  View sorted = at_least_1d(sorted_view);
  DS_CHECK(sorted.dtype == values.dtype, "internal: searchsorted of ", values.dtype, " in ", sorted.dtype);
  if (sorted.ndim() == 1 && values.ndim() > 1) {  // one line for all
    sorted.sizes = values.sizes;
    sorted.strides = Dims::filled(values.ndim(), 0);
    sorted.sizes.back() = sorted_view.sizes.back();
    sorted.strides.back() = sorted_view.strides.back();
  }
  if (out.numel() == 0) return;
  dispatch(values.dtype, [&]<class T>() { searchsorted_as<T>(out, sorted, values, right); });
}

}  // namespace deepseek::kernels
