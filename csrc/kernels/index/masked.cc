#include "kernels/index/masked.h"

#include <algorithm>
#include <cstring>
#include <utility>
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
  if (step == 1)
    for (int64_t i = 0; i < n; ++i) count += is_nonzero(p[i]);
  else
    for (int64_t i = 0; i < n; ++i) count += is_nonzero(p[i * step]);
  return count;
}

// f.operator()<T>() with the type to read elements as: of bool bytes, of which any but 0 is True.
template <class F>
decltype(auto) dispatch_bytes(DType dtype, F&& f) {
  if (dtype == DType::kBool) return f.template operator()<uint8_t>();
  return dispatch(dtype, std::forward<F>(f));
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

// Coordinates of positions that come in ascending order.
class Coordinates {
 public:
  explicit Coordinates(const Dims& sizes) : sizes_(sizes), columns_(sizes.back()), at_(Dims::filled(sizes.size(), 0)) {}
  void put(int64_t position, int64_t* to) {
    if (position - row_begin_ >= columns_) {  // another row
      int64_t rest = position / columns_;
      row_begin_ = rest * columns_;
      for (int d = sizes_.size() - 2; d >= 0; --d) {
        at_[d] = rest % sizes_[d];
        rest /= sizes_[d];
      }
    }
    const int last = sizes_.size() - 1;
    for (int d = 0; d < last; ++d) to[d] = at_[d];
    to[last] = position - row_begin_;
  }

 private:
  const Dims& sizes_;
  int64_t columns_, row_begin_ = 0;
  Dims at_;
};

template <class T>
void nonzero_of(const View& out, const View& in) {
  constexpr int64_t kBlock = 1024;
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
    Coordinates coordinates(in.sizes);
    loop.for_range(position, std::min(n, end * kChunk), [&](const auto& p, int64_t count) {
      const T* const values = reinterpret_cast<const T*>(p[0]);
      int64_t found[kBlock];  // every position is stored, the nonzero ones are kept: no branch for the CPU to guess
      for (int64_t i = 0; i < count; i += kBlock) {
        int64_t some = 0;
        for (int64_t j = i; j < std::min(count, i + kBlock); ++j) {
          found[some] = position + j;
          some += is_nonzero(values[j * step]);
        }
        for (int64_t j = 0; j < some; ++j, row += nd) coordinates.put(found[j], row);
      }
      position += count;
    });
  });
}

}  // namespace

int64_t count_nonzero(const View& in) {
  return dispatch_bytes(in.dtype, [&]<class T>() { return chunk_starts<T>(in).back(); });
}

void check_bools(const char* op, const View& in) {
  Loop<1> loop;
  loop.add(in);
  loop.collapse();
  const int64_t step = loop.inner_stride(0);
  loop.for_range(0, loop.numel(), [&](const auto& p, int64_t n) {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(p[0]);
    uint8_t all = 0;
    for (int64_t i = 0; i < n; ++i) all |= bytes[i * step];
    DS_CHECK(all <= 1, op,
             ": memory of dtype bool holds bytes other than 0 and 1; read it as uint8 and compare: x != 0");
  });
}

void nonzero(const View& out, const View& in) {
  dispatch_bytes(in.dtype, [&]<class T>() { nonzero_of<T>(out, in); });
}

void masked_select(const View& out, const View& in, const View& mask) {
  with_word(size_of(in.dtype), [&]<class Word>() { select<Word>(out, in, mask); });
}

void masked_scatter(const View& out, const View& mask, const View& src) {
  with_word(size_of(out.dtype), [&]<class Word>() {
    const Word *const from = src.as<Word>(), *const end = from + src.numel();
    for_masked<Word>(out, mask, [=](Word* x, int64_t sx, const uint8_t* bits, int64_t sm, int64_t n, int64_t& at) {
      const Word* next = from + at;
      for (int64_t i = 0; i < n && next < end; ++i) {  // all are stored: no branch for the CPU to guess
        const bool taken = bits[i * sm] != 0;
        const auto mask = static_cast<Word>(-static_cast<int64_t>(taken));
        x[i * sx] = static_cast<Word>((*next & mask) | (x[i * sx] & static_cast<Word>(~mask)));
        next += taken;
      }
      at = next - from;
    });
  });
}

}  // namespace deepseek::kernels
