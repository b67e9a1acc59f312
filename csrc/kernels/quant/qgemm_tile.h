// The inner kernels of qgemm.cc: one tile of at most kQTileRows rows of x times one panel of 16 columns.
#pragma once

#include "kernels/quant/qgemm.h"

namespace deepseek::kernels {

inline constexpr int64_t kQTileRows = 10;  // integer and float sums of 10 rows fill 20 of 32 vector registers

struct QTile {
  const PackedQuant* w;
  int64_t rows;      // of the tile
  int64_t steps;     // 32 k each, from a block's start on
  const int32_t* x;  // steps * 8 groups of `rows` words of 4 int8
  const int32_t*
      start;  // for each block and row what dot begins from: -offset * sum of x, or with zero points -sum of x
  const uint8_t* panel;  // at the block
  float* sums;           // rows of 16
  int64_t sums_row;
  bool first;  // sums begin at zero
};

// The kernels that PackedCodes names: of codes that are bytes, without zero points, and half bytes.
QTileFn qtile_bytes_avx2(const PackedQuant& w, int64_t rows);
QTileFn qtile_bytes_vnni(const PackedQuant& w, int64_t rows);
QTileFn qtile_nibbles_avx2(const PackedQuant& w, int64_t rows);
QTileFn qtile_nibbles_vnni(const PackedQuant& w, int64_t rows);

inline QTileFn qtile_avx2(const PackedQuant& w, int64_t rows) { return w.format->packed->avx2(w, rows); }
// Null without AVX-512 VNNI.
inline QTileFn qtile_vnni(const PackedQuant& w, int64_t rows) { return w.format->packed->vnni(w, rows); }

}  // namespace deepseek::kernels
