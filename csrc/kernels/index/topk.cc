// Selection: topk, kthvalue, median. All O(n) a line, and exact: pairs are totally ordered, so there is one answer.
#include "kernels/index/sort.h"
#include "kernels/index/sort_keys.h"
#include "kernels/loops/lines.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kScan = 64;  // elements turned into keys, and tested against the threshold, at a time
constexpr int64_t kHistogramFrom = 4096,
                  kHistogramPart = 64;  // a running selection wins on shorter lines, or k < n / 64

template <class K>
inline constexpr K kLastKey = static_cast<K>(~K(0));  // that of NaN, where there is one

// The elements of a line as keys. What works on keys is compiled once for each size of element, not for each dtype.
template <class K>
class KeyReader {
 public:
  template <class T>
  static KeyReader of(bool largest) {
    return {largest, kFloatKey<T>, [](const void* line, int64_t begin, int64_t count, K flip, K* keys) {
              const T* in = static_cast<const T*>(line) + begin;
              for (int64_t j = 0; j < count; ++j) keys[j] = static_cast<K>(to_key(in[j]) ^ flip);
            }};
  }

  // Keys of the elements from `begin`, at most kScan; returns how many. The least element wanted has the least key.
  int64_t read(const void* line, int64_t begin, int64_t n, K* keys) const {
    const int64_t count = std::min(kScan, n - begin);
    read_(line, begin, count, flip_, keys);
    return count;
  }
  template <class P>
  void read_pairs(const void* line, int64_t n, P* pairs) const {
    K keys[kScan];
    for (int64_t begin = 0; begin < n; begin += kScan) {
      const int64_t count = read(line, begin, n, keys);
      for (int64_t j = 0; j < count; ++j) pairs[begin + j] = P::make(keys[j], begin + j);
    }
  }
  // Position of the first NaN, or -1; where the least element is wanted.
  int64_t first_nan(const void* line, int64_t n) const {
    if (!has_nan_) return -1;
    K keys[kScan];
    for (int64_t begin = 0; begin < n; begin += kScan) {
      const int64_t count = read(line, begin, n, keys);
      for (int64_t j = 0; j < count; ++j)
        if (keys[j] == kLastKey<K>) return begin + j;
    }
    return -1;
  }

 private:
  using Read = void (*)(const void* line, int64_t begin, int64_t count, K flip, K* keys);
  KeyReader(bool largest, bool has_nan, Read read)
      : flip_(largest ? kLastKey<K> : K(0)), has_nan_(has_nan), read_(read) {}

  K flip_;
  bool has_nan_;
  Read read_;
};

// A view of elements as signed words of their size: to move them needs no dtype.
template <class K>
View words_of(View v) {
  v.dtype = dtype_of<std::make_signed_t<K>>;
  return v;
}

// Calls f(reader of keys of type K) for elements of this dtype.
template <class F>
void with_keys(DType dtype, bool largest, F&& f) {
  dispatch(dtype, [&]<class T>() { f(KeyReader<Key<T>>::template of<T>(largest)); });
}

// Keeps the `k` least pairs of the line in `best` (capacity at least `capacity` > k + kScan), in no order.
template <class K, class P>
int64_t select_streaming(const KeyReader<K>& reader, const void* in, int64_t n, int64_t k, P* best, int64_t capacity) {
  K keys[kScan];
  // Until k pairs are held everything passes; afterwards a key equal to the threshold lost already, its position being
  // later.
  bool full = false;
  K threshold = 0;
  int64_t held = 0;
  for (int64_t begin = 0; begin < n; begin += kScan) {
    const int64_t count = reader.read(in, begin, n, keys);
    std::fill(keys + count, keys + kScan, kLastKey<K>);
    K least = keys[0];
    for (int64_t j = 0; j < kScan; ++j) least = std::min(least, keys[j]);
    if (full && least >= threshold) continue;
    for (int64_t j = 0; j < count; ++j)
      if (!full || keys[j] < threshold) best[held++] = P::make(keys[j], begin + j);
    if (held + kScan > capacity) {
      std::nth_element(best, best + k - 1, best + held);
      held = k;
      threshold = static_cast<K>(best[k - 1].key());
      full = true;
    }
  }
  if (held > k) std::nth_element(best, best + k - 1, best + held);
  return std::min(held, k);
}

