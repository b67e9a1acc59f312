#include "kernels/qgemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/matmul.h"
#include "kernels/qgemm_tile.h"
#include "kernels/quantize.h"
#include "kernels/routes.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kColumns = PackedQuant::kColumns, kStep = PackedQuant::kStep;
constexpr int64_t kMostRows = 260;   // quantized at once
constexpr int64_t kBlockPanels = 8;  // 128 columns of weights and sums, with
constexpr int64_t kBlockSteps = 32;  // 1024 k, stay in the L2 cache while the rows pass
constexpr int64_t kFp8Columns = 64;

// Rows [i0, i0 + m) of x as int8, cut into tiles of nearly equal height. A tile is stored as the kernels read it.
class Activations {
 public:
  Activations(const QGemm& g, const PackedQuant& w, int64_t i0, int64_t m)
      : w_(w),
        m_(m),
        tiles_((m + kTileRows - 1) / kTileRows),
        words_(w.steps() * (kStep / 4)),
        scales_(bytes_for(m)),
        x_(bytes_for(m * words_)),
        start_(bytes_for(m * w.blocks())) {
    parallel_for(tiles_, grain_for(w.k * kTileRows * 4), [&](int64_t begin, int64_t end) {
      const Buffer row(bytes_for(2 * w.k + words_));
      for (int64_t t = begin; t < end; ++t)
        for (int64_t i = first_row(t); i < first_row(t + 1); ++i) quantize_row(g, i0 + i, t, i, row.as<float>());
    });
  }

  int64_t tiles() const { return tiles_; }
  int64_t first_row(int64_t tile) const { return tile * m_ / tiles_; }
  int64_t rows(int64_t tile) const { return first_row(tile + 1) - first_row(tile); }
  float scale(int64_t i) const { return scales_.as<float>()[i]; }
  const int32_t* x(int64_t tile, int64_t step) const {
    return x_.as<int32_t>() + first_row(tile) * words_ + step * (kStep / 4) * rows(tile);
  }
  const int32_t* start(int64_t tile, int64_t block) const {
    return start_.as<int32_t>() + first_row(tile) * w_.blocks() + block * rows(tile);
  }

 private:
  static size_t bytes_for(int64_t words) { return static_cast<size_t>(words) * 4; }

  void quantize_row(const QGemm& g, int64_t from, int64_t tile, int64_t i, float* scratch) {
    const float* x;
    if (g.dtype == DType::kFloat32) {
      x = static_cast<const float*>(g.x) + from * g.x_row;
    } else {
      const auto* narrow = static_cast<const BFloat16*>(g.x) + from * g.x_row;
      for (int64_t k = 0; k < w_.k; ++k) scratch[k] = narrow[k];
      x = scratch;
    }
    auto* codes = reinterpret_cast<int8_t*>(scratch + w_.k);
    scales_.as<float>()[i] = quantize_activations(x, w_.k, codes);
    std::memset(codes + w_.k, 0, static_cast<size_t>(words_ * 4 - w_.k));
    const int64_t height = rows(tile), r = i - first_row(tile);
    int32_t* to = const_cast<int32_t*>(this->x(tile, 0)) + r;
    for (int64_t j = 0; j < words_; ++j) std::memcpy(to + j * height, codes + 4 * j, 4);
    const QuantTraits& traits = traits_of(w_.format);
    const int32_t factor = traits.has_zeros ? -1 : -traits.offset;
    int32_t* start = const_cast<int32_t*>(this->start(tile, 0)) + r;
    for (int64_t b = 0; b < w_.blocks(); ++b) {
      const int64_t end = std::min((b + 1) * w_.block, words_ * 4);
      int32_t sum = 0;
      for (int64_t k = b * w_.block; k < end; ++k) sum += codes[k];
      start[b * height] = factor * sum;
    }
  }

  const PackedQuant& w_;
  int64_t m_, tiles_, words_;  // words of 4 int8 in a padded row
  Buffer scales_, x_, start_;
};

float as_float(const void* p, DType t, int64_t i) {
  return t == DType::kFloat32 ? static_cast<const float*>(p)[i] : static_cast<const BFloat16*>(p)[i];
}

// out = fma(sum, x_scale, bias) of columns [j, j + n). Uses up the sums.
void store_row(const QGemm& g, int64_t i, int64_t j, int64_t n, float x_scale, float* sums, const float* bias) {
  if (g.dtype == DType::kFloat32) {
    float* out = static_cast<float*>(g.out) + i * g.out_row + j;
    for (int64_t c = 0; c < n; ++c) out[c] = __builtin_fmaf(sums[c], x_scale, bias[c]);
  } else {
    for (int64_t c = 0; c < n; ++c) sums[c] = __builtin_fmaf(sums[c], x_scale, bias[c]);
    round_to_bfloat16(sums, n, static_cast<uint16_t*>(g.out) + i * g.out_row + j);
  }
}

QTileFn tile_for(const PackedQuant& w, int64_t rows) {
  const QTileFn fast = qtile_vnni(w, rows);
  return fast ? fast : qtile_avx2(w, rows);
}

