#include "kernels/index/masked.h"

#include <algorithm>
#include <cstring>
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

// f(elements of x, their mask, n, strides of both, selected elements before them) for runs of a chunk.
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
    loop.for_range(begin * kChunk, std::min(n, end * kChunk), [&](const auto& p, int64_t count) {
      f(reinterpret_cast<Word*>(p[0]), sx, reinterpret_cast<const uint8_t*>(p[1]), sm, count, at);
    });
  });
}

// Through a buffer, in which every element is stored and the selected ones are kept: no branch for the CPU to guess.
template <class Word>
void select(const View& out, const View& in, const View& mask) {
  constexpr int64_t kBlock = 1024;
  Word* const to = out.as<Word>();
  const auto keep = [to](const Word* x, int64_t sx, const uint8_t* bits, int64_t sm, int64_t n, int64_t& at) {
    Word kept[kBlock];
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      int64_t count = 0;
      for (int64_t i = begin; i < std::min(n, begin + kBlock); ++i) {
        kept[count] = x[i * sx];
        count += bits[i * sm] != 0;
      }
      std::memcpy(to + at, kept, static_cast<size_t>(count) * sizeof(Word));
      at += count;
    }
  };
  for_masked<Word>(in, mask, [&](const Word* x, int64_t sx, const uint8_t* bits, int64_t sm, int64_t n, int64_t& at) {
    if (sx == 1 && sm == 1)
      keep(x, 1, bits, 1, n, at);
    else
      keep(x, sx, bits, sm, n, at);
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
  with_word(size_of(in.dtype), [&]<class Word>() { select<Word>(out, in, mask); });
}

void masked_scatter(const View& out, const View& mask, const View& src) {
  with_word(size_of(out.dtype), [&]<class Word>() {
    const Word* const from = src.as<Word>();
    for_masked<Word>(out, mask, [=](Word* x, int64_t sx, const uint8_t* bits, int64_t sm, int64_t n, int64_t& at) {
      for (int64_t i = 0; i < n; ++i)
        if (bits[i * sm]) x[i * sx] = from[at++];
    });
  });
}

}  // namespace deepseek::kernels
