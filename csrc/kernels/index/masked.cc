#include "kernels/index/masked.h"

#include <algorithm>
#include <vector>

#include "kernels/index/index_walk.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kChunk = 16384;  // elements counted together

template <class T>
bool is_nonzero(T x) {
  return x != T(0);
}
template <class T>
requires is_small_float<T>
bool is_nonzero(T x) { return static_cast<float>(x) != 0.0f; }

template <class T>
int64_t count_run(const T* p, int64_t step, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += is_nonzero(p[i * step]);
  return count;
}

// starts[c] = nonzero elements before chunk c; the last entry is their total.
template <class T>
std::vector<int64_t> chunk_starts(const View& in) {
  const int64_t n = in.numel(), chunks = (n + kChunk - 1) / kChunk;
  std::vector<int64_t> starts(chunks + 1, 0);
  if (n == 0) return starts;
  Loop<1> loop;
  loop.add(in);
  merge_in_order(loop);
  parallel_for(chunks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      loop.for_range(c * kChunk, std::min(n, (c + 1) * kChunk), [&](auto p, int64_t count) {
        starts[c + 1] += count_run(reinterpret_cast<const T*>(p[0]), loop.strides[0].back(), count);
      });
  });
  for (int64_t c = 0; c < chunks; ++c) starts[c + 1] += starts[c];
  return starts;
}

template <class Word, class F>
void for_masked(const View& x, const View& mask, F&& f) {
  const int64_t n = mask.numel();
  if (n == 0) return;
  const std::vector<int64_t> starts = chunk_starts<uint8_t>(mask);
  Loop<2> loop;
  loop.add(x);
  loop.add(mask);
  merge_in_order(loop);
  const int64_t sx = loop.strides[0].back(), sm = loop.strides[1].back();
  parallel_for(static_cast<int64_t>(starts.size()) - 1, 2, [&](int64_t begin, int64_t end) {
    int64_t at = starts[begin];
    loop.for_range(begin * kChunk, std::min(n, end * kChunk), [&](auto p, int64_t count) {
      Word* const values = reinterpret_cast<Word*>(p[0]);
      const uint8_t* const bits = reinterpret_cast<const uint8_t*>(p[1]);
      for (int64_t i = 0; i < count; ++i)
        if (bits[i * sm]) f(values[i * sx], at++);
    });
  });
}

template <class T>
void nonzero_of(const View& out, const View& in) {
  const int64_t n = in.numel();
  const int nd = in.ndim();
  if (n == 0 || nd == 0) return;
  const std::vector<int64_t> starts = chunk_starts<T>(in);
  Loop<1> loop;
  loop.add(in);
  merge_in_order(loop);
  const int64_t step = loop.strides[0].back();
  parallel_for(static_cast<int64_t>(starts.size()) - 1, 2, [&](int64_t begin, int64_t end) {
    int64_t* row = out.as<int64_t>() + starts[begin] * nd;
    int64_t position = begin * kChunk;
    loop.for_range(position, std::min(n, end * kChunk), [&](auto p, int64_t count) {
      const T* const values = reinterpret_cast<const T*>(p[0]);
      for (int64_t i = 0; i < count; ++i) {
        if (!is_nonzero(values[i * step])) continue;
        int64_t rest = position + i;
        for (int d = nd - 1; d >= 0; --d) {
          row[d] = rest % in.sizes[d];
          rest /= in.sizes[d];
        }
        row += nd;
      }
      position += count;
    });
  });
}

}  // namespace

int64_t count_nonzero(const View& in) {
  return dispatch(in.dtype, [&]<class T>() { return chunk_starts<T>(in).back(); });
}

void nonzero(const View& out, const View& in) {
  dispatch(in.dtype, [&]<class T>() { nonzero_of<T>(out, in); });
}

void masked_select(const View& out, const View& in, const View& mask) {
  with_word(size_of(in.dtype), [&]<class Word>() {
    for_masked<Word>(in, mask, [to = out.as<Word>()](const Word& x, int64_t i) { to[i] = x; });
  });
}

void masked_scatter(const View& out, const View& mask, const View& src) {
  with_word(size_of(out.dtype), [&]<class Word>() {
    for_masked<Word>(out, mask, [from = src.as<Word>()](Word& x, int64_t i) { x = from[i]; });
  });
}

}  // namespace deepseek::kernels
