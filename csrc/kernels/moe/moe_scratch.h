// One thread's operands and sums while it works on units of grouped products.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>

#include "kernels/gemm/grouped_gemm.h"
#include "kernels/gemm/matmul_float.h"
#include "kernels/moe/moe_plan.h"
#include "kernels/quant/quantize.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"

namespace deepseek::kernels {

inline constexpr int64_t kMoeRowBlock = 480;   // rows of one unit: their sums stay in the L2 cache
inline constexpr int64_t kMoeWidePanels = 16;  // panels of one unit that goes through a matrix row by row
inline constexpr int64_t kMoeFewRows = 8;      // up to here panels go through the L1 cache in chunks of k
inline constexpr int64_t kMoeChunk = 32;       // steps of k in such a chunk
inline constexpr int64_t kMoeStreamRows = 18;  // up to here packing prefetches what comes next, above multiplying does

// A matrix of an expert [k, n], and which of its columns a unit is to do.
struct ExpertMatrix {
  GroupMatrix m;
  int64_t k, n, size;  // bytes of a value
  DType dtype;
  const QuantMatrix* stack = nullptr;  // low-bit codes of the matrices, which m does not point to, and
  int64_t expert = 0;                  // which of them this is

  bool by_columns() const {
    return stack || (m.row == 1 && m.col != 1);
  }  // columns are contiguous: one stretch a panel
  const char* at(int64_t r, int64_t c) const {
    return static_cast<const char*>(m.data) + (r * m.row + c * m.col) * size;
  }
  // Lines of whole columns [c0, c0 + columns).
  Ahead columns_ahead(int64_t c0, int64_t columns) const {
    if (columns <= 0 || m.col != k || stack) return {};
    return {at(0, c0), 64, columns * k * size / 64, 1, 0};
  }
  // Lines of rows [r0, r0 + rows) in columns [c0, c0 + columns).
  Ahead rows_ahead(int64_t r0, int64_t rows, int64_t c0, int64_t columns) const {
    if (rows <= 0 || m.col != 1) return {};
    if (m.row == columns) return {at(r0, c0), 64, rows * columns * size / 64, 1, 0};
    return {at(r0, c0), 64, columns * size / 64, rows, m.row * size};
  }
};

class MoeScratch {
 public:
  // For `parts` left operands of `rows` rows and `k` values each, and results of `panels` panels.
  MoeScratch(const GroupKernel& kernel, int64_t rows, int64_t k, int64_t panels, int64_t parts = 1)
      : kernel_(kernel),
        left_row_(kernel.steps(k) / 16 * 16 + 16 + kPanelPadElements),
        left_part_(rows * left_row_),
        panel_sums_(std::max<int64_t>(rows, 1) * kernel.width),
        left_(static_cast<size_t>(parts * left_part_ * kernel.element)),
        panel_(static_cast<size_t>(kernel.steps(kGemmBlockK) * kernel.width * kernel.element)),
        sums_(static_cast<size_t>(panels * panel_sums_ * sum_bytes())),
        part_(static_cast<size_t>(panels * panel_sums_ * sum_bytes())) {}

  int64_t sum_bytes() const { return kernel_.wide ? 8 : 4; }
  // A row of the results' panel `panel`.
  const char* sums_of(int64_t panel, int64_t row) const {
    return sums_.as<char>() + (panel * panel_sums_ + row * kernel_.width) * sum_bytes();
  }

  void load_rows(const GroupMatrix& m, int64_t rows, int64_t k, int64_t part = 0) {
    kernel_.load_rows(m, rows, k, left(part), left_row_);
  }

  // Columns [c0, c0 + columns) of m as a matrix of their own: where they are, or dequantized in a part of the scratch.
  GroupMatrix columns_of(const ExpertMatrix& m, int64_t c0, int64_t columns, int64_t part = 0) {
    if (!m.stack) return {m.at(0, c0), m.m.row, m.m.col};
    const size_t bytes = static_cast<size_t>(kernel_.width * m.k * m.size);
    if (!columns_) columns_.emplace(2 * bytes);
    char* to = columns_->as<char>() + static_cast<size_t>(part) * bytes;
    dequantize_rows(m.stack->of_stack(m.expert), c0, c0 + columns, m.dtype, to);
    return {to, 1, m.k};
  }

