// Runs a kernel on every line along one dimension of a set of views. The kernel sees contiguous lines of type C: lines
// that already are so are passed as they lie, others are gathered (several neighbours at a time, so that every
// cache line is used whole) and results scattered back.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "base/view.h"
#include "kernels/loops/rows.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {

// A small inline array that moves to the allocator when it is too small.
template <class T, int kInline = 64>
class Scratch {
 public:
  explicit Scratch(int64_t n) : n_(n), p_(n <= kInline ? inline_ : static_cast<T*>(allocate(n * sizeof(T)))) {}
  ~Scratch() {
    if (p_ != inline_) deallocate(p_, n_ * sizeof(T));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() { return p_; }
  T& operator[](int64_t i) { return p_[i]; }

 private:
  alignas(64) T inline_[kInline];
  int64_t n_;
  T* p_;
};

// A line left where it is: element i is data[i * stride].
struct RawLine {
  void* data;
  int64_t stride;
};

inline constexpr int64_t kLineBlock = 16;  // most neighbouring lines gathered together; transpose_16x16 knows it

// The kept dimensions of kViews views that agree in all sizes but that of `dim`.
template <size_t kViews>
struct LineSet {
  std::array<int64_t, kViews> n, line_stride, inner_stride;
  std::array<Dims, kViews> outer_strides;
  Dims outer_sizes;
  int64_t inner = 1, outer = 1, block = kLineBlock, blocks_per_outer = 0;

  LineSet(const std::array<View, kViews>& views, int dim) {
    Dims order;
    for (int d = 0; d < views[0].ndim(); ++d)
      if (d != dim && views[0].sizes[d] != 1) order.push_back(d);
    // The closest neighbours are those with the smallest stride in the first view; stride 0 is no neighbourhood.
    auto distance = [&](int64_t d) { return static_cast<uint64_t>(std::abs(views[0].strides[d])) - 1; };
    sort_axes(order, [&](int64_t a, int64_t b) { return distance(a) > distance(b); });
    const int last = order.empty() ? -1 : static_cast<int>(order.back());
    for (int64_t d : order)
      if (d != last) outer_sizes.push_back(views[0].sizes[d]);
    for (int64_t s : outer_sizes) outer *= s;
    if (last >= 0) inner = views[0].sizes[last];
    int64_t least = 1;
    for (size_t v = 0; v < kViews; ++v) {
      const bool scalar = views[v].ndim() == 0;
      n[v] = scalar ? 1 : views[v].sizes[dim];
      line_stride[v] = scalar ? 1 : views[v].strides[dim];
      inner_stride[v] = last < 0 ? 0 : views[v].strides[last];
      for (int64_t d : order)
        if (d != last) outer_strides[v].push_back(views[v].strides[d]);
      if (std::abs(inner_stride[v]) < std::abs(line_stride[v]) && inner_stride[v] != 0) least = 4;
    }
    // Few blocks would leave threads idle; but lines worth gathering together stay together.
    while (block > least && outer * ((inner + block - 1) / block) < 64) block /= 2;
    blocks_per_outer = (inner + block - 1) / block;
  }

  int64_t count() const { return outer * inner; }
  int64_t blocks() const { return outer * blocks_per_outer; }
  int64_t block_begin(int64_t b) const { return b % blocks_per_outer * block; }
  int64_t block_lines(int64_t b) const { return std::min(block, inner - block_begin(b)); }