// Panels [begin, end) for the rows of x. A single tile reads each panel once, as one stream; several share blocks of k.
void some_panels(const QGemm& g, const PackedQuant& w, const Activations& x, int64_t i0, int64_t begin, int64_t end) {
  const int64_t m = x.first_row(x.tiles()), width = kBlockPanels * kColumns;
  const int64_t some = x.tiles() == 1 ? 1 : kBlockPanels;
  const int64_t k_steps = x.tiles() == 1 ? w.steps() : std::max(kBlockSteps, w.block_steps());
  const Buffer sums(static_cast<size_t>((m + 1) * width) * sizeof(float));
  float* bias = sums.as<float>() + m * width;
  for (int64_t p0 = begin; p0 < end; p0 += some) {
    const int64_t p1 = std::min(end, p0 + some);
    for (int64_t s = 0; s < w.steps(); s += k_steps)
      for (int64_t t = 0; t < x.tiles(); ++t) {
        const int64_t block = s / w.block_steps();
        QTile tile{&w,    x.rows(t), std::min(k_steps, w.steps() - s), x.x(t, s), x.start(t, block), nullptr, nullptr,
                   width, s == 0};
        const QTileFn run = tile_for(w, tile.rows);
        for (int64_t p = p0; p < p1; ++p) {
          tile.panel = w.panel(p) + block * w.block_bytes();
          tile.sums = sums.as<float>() + x.first_row(t) * width + (p - p0) * kColumns;
          run(tile);
        }
      }
    const int64_t j = p0 * kColumns, n = std::min(w.n, p1 * kColumns) - j;
    for (int64_t c = 0; c < n; ++c) bias[c] = g.bias ? as_float(g.bias, g.dtype, j + c) : 0;
    for (int64_t i = 0; i < m; ++i) store_row(g, i0 + i, j, n, x.scale(i), sums.as<float>() + i * width, bias);
  }
}

void fill_with_bias(const QGemm& g, int64_t n) {
  const Buffer row(static_cast<size_t>(2 * n) * sizeof(float));
  float *bias = row.as<float>(), *sums = bias + n;
  for (int64_t c = 0; c < n; ++c) bias[c] = g.bias ? as_float(g.bias, g.dtype, c) : 0;
  for (int64_t i = 0; i < g.m; ++i) {
    std::fill(sums, sums + n, 0.0f);
    store_row(g, i, 0, n, 0, sums, bias);
  }
}

}  // namespace

void qgemm(const QGemm& g, const PackedQuant& w) {
  if (g.m == 0 || w.n == 0) return;
  if (w.k == 0) return fill_with_bias(g, w.n);
  count_route(qtile_vnni(w, 1) ? Route::kQgemmVnni : Route::kQgemmAvx2);
  const int64_t parts = (g.m + kMostRows - 1) / kMostRows;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t i0 = part * g.m / parts, m = (part + 1) * g.m / parts - i0;
    const Activations x(g, w, i0, m);
    const int64_t work = w.panel_bytes() * (1 + m / 4);  // a panel's, as bytes of memory that take as long
    parallel_for(w.panels(), grain_for(work),
                 [&](int64_t begin, int64_t end) { some_panels(g, w, x, i0, begin, end); });
  }
}

void qgemm_plain(const QGemm& g, const QuantMatrix& w) {
  const int64_t block = w.block > 0 ? w.block : kWholeRowBlock;
  const Buffer row(static_cast<size_t>(w.k + 1) * sizeof(float)), codes_buffer(static_cast<size_t>(w.k + 1));
  auto* codes = codes_buffer.as<int8_t>();
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t k = 0; k < w.k; ++k) row.as<float>()[k] = as_float(g.x, g.dtype, i * g.x_row + k);
    const float x_scale = quantize_activations(row.as<float>(), w.k, codes);
    for (int64_t j = 0; j < w.n; ++j) {
      const uint8_t* w_row = w.codes + j * w.row_bytes();
      float sum = 0;
      for (int64_t begin = 0; begin < w.k; begin += block) {
        const int64_t at = j * w.blocks() + (w.block > 0 ? begin / block : 0);
        const int32_t zero = w.traits().has_zeros ? w.zeros[at] : w.traits().offset;
        int32_t dot = 0;
        for (int64_t k = begin; k < std::min(w.k, begin + block); ++k) {
          const int32_t code = w.traits().per_byte == 2 ? (w_row[k / 2] >> (k % 2 * 4)) & 15 : w_row[k] ^ 0x80;
          dot += (code - zero) * codes[k];
        }
        sum = std::fma(w.scales[at], static_cast<float>(dot), sum);
      }
      const float bias = g.bias ? as_float(g.bias, g.dtype, j) : 0;
      store_row(g, i, j, 1, x_scale, &sum, &bias);
    }
  }
}

void qgemm_fp8(const QGemm& g, const QuantMatrix& w) {
  DS_CHECK(w.format == QuantFormat::kFp8, "qgemm_fp8 called for ", w.traits().name);
  if (g.m == 0 || w.n == 0) return;
  count_route(Route::kQgemmFp8);
  const int64_t size = size_of(g.dtype);
  const auto at = [&](const void* p, int64_t i) { return const_cast<char*>(static_cast<const char*>(p)) + i * size; };
  parallel_for((w.n + kFp8Columns - 1) / kFp8Columns, grain_for(kFp8Columns * w.k * (4 + g.m)),
               [&](int64_t begin, int64_t end) {
                 const Buffer buffer(static_cast<size_t>(kFp8Columns * (w.k + 1)) * 4);
                 for (int64_t t = begin; t < end; ++t) {
                   const int64_t j = t * kFp8Columns, n = std::min(kFp8Columns, w.n - j);
                   dequantize_rows(w, j, j + n, g.dtype, buffer.as<void>());
                   const View x{at(g.x, 0), g.dtype, {g.m, w.k}, {g.x_row, 1}},
                       tile{buffer.as<void>(), g.dtype, {w.k, n}, {1, w.k}};
                   const View out{at(g.out, j), g.dtype, {g.m, n}, {g.out_row, 1}};
                   if (!g.bias) {
                     matmul(out, x, tile);
                   } else {
                     const View bias{at(g.bias, j), g.dtype, {n}, {1}};
                     matmul(out, x, tile, &bias);
                   }
                 }
               });
}

}  // namespace deepseek::kernels
