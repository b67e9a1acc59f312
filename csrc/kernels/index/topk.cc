// Selection: topk, kthvalue, median. All O(n) a line, and exact: pairs are totally ordered, so there is one answer.
#include "kernels/index/sort.h"
#include "kernels/index/sort_keys.h"
#include "kernels/loops/lines.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kScan = 64;  // elements tested against the threshold at a time
constexpr int64_t kHistogramFrom = 4096,
                  kHistogramPart = 64;  // a running selection wins on shorter lines, or k < n / 64

// Keeps the `k` least pairs of the line in `best` (capacity at least `capacity` > k + kScan), in no order.
template <class T, class P>
int64_t select_streaming(const T* in, int64_t n, int64_t k, Key<T> flip, P* best, int64_t capacity) {
  Key<T> keys[kScan];
  // Until k pairs are held everything passes; afterwards a key equal to the threshold lost already, its position being
  // later.
  bool full = false;
  Key<T> threshold = 0;
  int64_t held = 0;
  for (int64_t begin = 0; begin < n; begin += kScan) {
    const int64_t count = std::min(kScan, n - begin);
    if (count == kScan) {
      for (int64_t j = 0; j < kScan; ++j) keys[j] = static_cast<Key<T>>(to_key(in[begin + j]) ^ flip);
    } else {
      for (int64_t j = 0; j < count; ++j) keys[j] = static_cast<Key<T>>(to_key(in[begin + j]) ^ flip);
      std::fill(keys + count, keys + kScan, kNanKey<T>);
    }
    Key<T> least = keys[0];
    for (int64_t j = 0; j < kScan; ++j) least = std::min(least, keys[j]);
    if (full && least >= threshold) continue;
    for (int64_t j = 0; j < count; ++j)
      if (!full || keys[j] < threshold) best[held++] = P::make(keys[j], begin + j);
    if (held + kScan > capacity) {
      std::nth_element(best, best + k - 1, best + held);
      held = k;
      threshold = static_cast<Key<T>>(best[k - 1].key());
      full = true;
    }
  }
  if (held > k) std::nth_element(best, best + k - 1, best + held);
  return std::min(held, k);
}

// The pairs among which the `k` least are, in the order of their positions: those up to the cell of a histogram of
// leading key bits that holds the k-th. 0 when they are more than `capacity`: many keys share their leading bits.
template <class T, class P>
int64_t select_by_histogram(const T* in, int64_t n, int64_t k, Key<T> flip, P* found, int64_t capacity) {
  constexpr int kBits = 8 * sizeof(T), kCellBits = std::min(kBits, 12), kShift = kBits - kCellBits;
  uint32_t cells[2][1 << kCellBits] = {};  // neighbours often share a cell: two counters do not wait for each other
  Key<T> keys[kScan];
  const auto read = [&](int64_t begin) {
    const int64_t count = std::min(kScan, n - begin);
    for (int64_t j = 0; j < count; ++j) keys[j] = static_cast<Key<T>>(to_key(in[begin + j]) ^ flip);
    return count;
  };
  for (int64_t begin = 0; begin < n; begin += kScan) {
    const int64_t count = read(begin);
    for (int64_t j = 0; j < count; ++j) ++cells[j % 2][keys[j] >> kShift];
  }
  int64_t held = 0, cell = 0;
  for (; held < k; ++cell) held += cells[0][cell] + cells[1][cell];
  if (held > capacity) return 0;
  const auto last = static_cast<Key<T>>(((static_cast<uint64_t>(cell) << kShift) - 1));
  int64_t at = 0;
  for (int64_t begin = 0; begin < n; begin += kScan) {
    const int64_t count = read(begin);
    Key<T> least = keys[0];
    for (int64_t j = 0; j < count; ++j) least = std::min(least, keys[j]);
    if (least > last) continue;
    for (int64_t j = 0; j < count; ++j)
      if (keys[j] <= last) found[at++] = P::make(keys[j], begin + j);
  }
  return held;
}

