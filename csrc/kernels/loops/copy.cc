#include "kernels/loops/copy.h"

#include <algorithm>
#include <cstring>

#include "kernels/loops/cast.h"
#include "kernels/loops/iter.h"
#include "kernels/loops/turn_square.h"
#include "kernels/loops/words.h"
#include "kernels/simd/routes.h"
#include "kernels/simd/stream.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kTile = 32;

// nr x nc elements of a tile; where both sides are contiguous along a dim of their own, in squares.
template <class T>
void copy_tile(T* out, int64_t out_row, const T* in, int64_t in_row, int64_t in_col, int64_t nr, int64_t nc) {
  int64_t done = 0;  // rows
  if constexpr (kSquare < T >> 0) {
    constexpr int64_t kSide = kSquare<T>;
    for (; in_row == 1 && done + kSide <= nr; done += kSide) {
      int64_t c = 0;
      for (; c + kSide <= nc; c += kSide)
        turn_square(in + done + c * in_col, in_col, out + done * out_row + c, out_row);
      for (int64_t r = done; r < done + kSide; ++r)
        for (int64_t rest = c; rest < nc; ++rest) out[r * out_row + rest] = in[r + rest * in_col];
    }
  }
  for (int64_t r = done; r < nr; ++r)
    for (int64_t c = 0; c < nc; ++c) out[r * out_row + c] = in[r * in_row + c * in_col];
}

// A transposed inner pair of dims: copy in square tiles so that both sides stay in cache lines.
template <class T>
void copy_tiled(const Loop<2>& loop, int other) {
  const int last = loop.sizes.size() - 1;
  const int64_t rows = loop.sizes[other], cols = loop.sizes[last];
  const int64_t out_row = loop.strides[0][other], in_row = loop.strides[1][other], in_col = loop.strides[1][last];
  Loop<2> outer = loop;
  outer.sizes[other] = (rows + kTile - 1) / kTile;
  outer.sizes[last] = 1;
  for (int k = 0; k < 2; ++k) outer.strides[k][other] *= kTile;
  parallel_for(outer.numel(), std::max<int64_t>(1, grain_for(kTile * cols * sizeof(T) * 2)), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      int64_t rest = i, out_offset = 0, in_offset = 0, row0 = 0;
      for (int d = last; d >= 0; --d) {
        const int64_t at = rest % outer.sizes[d];
        rest /= outer.sizes[d];
        out_offset += at * outer.strides[0][d];
        in_offset += at * outer.strides[1][d];
        if (d == other) row0 = at * kTile;
      }
      T* out = reinterpret_cast<T*>(loop.data[0]) + out_offset;
      const T* in = reinterpret_cast<const T*>(loop.data[1]) + in_offset;
      for (int64_t c = 0; c < cols; c += kTile)
        copy_tile(out + c, out_row, in + c * in_col, in_row, in_col, std::min(kTile, rows - row0),
                  std::min(kTile, cols - c));
    }
  });
}

// Runs that lie in memory the other way round.
template <class T>
void copy_reversed(const Loop<2>& loop) {
  parallel_for(loop.numel(), grain_for(2 * sizeof(T)), [&](int64_t b, int64_t e) {
    loop.for_range(b, e, [&](const auto& p, int64_t n) {
      T* const to = reinterpret_cast<T*>(p[0]);
      const T* const from = reinterpret_cast<const T*>(p[1]) - (n - 1);
      for (int64_t i = 0; i < n; ++i) to[i] = from[n - 1 - i];
    });
  });
}

int64_t add_clamped(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? (b < 0 ? INT64_MIN : INT64_MAX) : sum;
}

// The dim along which the input is contiguous, when it is not the innermost one and both are long enough to tile.
int transposed_dim(const Loop<2>& loop) {
  const int last = loop.sizes.size() - 1;
  if (last < 1 || loop.strides[0][last] != 1 || std::abs(loop.strides[1][last]) <= 1 || loop.sizes[last] < 8) return -1;
  for (int d = 0; d < last; ++d)
    if (loop.strides[1][d] == 1 && loop.sizes[d] >= 8) return d;
  return -1;
}

// The same copy with dims that the input has backwards walked from their ends, the innermost of the output aside.
void walk_forwards(View& out, View& in) {
  for (int d = 0; d < in.ndim(); ++d) {
    if (in.strides[d] >= 0 || out.strides[d] == 1 || in.sizes[d] == 0) continue;
    for (View* v : {&out, &in}) {
      v->data = v->at((v->sizes[d] - 1) * v->strides[d]);
      v->strides[d] = -v->strides[d];
    }
  }
}

}  // namespace

