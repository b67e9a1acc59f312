#include "kernels/loops/copy.h"

#include <cstring>

#include "kernels/loops/cast.h"
#include "kernels/loops/iter.h"
#include "kernels/simd/routes.h"
#include "kernels/simd/stream.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kTile = 32;

// A transposed inner pair of dims: copy in square tiles so that both sides stay in cache lines.
template <class T>
void copy_tiled(const Loop<2>& loop, int other) {
  const int last = loop.sizes.size() - 1;
  const int64_t rows = loop.sizes[other], cols = loop.sizes[last];
  const int64_t out_row = loop.strides[0][other], out_col = loop.strides[0][last];
  const int64_t in_row = loop.strides[1][other], in_col = loop.strides[1][last];
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
      const int64_t nr = std::min(kTile, rows - row0);
      for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
        const int64_t nc = std::min(kTile, cols - c0);
        for (int64_t r = 0; r < nr; ++r)
          for (int64_t c = 0; c < nc; ++c) out[r * out_row + (c0 + c) * out_col] = in[r * in_row + (c0 + c) * in_col];
      }
    }
  });
}

// The dim along which the input is contiguous, when it is not the innermost one and both are long enough to tile.
int transposed_dim(const Loop<2>& loop) {
  const int last = loop.sizes.size() - 1;
  if (last < 1 || loop.strides[0][last] != 1 || std::abs(loop.strides[1][last]) <= 1 || loop.sizes[last] < 8) return -1;
  for (int d = 0; d < last; ++d)
    if (loop.strides[1][d] == 1 && loop.sizes[d] >= 8) return d;
  return -1;
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
  Loop<2> loop;
  loop.add(out);
  loop.add(in);
  loop.collapse();
  if (out.dtype == in.dtype) {
    if (const int other = transposed_dim(loop); other >= 0) {
      count_route(Route::kCopyTiled);
      switch (size_of(out.dtype)) {
        case 1:
          return copy_tiled<uint8_t>(loop, other);
        case 2:
          return copy_tiled<uint16_t>(loop, other);
        case 4:
          return copy_tiled<uint32_t>(loop, other);
        case 8:
          return copy_tiled<uint64_t>(loop, other);
        default:
          fail<NotImplementedError>("internal: copy of elements of ", size_of(out.dtype), " bytes");
      }
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

}  // namespace deepseek::kernels
