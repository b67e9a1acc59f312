// Exact products of bytes: c[m, n] = a[m, k] b[k, n] in int32, modulo 2^32. a is int8 or uint8, b int8, any strides.
//
// b is packed into panels of 16 columns, groups of 4 k for each column, as unsigned bytes b + 128 (what vpdpbusd
// takes); a as signed bytes, uint8 less 128. So a tile adds (b + 128) a', and
//   sum of a b = sum of (b + 128) a' - 128 * sum of a'                       for int8, a' = a
//              = sum of (b + 128) a' - 128 * sum of a' + 128 * sum of b      for uint8, a' = a - 128.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// c [m, n]: int32, row-major (rows may lie apart). Over threads.
void int8_gemm(const View& c, const View& a, const View& b);
// The sums in plain loops.
void int8_gemm_plain(const View& c, const View& a, const View& b);

namespace detail {

inline constexpr int64_t kInt8Columns = 16, kInt8Panels = 2;  // columns of a panel, panels of a tile
inline constexpr int64_t kInt8TileRows = 12;                  // 24 of 32 registers are sums
inline constexpr int64_t kInt8Group = 4;                      // k of a word

// Rows of a (`a_row` bytes apart) times two panels, each `groups` words of k for 16 columns; an even number.
struct Int8Tile {
  int64_t rows, groups;
  const int8_t* a;
  int64_t a_row;
  const uint8_t* b[kInt8Panels];
  const int32_t* start;  // for each row: what its sums begin with, where there is nothing in c
  int32_t* c;
  int64_t c_row;
  int64_t columns;  // of c that are written: 1 to 32
  bool add;         // to what is in c
};
using Int8TileFn = void (*)(const Int8Tile& t);

// Null without AVX-512 VNNI.
Int8TileFn int8_tile_vnni(int64_t rows);
Int8TileFn int8_tile_avx2(int64_t rows);

// c[r * c_row + j] = start[r] + the sum of (b + 128) a over k for few rows of a and `columns` columns of b, whose k are
// neighbours and which lie b_col apart. Rows of a have zeros up to a whole line behind k. Null without AVX-512 VNNI.
inline constexpr int64_t kInt8FewRows = 4;
struct Int8Dots {
  int64_t rows, k, columns;
  const int8_t* a;
  int64_t a_row;
  const uint8_t* b;
  int64_t b_col;
  const int32_t* start;
  int32_t* c;
  int64_t c_row;
};
using Int8DotsFn = void (*)(const Int8Dots& d);
Int8DotsFn int8_dots_vnni(int64_t rows);

}  // namespace detail
}  // namespace deepseek::kernels