  // Element offset of a block's first line in view v.
  int64_t offset(size_t v, int64_t b) const {
    int64_t rest = b / blocks_per_outer, at = block_begin(b) * inner_stride[v];
    for (int d = outer_sizes.size() - 1; d >= 0; --d) {
      at += rest % outer_sizes[d] * outer_strides[v][d];
      rest /= outer_sizes[d];
    }
    return at;
  }
};

namespace detail {

template <class C>
inline constexpr bool kRowsConvert =
    std::is_same_v<C, float> || std::is_same_v<C, double> || std::is_same_v<C, int64_t>;

template <class C>
void copy_run(const C* src, int64_t n, C* dst) {
  if (n == kLineBlock)  // a known size becomes a few vector moves
    std::memcpy(dst, src, kLineBlock * sizeof(C));
  else
    std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(C));
}

// to[j][i] = from[i][j] for a tile of kLineBlock x kLineBlock.
template <class C>
void transpose_tile(const C* from, C* to) {
  if constexpr (sizeof(C) == 4) {
    transpose_16x16(from, to);
  } else {
    for (int64_t i = 0; i < kLineBlock; ++i)
      for (int64_t j = 0; j < kLineBlock; ++j) to[j * kLineBlock + i] = from[i * kLineBlock + j];
  }
}

template <class C>
void load_run(const View& view, int64_t at, int64_t stride, int64_t n, C* dst) {
  if (view.dtype == dtype_of<C>) {
    const C* src = view.as<C>() + at;
    if (stride == 1) return copy_run(src, n, dst);
    for (int64_t i = 0; i < n; ++i) dst[i] = src[i * stride];
  } else if constexpr (kRowsConvert<C>) {
    load_row(view.dtype, view.at(at), stride, n, dst);
  } else {
    fail("internal: line of ", view.dtype, " read as ", dtype_of<C>);
  }
}

template <class C>
void store_run(const View& view, int64_t at, int64_t stride, int64_t n, const C* src) {
  if (view.dtype == dtype_of<C>) {
    C* dst = view.as<C>() + at;
    if (stride == 1) return copy_run(src, n, dst);
    for (int64_t i = 0; i < n; ++i) dst[i * stride] = src[i];
  } else if constexpr (kRowsConvert<C>) {
    store_row(view.dtype, view.at(at), stride, n, src);
  } else {
    fail("internal: line of ", dtype_of<C>, " written as ", view.dtype);
  }
}

// Across lines is the short way through memory when neighbours are closer than elements of one line.
inline bool across(int64_t line_stride, int64_t inner_stride, int64_t lines) {
  return lines > 1 && std::abs(inner_stride) < std::abs(line_stride);
}

// Neighbouring lines go through tiles of kLineBlock elements of kLineBlock lines, so that both sides move contiguous
// runs.
template <class C>
void gather_block(const View& view, int64_t at, int64_t line_stride, int64_t inner_stride, int64_t n, int64_t lines,
                  C* dst) {
  if (!across(line_stride, inner_stride, lines)) {
    for (int64_t j = 0; j < lines; ++j) load_run(view, at + j * inner_stride, line_stride, n, dst + j * n);
    return;
  }
  alignas(64) C tile[kLineBlock * kLineBlock], turned[kLineBlock * kLineBlock];
  std::fill_n(tile, kLineBlock * kLineBlock, C());
  for (int64_t i = 0; i < n; i += kLineBlock) {
    const int64_t count = std::min(kLineBlock, n - i);
    for (int64_t e = 0; e < count; ++e)
      load_run(view, at + (i + e) * line_stride, inner_stride, lines, tile + e * kLineBlock);
    transpose_tile(tile, turned);
    for (int64_t j = 0; j < lines; ++j) copy_run(turned + j * kLineBlock, count, dst + j * n + i);
  }
}

template <class C>
void scatter_block(const View& view, int64_t at, int64_t line_stride, int64_t inner_stride, int64_t n, int64_t lines,
                   const C* src) {
  if (!across(line_stride, inner_stride, lines)) {
    for (int64_t j = 0; j < lines; ++j) store_run(view, at + j * inner_stride, line_stride, n, src + j * n);
    return;
  }
  alignas(64) C tile[kLineBlock * kLineBlock], turned[kLineBlock * kLineBlock];
  std::fill_n(tile, kLineBlock * kLineBlock, C());
  for (int64_t i = 0; i < n; i += kLineBlock) {
    const int64_t count = std::min(kLineBlock, n - i);
    for (int64_t j = 0; j < lines; ++j) copy_run(src + j * n + i, count, tile + j * kLineBlock);
    transpose_tile(tile, turned);
    for (int64_t e = 0; e < count; ++e)
      store_run(view, at + (i + e) * line_stride, inner_stride, lines, turned + e * kLineBlock);
  }
}

}  // namespace detail

template <class C, class... V>
bool all_dense(const View& first, const V&... rest) {
  const auto dense = [&](const View& v) { return v.dtype == dtype_of<C> && v.sizes == first.sizes && v.contiguous(); };
  return dense(first) && (dense(rest) && ...);
}

// How many lines there are when they are the last dim of dense views of C, so that line i begins at i * n; else 0.
template <class C, class... V>
int64_t dense_lines(int dim, const View& first, const V&... rest) {
  const int64_t n = first.ndim() > 0 ? first.sizes.back() : 0;
  return n > 0 && dim == first.ndim() - 1 && all_dense<C>(first, rest...) ? first.numel() / n : 0;
}

