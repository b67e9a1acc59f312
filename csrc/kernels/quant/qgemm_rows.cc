#include "kernels/quant/qgemm_rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/quant/quantize.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kBlockSteps = 32;  // k of panels that several tiles share: 1024

size_t bytes_for(int64_t words) { return static_cast<size_t>(words) * 4; }

QTileFn tile_for(const PackedQuant& w, int64_t rows) {
  const QTileFn fast = qtile_vnni(w, rows);
  return fast ? fast : qtile_avx2(w, rows);
}

}  // namespace

float quantize_row(const FloatRows& from, int64_t i, int64_t k, int8_t* codes, int64_t padded, float* scratch) {
  const void* row = from.at(i);
  const float* x = static_cast<const float*>(row);
  if (from.dtype != DType::kFloat32) {
    for (int64_t j = 0; j < k; ++j) scratch[j] = static_cast<const BFloat16*>(row)[j];
    x = scratch;
  }
  const float scale = quantize_activations(x, k, codes);
  std::memset(codes + k, 0, static_cast<size_t>(padded - k));
  return scale;
}

QTileRows::QTileRows(const PackedQuant& w, int64_t most)
    : k_block_(w.block),
      blocks_(w.blocks()),
      words_(w.steps() * (PackedQuant::kStep / 4)),
      factor_(w.format->has_zeros ? -1 : -w.format->packed->offset),
      scales_(bytes_for(most)),
      x_(bytes_for(most * words_)),
      start_(bytes_for(most * blocks_)) {}

void QTileRows::cut(int64_t m) {
  m_ = m;
  tiles_ = std::max<int64_t>(1, (m + kQTileRows - 1) / kQTileRows);
  for (int64_t t = 0; t <= tiles_; ++t) first_[t] = t * m / tiles_;
}

int64_t QTileRows::tile_of(int64_t i) const {
  int64_t t = i * tiles_ / m_;
  while (first_row(t + 1) <= i) ++t;
  return t;
}

void QTileRows::put(int64_t i, const int8_t* codes, float scale) {
  scales_.as<float>()[i] = scale;
  const int64_t tile = tile_of(i), height = rows(tile), r = i - first_row(tile);
  int32_t* to = x(tile, 0) + r;
  for (int64_t j = 0; j < words_; ++j) std::memcpy(to + j * height, codes + 4 * j, 4);
  int32_t* begin = start(tile, 0) + r;
  for (int64_t b = 0; b < blocks_; ++b) {
    const int64_t end = std::min((b + 1) * k_block_, padded());
    int32_t sum = 0;
    for (int64_t k = b * k_block_; k < end; ++k) sum += codes[k];
    begin[b * height] = factor_ * sum;
  }
}

// A single tile reads each panel once, as one stream; several share blocks of k.
void qgemm_panels(const PackedQuant& w, const QTileRows& x, int64_t p0, int64_t p1, float* sums, int64_t row) {
  if (w.steps() == 0)
    for (int64_t i = 0; i < x.rows(); ++i) std::fill_n(sums + i * row, (p1 - p0) * PackedQuant::kColumns, 0.0f);
  const int64_t k_steps = x.tiles() == 1 ? w.steps() : std::max(kBlockSteps, w.block_steps());
  for (int64_t s = 0; s < w.steps(); s += k_steps)
    for (int64_t t = 0; t < x.tiles(); ++t) {
      const int64_t block = s / w.block_steps();
      QTile tile{&w,  x.rows(t), std::min(k_steps, w.steps() - s), x.x(t, s), x.start(t, block), nullptr, nullptr,
                 row, s == 0};
      const QTileFn run = tile_for(w, tile.rows);
      for (int64_t p = p0; p < p1; ++p) {
        tile.panel = w.panel(p) + block * w.block_bytes();
        tile.sums = sums + x.first_row(t) * row + (p - p0) * PackedQuant::kColumns;
        run(tile);
      }
    }
}

}  // namespace deepseek::kernels