template <class T, class P>
void topk_line(const T* in, int64_t n, int64_t k, bool largest, T* values, RawLine indices) {
  const Key<T> flip = largest ? static_cast<Key<T>>(~Key<T>(0)) : Key<T>(0);
  const bool few = k * 4 < n;
  const int64_t capacity = few ? 2 * k + 8 * kScan : n;
  Scratch<P, 1024> storage(capacity);
  P* p = storage.data();
  const int64_t found = few && n >= kHistogramFrom && k * kHistogramPart >= n
                            ? select_by_histogram<T, P>(in, n, k, flip, p, capacity)
                            : 0;
  if (found > 0) {
    sort_pairs(p, found, static_cast<int>(8 * sizeof(T)));
  } else if (few) {
    select_streaming(in, n, k, flip, p, capacity);
    std::sort(p, p + k);
  } else {  // selecting first would cost as much as the radix passes
    for (int64_t i = 0; i < n; ++i) p[i] = P::make(static_cast<Key<T>>(to_key(in[i]) ^ flip), i);
    sort_pairs(p, n, static_cast<int>(8 * sizeof(T)));
  }
  int64_t* index = static_cast<int64_t*>(indices.data);
  for (int64_t i = 0; i < k; ++i) {
    values[i] = in[p[i].index()];
    index[i * indices.stride] = p[i].index();
  }
}

// Position of the k-th least element, k from 0.
template <class T, class P>
int64_t nth_position(const T* in, int64_t n, int64_t k) {
  DS_CHECK(k >= 0 && k < n, "internal: element ", k, " of ", n);
  Scratch<P, 256> pairs(n);
  P* p = pairs.data();
  for (int64_t i = 0; i < n; ++i) p[i] = P::make(to_key(in[i]), i);
  std::nth_element(p, p + k, p + n);
  return p[k].index();
}

template <class T>
int64_t first_nan(const T* in, int64_t n) {
  if constexpr (kFloatKey<T>)
    for (int64_t i = 0; i < n; ++i)
      if (to_key(in[i]) == kNanKey<T>) return i;
  return -1;
}

// pick(line) gives the position of the element to report.
template <class T, class F>
void pick_one(const View& values, const View& indices, const View& in, int dim, F pick) {
  for_each_line<T, 1, 1, 1>({in}, {values}, {indices}, dim, [&](const auto& x, const auto& y, const auto& raw) {
    const int64_t at = pick(x[0]);
    y[0][0] = x[0][at];
    *static_cast<int64_t*>(raw[0].data) = at;
  });
}

}  // namespace

void topk(const View& values, const View& indices, const View& in, int64_t k, int dim, bool largest) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  DS_CHECK(k >= 0 && k <= n, "internal: topk of ", k, " from ", n);
  if (k == 0) return;
  dispatch(in.dtype, [&]<class T>() {
    for_each_line<T, 1, 1, 1>({in}, {values}, {indices}, dim, [=](const auto& x, const auto& y, const auto& raw) {
      with_pair<T>(n, [&]<class P>() { topk_line<T, P>(x[0], n, k, largest, y[0], raw[0]); });
    });
  });
}

void kthvalue(const View& values, const View& indices, const View& in, int64_t k, int dim) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  DS_CHECK(k >= 1 && k <= n, "internal: kthvalue of ", k, " from ", n);
  dispatch(in.dtype, [&]<class T>() {
    pick_one<T>(values, indices, in, dim, [=](const T* line) {
      return with_pair<T>(n, [&]<class P>() { return nth_position<T, P>(line, n, k - 1); });
    });
  });
}

void median(const View& values, const View& indices, const View& in, int dim) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  DS_CHECK(n >= 1 || in.numel() == 0, "internal: median of no elements");
  if (in.numel() == 0) return;
  dispatch(in.dtype, [&]<class T>() {
    pick_one<T>(values, indices, in, dim, [=](const T* line) {
      const int64_t nan = first_nan(line, n);
      if (nan >= 0) return nan;
      return with_pair<T>(n, [&]<class P>() { return nth_position<T, P>(line, n, (n - 1) / 2); });
    });
  });
}

}  // namespace deepseek::kernels