// Dense views of C whose lines run across memory: [outer, n, inner], the lines along n, neighbours side by side.
struct DenseColumns {
  int64_t outer = 0, n = 0, inner = 0;  // outer 0: not of this form
};
template <class C, class... V>
DenseColumns dense_columns(int dim, const View& first, const V&... rest) {
  if (dim >= first.ndim() - 1 || first.numel() == 0 || !all_dense<C>(first, rest...)) return {};
  DenseColumns c{1, first.sizes[dim], 1};
  for (int d = 0; d < dim; ++d) c.outer *= first.sizes[d];
  for (int d = dim + 1; d < first.ndim(); ++d) c.inner *= first.sizes[d];
  return c;
}

// Calls f(offset, width) for tiles of up to kMost neighbouring columns, narrow enough for a tile to stay in the cache.
template <int64_t kMost, class F>
void for_column_tiles(const DenseColumns& c, int64_t bytes_per_element, F&& f) {
  constexpr int64_t kTileBytes = 256 * 1024, kLeast = 64;
  const int64_t width = std::clamp(kTileBytes / (c.n * bytes_per_element) / kLeast * kLeast, kLeast, kMost);
  const int64_t tiles = (c.inner + width - 1) / width;
  parallel_for(c.outer * tiles, grain_for(c.n * std::min(width, c.inner) * bytes_per_element),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t first = i % tiles * width;
                   f(i / tiles * c.n * c.inner + first, std::min(width, c.inner - first));
                 }
               });
}

// Calls f(in, out, raw) for every line: in[k] and out[k] are contiguous lines of C, raw[k] stays strided.
template <class C, size_t kIn, size_t kOut, size_t kRaw, class F>
void for_each_line(const std::array<View, kIn>& in, const std::array<View, kOut>& out,
                   const std::array<View, kRaw>& raw, int dim, F f) {
  constexpr size_t kViews = kIn + kOut + kRaw;
  std::array<View, kViews> views;
  std::copy(in.begin(), in.end(), views.begin());
  std::copy(out.begin(), out.end(), views.begin() + kIn);
  std::copy(raw.begin(), raw.end(), views.begin() + kIn + kOut);
  const LineSet<kViews> lines(views, dim);
  if (lines.count() == 0) return;
  count_route(Route::kLinesGathered);
  std::array<bool, kViews> direct;
  int64_t buffered = 0, touched = 0;
  for (size_t v = 0; v < kViews; ++v) {
    direct[v] = v >= kIn + kOut || (views[v].dtype == dtype_of<C> && (lines.line_stride[v] == 1 || lines.n[v] == 1));
    if (!direct[v]) buffered += lines.n[v] * std::min(lines.block, lines.inner);
    touched += lines.n[v] * lines.block * size_of(views[v].dtype);
  }
  parallel_for(lines.blocks(), grain_for(touched), [&](int64_t begin, int64_t end) {
    Scratch<C> buffer(buffered);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t count = lines.block_lines(block);
      std::array<C*, kViews> base;
      std::array<int64_t, kViews> step;
      C* next = buffer.data();
      for (size_t v = 0; v < kIn + kOut; ++v) {
        const int64_t at = lines.offset(v, block);
        base[v] = direct[v] ? views[v].template as<C>() + at : next;
        step[v] = direct[v] ? lines.inner_stride[v] : lines.n[v];
        if (direct[v]) continue;
        next += lines.n[v] * count;
        if (v < kIn)
          detail::gather_block(views[v], at, lines.line_stride[v], lines.inner_stride[v], lines.n[v], count, base[v]);
      }
      for (int64_t j = 0; j < count; ++j) {
        std::array<const C*, kIn> line_in;
        std::array<C*, kOut> line_out;
        std::array<RawLine, kRaw> line_raw;
        for (size_t v = 0; v < kIn; ++v) line_in[v] = base[v] + j * step[v];
        for (size_t v = 0; v < kOut; ++v) line_out[v] = base[kIn + v] + j * step[kIn + v];
        for (size_t v = 0; v < kRaw; ++v) {
          const size_t w = kIn + kOut + v;
          line_raw[v] = {views[w].at(lines.offset(w, block) + j * lines.inner_stride[w]), lines.line_stride[w]};
        }
        f(line_in, line_out, line_raw);
      }
      for (size_t v = kIn; v < kIn + kOut; ++v)
        if (!direct[v])
          detail::scatter_block(views[v], lines.offset(v, block), lines.line_stride[v], lines.inner_stride[v],
                                lines.n[v], count, base[v]);
    }
  });
}

}  // namespace deepseek::kernels