void copy(const View& out, const View& in) {
  const int64_t n = out.numel();
  if (n == 0) return;
  if (out.data == in.data && out.dtype == in.dtype && out.strides == in.strides) return;
  if (out.dtype == in.dtype && out.contiguous() && in.contiguous()) {
    count_route(Route::kCopyBlock);
    const int64_t item = size_of(out.dtype);
    parallel_for(n, grain_for(2 * item), [&](int64_t b, int64_t e) {
      std::memcpy(static_cast<char*>(out.data) + b * item, static_cast<const char*>(in.data) + b * item,
                  (e - b) * item);
    });
    return;
  }
  View to = out, from = in;
  walk_forwards(to, from);
  Loop<2> loop;
  loop.add(to);
  loop.add(from);
  loop.collapse();
  if (out.dtype == in.dtype) {
    if (const int other = transposed_dim(loop); other >= 0) {
      count_route(Route::kCopyTiled);
      return with_word(size_of(out.dtype), [&]<class Word>() { copy_tiled<Word>(loop, other); });
    }
    if (loop.inner_stride(0) == 1 && loop.inner_stride(1) == -1 && loop.inner() >= 8) {
      count_route(Route::kCopyReversed);
      return with_word(size_of(out.dtype), [&]<class Word>() { copy_reversed<Word>(loop); });
    }
  }
  count_route(Route::kCopyCast);
  const CastFn cast = cast_function(in.dtype, out.dtype);
  const int64_t so = loop.inner_stride(0), si = loop.inner_stride(1);
  const int64_t item = size_of(out.dtype), in_item = size_of(in.dtype), both = item + (si == 0 ? 0 : in_item);
  const bool stream = so == 1 && loop.inner() * item >= kStreamBlock && streams(n * both);
  if (stream) count_route(Route::kCopyStream);
  parallel_for(n, grain_for(item + in_item), [&](int64_t b, int64_t e) {
    loop.for_range(b, e, [&](const auto& p, int64_t count) {
      if (!stream) return cast(p[0], so, p[1], si, count);
      stream_items(p[0], item, 0, count, [&](int64_t at, int64_t some, char* buffer) {
        cast(buffer, 1, p[1] + at * si * in_item, si, some);
      });
    });
    if (stream) stream_fence();
  });
}

void fill(const View& out, const void* value, DType from) {
  alignas(16) char converted[16];
  cast_function(from, out.dtype)(converted, 1, value, 1, 1);
  copy(out, View{converted, out.dtype, out.sizes, Dims::filled(out.ndim(), 0)});
}

void copy_band(const View& out, const View& in, int64_t least, int64_t most) {
  const int last = out.ndim() - 1;
  const int64_t rows = out.sizes[last - 1], columns = out.sizes[last], item = size_of(out.dtype);
  const bool runs = out.strides[last] == 1, copied = runs && in.strides[last] == 1;
  if (!copied) copy(out, in);
  Loop<2> loop;  // over rows
  for (View v : {out, in}) {
    v.sizes.erase(last), v.strides.erase(last);
    loop.add(v);
  }
  parallel_for(loop.numel(), grain_for(2 * columns * item), [&](int64_t b, int64_t e) {
    int64_t at = b;
    loop.for_range(b, e, [&](const auto& p, int64_t n) {
      for (int64_t i = 0; i < n; ++i, ++at) {
        char* const to = p[0] + i * loop.inner_stride(0) * item;
        const char* const from = p[1] + i * loop.inner_stride(1) * item;
        const int64_t row = at % rows, begin = std::clamp<int64_t>(add_clamped(row, least), 0, columns);
        const int64_t end = std::clamp<int64_t>(add_clamped(row, most), begin, columns);
        if (runs) {
          std::memset(to, 0, begin * item);
          if (copied && to != from) std::memcpy(to + begin * item, from + begin * item, (end - begin) * item);
          std::memset(to + end * item, 0, (columns - end) * item);
          continue;
        }
        for (int64_t c = 0; c < columns; ++c)
          if (c < begin || c >= end) std::memset(to + c * out.strides[last] * item, 0, item);
      }
    });
  });
}

}  // namespace deepseek::kernels