// The pairs among which the `k` least are, in the order of their positions: those up to the cell of a histogram of
// leading key bits that holds the k-th. 0 when they are more than `capacity`: many keys share their leading bits.
template <class K, class P>
int64_t select_by_histogram(const KeyReader<K>& reader, const void* in, int64_t n, int64_t k, P* found,
                            int64_t capacity) {
  constexpr int kBits = 8 * sizeof(K), kCellBits = std::min(kBits, 12), kShift = kBits - kCellBits;
  uint32_t cells[2][1 << kCellBits] = {};  // neighbours often share a cell: two counters do not wait for each other
  K keys[kScan];
  for (int64_t begin = 0; begin < n; begin += kScan) {
    const int64_t count = reader.read(in, begin, n, keys);
    for (int64_t j = 0; j < count; ++j) ++cells[j % 2][keys[j] >> kShift];
  }
  int64_t held = 0, cell = 0;
  for (; held < k; ++cell) held += cells[0][cell] + cells[1][cell];
  if (held > capacity) return 0;
  const auto last = static_cast<K>(((static_cast<uint64_t>(cell) << kShift) - 1));
  int64_t at = 0;
  for (int64_t begin = 0; begin < n; begin += kScan) {
    const int64_t count = reader.read(in, begin, n, keys);
    K least = keys[0];
    for (int64_t j = 0; j < count; ++j) least = std::min(least, keys[j]);
    if (least > last) continue;
    for (int64_t j = 0; j < count; ++j)
      if (keys[j] <= last) found[at++] = P::make(keys[j], begin + j);
  }
  return held;
}

template <class P, class K, class Word>
void topk_line(const KeyReader<K>& reader, const Word* in, int64_t n, int64_t k, Word* values, RawLine indices) {
  const bool few = k * 4 < n;
  const int64_t capacity = few ? 2 * k + 8 * kScan : n;
  Scratch<P, 1024> storage(capacity);
  P* p = storage.data();
  const int64_t found =
      few && n >= kHistogramFrom && k * kHistogramPart >= n ? select_by_histogram(reader, in, n, k, p, capacity) : 0;
  if (found > 0) {
    sort_pairs(p, found, static_cast<int>(8 * sizeof(K)));
  } else if (few) {
    select_streaming(reader, in, n, k, p, capacity);
    std::sort(p, p + k);
  } else {  // selecting first would cost as much as the radix passes
    reader.read_pairs(in, n, p);
    sort_pairs(p, n, static_cast<int>(8 * sizeof(K)));
  }
  int64_t* index = static_cast<int64_t*>(indices.data);
  for (int64_t i = 0; i < k; ++i) {
    values[i] = in[p[i].index()];
    index[i * indices.stride] = p[i].index();
  }
}

// Position of the k-th least element, k from 0.
template <class P, class K>
int64_t nth_position(const KeyReader<K>& reader, const void* in, int64_t n, int64_t k) {
  Scratch<P, 256> pairs(n);
  P* p = pairs.data();
  reader.read_pairs(in, n, p);
  std::nth_element(p, p + k, p + n);
  return p[k].index();
}

// The k-th least element of every line, k from 0; its first NaN instead where there is one and `nan_first`.
void pick_nth(const View& values, const View& indices, const View& in, int dim, int64_t k, bool nan_first) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  DS_CHECK(k >= 0 && k < n, "internal: element ", k, " of ", n);
  with_keys(in.dtype, /*largest=*/false, [&]<class K>(const KeyReader<K>& reader) {
    for_each_line<std::make_signed_t<K>, 1, 1, 1>(
        {words_of<K>(in)}, {words_of<K>(values)}, {indices}, dim, [=](const auto& x, const auto& y, const auto& raw) {
          int64_t at = nan_first ? reader.first_nan(x[0], n) : -1;
          if (at < 0) at = with_pair<K>(n, [&]<class P>() { return nth_position<P>(reader, x[0], n, k); });
          y[0][0] = x[0][at];
          *static_cast<int64_t*>(raw[0].data) = at;
        });
  });
}

}  // namespace

void topk(const View& values, const View& indices, const View& in, int64_t k, int dim, bool largest) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  DS_CHECK(k >= 0 && k <= n, "internal: topk of ", k, " from ", n);
  if (k == 0) return;
  with_keys(in.dtype, largest, [&]<class K>(const KeyReader<K>& reader) {
    for_each_line<std::make_signed_t<K>, 1, 1, 1>(
        {words_of<K>(in)}, {words_of<K>(values)}, {indices}, dim, [=](const auto& x, const auto& y, const auto& raw) {
          with_pair<K>(n, [&]<class P>() { topk_line<P>(reader, x[0], n, k, y[0], raw[0]); });
        });
  });
}

void kthvalue(const View& values, const View& indices, const View& in, int64_t k, int dim) {
  pick_nth(values, indices, in, dim, k - 1, /*nan_first=*/false);
}

void median(const View& values, const View& indices, const View& in, int dim) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  DS_CHECK(n >= 1 || in.numel() == 0, "internal: median of no elements");
  if (in.numel() > 0) pick_nth(values, indices, in, dim, (n - 1) / 2, /*nan_first=*/true);
}

}  // namespace deepseek::kernels
