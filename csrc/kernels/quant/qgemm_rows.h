// Rows of activations as int8, cut into the tiles that the kernels of qgemm read, and products of such tiles with
// panels of packed weights.
#pragma once

#include "kernels/quant/qgemm_tile.h"
#include "runtime/allocator.h"

namespace deepseek::kernels {

inline constexpr int64_t kQMostRows = 260;   // of one QTileRows: their words stay in the L2 cache
inline constexpr int64_t kQBlockPanels = 8;  // 128 columns of weights and sums, with 1024 k, stay there too

// Row-major values, float32 or bfloat16, neighbours along a row.
struct FloatRows {
  DType dtype;
  const void* data;
  int64_t row;  // from one to the next, in values

  const void* at(int64_t i) const { return static_cast<const char*>(data) + i * row * size_of(dtype); }
};

// Row i as k codes (quantize_activations), zeros up to `padded`; returns its scale. scratch: k floats.
float quantize_row(const FloatRows& from, int64_t i, int64_t k, int8_t* codes, int64_t padded, float* scratch);

// Rows of int8 in tiles of nearly equal height, each stored as QTile wants it.
class QTileRows {
 public:
  // For products with weights of this form, of at most `most` rows, which are no more than kQMostRows.
  QTileRows(const PackedQuant& w, int64_t most);

  // Makes room for m rows, whose codes (padded() of them, zeros behind k) and scales are then put in any order.
  void cut(int64_t m);
  void put(int64_t i, const int8_t* codes, float scale);

  int64_t padded() const { return words_ * 4; }
  int64_t rows() const { return m_; }
  int64_t tiles() const { return tiles_; }
  int64_t first_row(int64_t tile) const { return first_[tile]; }
  int64_t rows(int64_t tile) const { return first_row(tile + 1) - first_row(tile); }
  int64_t tile_of(int64_t i) const;
  float scale(int64_t i) const { return scales_.as<float>()[i]; }
  int32_t* x(int64_t tile, int64_t step) const {
    return x_.as<int32_t>() + first_row(tile) * words_ + step * (PackedQuant::kStep / 4) * rows(tile);
  }
  int32_t* start(int64_t tile, int64_t block) const {
    return start_.as<int32_t>() + first_row(tile) * blocks_ + block * rows(tile);
  }

 private:
  int64_t k_block_, blocks_, words_;  // words of 4 int8 in a padded row
  int32_t factor_;                    // of a block's sum in what its dot product starts from
  int64_t m_ = 0, tiles_ = 1;
  int64_t first_[kQMostRows / kQTileRows + 2];  // rows where tiles begin, and m
  Buffer scales_, x_, start_;
};

// sums[i * row + c] for all rows of x and the columns of panels [p0, p1) of w. Serial.
void qgemm_panels(const PackedQuant& w, const QTileRows& x, int64_t p0, int64_t p1, float* sums, int64_t row);

}  // namespace deepseek::kernels