  // Panel 0 = the loaded rows times one panel. pack(k0, k, to) makes values [k0, k0 + k) of that.
  template <class Pack>
  void by_columns(int64_t rows, int64_t k, const Ahead& ahead, Pack&& pack, int64_t part = 0) {
    if (k == 0 && part == 0) clear(0, rows);
    int64_t tile = 0;
    for (int64_t k0 = 0; k0 < k; k0 += kGemmBlockK) {
      const int64_t block = std::min(kGemmBlockK, k - k0),
                    chunk = rows <= kMoeFewRows ? kMoeChunk * kernel_.pair : block;
      const bool add = part > 0 || k0 > 0;
      count_route(rows <= kMoeFewRows ? Route::kMoeFewRows : Route::kMoeManyRows);
      for (int64_t c = 0; c < block; c += chunk) {
        const int64_t count = std::min(chunk, block - c);
        pack(k0 + c, count, panel_.as<char>());
        const bool whole = count == block;  // no chain to be continued
        multiply(part, rows, k0 + c, count, add && !whole ? part_of(0) : result(0),
                 c              ? TileStart::kContinue
                 : add && whole ? TileStart::kAdd
                                : TileStart::kZero,
                 ahead, tile);
        tile += (rows + kTileRows - 1) / kTileRows;
      }
      if (add && chunk < block) add_part(0, rows);
    }
  }

  // Panels [0, panels) = the loaded rows times columns [c0, c0 + columns) of m, which is read row by row.
  void by_rows(int64_t rows, const ExpertMatrix& m, int64_t c0, int64_t columns, int64_t part = 0) {
    const int64_t width = kernel_.width, panels = (columns + width - 1) / width;
    for (int64_t p = 0; p < panels && m.k == 0 && part == 0; ++p) clear(p, rows);
    for (int64_t k0 = 0; k0 < m.k; k0 += kGemmBlockK) {
      const int64_t block = std::min(kGemmBlockK, m.k - k0),
                    chunk = rows <= kChunkedRows ? kMoeChunk * kernel_.pair : block;
      const bool add = part > 0 || k0 > 0, apart = add && chunk < block;
      count_route(Route::kMoeByRows);
      for (int64_t c = 0; c < block; c += chunk) {
        const int64_t count = std::min(chunk, block - c), r = k0 + c;
        const Ahead next = m.rows_ahead(r + count, std::min(chunk, m.k - r - count), c0, columns);
        const char* stream = next.runs == 1 && rows <= kMoeStreamRows ? next.data : nullptr;
        for (int64_t p = 0; p < panels; ++p) {
          kernel_.pack(m.m, r, count, c0 + p * width, std::min(width, columns - p * width), width, panel_.as<char>(),
                       width, &stream);
          multiply(part, rows, r, count, apart ? part_of(p) : result(p),
                   c               ? TileStart::kContinue
                   : add && !apart ? TileStart::kAdd
                                   : TileStart::kZero,
                   rows <= kMoeStreamRows ? Ahead{} : next, p * ((rows + kTileRows - 1) / kTileRows));
        }
      }
      for (int64_t p = 0; p < panels && apart; ++p) add_part(p, rows);
    }
  }

 private:
  static constexpr int64_t kChunkedRows = 96;  // beyond, reading sums back for each chunk costs more than it saves

  char* left(int64_t part) const { return left_.as<char>() + part * left_part_ * kernel_.element; }
  char* result(int64_t panel) const { return sums_.as<char>() + panel * panel_sums_ * sum_bytes(); }
  char* part_of(int64_t panel) const { return part_.as<char>() + panel * panel_sums_ * sum_bytes(); }
  void clear(int64_t panel, int64_t rows) {
    std::memset(result(panel), 0, static_cast<size_t>(rows * kernel_.width * sum_bytes()));
  }

  void multiply(int64_t part, int64_t rows, int64_t k0, int64_t k, void* out, TileStart start, const Ahead& ahead,
                int64_t tile) {
    kernel_.multiply({rows, kernel_.steps(k), left(part) + k0 / kernel_.pair * kernel_.element, left_row_, 1,
                      panel_.as<char>(), out, kernel_.width, start, ahead, tile});
  }

  void add_part(int64_t panel, int64_t rows) {
    kernel_.wide ? add_part_as<double>(panel, rows) : add_part_as<float>(panel, rows);
  }
  template <class T>
  void add_part_as(int64_t panel, int64_t rows) {
    T* to = reinterpret_cast<T*>(result(panel));
    const T* from = reinterpret_cast<const T*>(part_of(panel));
    for (int64_t i = 0; i < rows * kernel_.width; ++i) to[i] += from[i];
  }

  const GroupKernel& kernel_;
  int64_t left_row_, left_part_, panel_sums_;
  Buffer left_, panel_, sums_, part_;
  std::optional<Buffer> columns_;
};

}  // namespace deepseek::kernels
