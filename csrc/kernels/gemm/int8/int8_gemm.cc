#include "kernels/gemm/int8/int8_gemm.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/simd/routes.h"
#include "kernels/simd/transpose_x86.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

using namespace detail;

constexpr int64_t kPanelBytes = kInt8Columns * kInt8Group;  // of a group of k
constexpr int64_t kBlockGroups = 512;  // 2048 k of the 12 rows of a tile stay in the L1 cache while panels of b pass,
constexpr int64_t kUnitPanels = 16;    // 256 columns of which stay in the L2 cache
constexpr int64_t kFewestRows = 48;    // of a unit
constexpr int64_t kPackRows = 2048;    // of a at a time
constexpr int64_t kLine = 64;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Bytes {
  const uint8_t* data;
  int64_t row, col;
  const uint8_t* at(int64_t r, int64_t c) const { return data + r * row + c * col; }
};
Bytes bytes_of(const View& v) { return {v.as<uint8_t>(), v.strides[0], v.strides[1]}; }

// --- b

// Rows [k0, k0 + 4) and 16 columns that are neighbours.
void pack_rows(const Bytes& b, int64_t k0, int64_t c0, uint8_t* to) {
#if defined(__SSE2__)
  const auto row = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.at(k0 + i, c0))); };
  const __m128i r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3), flip = _mm_set1_epi8(-128);
  const __m128i low01 = _mm_unpacklo_epi8(r0, r1), high01 = _mm_unpackhi_epi8(r0, r1),
                low23 = _mm_unpacklo_epi8(r2, r3), high23 = _mm_unpackhi_epi8(r2, r3);
  const auto store = [&](int64_t i, __m128i v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to) + i, _mm_xor_si128(v, flip));
  };
  store(0, _mm_unpacklo_epi16(low01, low23));
  store(1, _mm_unpackhi_epi16(low01, low23));
  store(2, _mm_unpacklo_epi16(high01, high23));
  store(3, _mm_unpackhi_epi16(high01, high23));
#else
  for (int64_t c = 0; c < kInt8Columns; ++c)
    for (int64_t i = 0; i < kInt8Group; ++i) to[c * kInt8Group + i] = *b.at(k0 + i, c0 + c) ^ 0x80;
#endif
}

// A line of k of 16 columns, whose k are neighbours.
#if defined(__AVX2__)
void pack_lines(const Bytes& b, int64_t k0, int64_t c0, uint8_t* to) {
  constexpr int64_t kSide = 8;  // words and columns of a square
  const __m256 flip = _mm256_castsi256_ps(_mm256_set1_epi8(-128));
  for (int64_t k = 0; k < kLine; k += kSide * kInt8Group)
    for (int64_t c = 0; c < kInt8Columns; c += kSide) {
      __m256 r[kSide];
#pragma GCC unroll 8
      for (int64_t i = 0; i < kSide; ++i)
        r[i] = _mm256_xor_ps(_mm256_loadu_ps(reinterpret_cast<const float*>(b.at(k0 + k, c0 + c + i))), flip);
      transpose_lanes(r);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kSide; ++i)
        _mm256_storeu_ps(reinterpret_cast<float*>(to + (k / kInt8Group + i) * kPanelBytes + c * kInt8Group), r[i]);
    }
}
#else
void pack_lines(const Bytes& b, int64_t k0, int64_t c0, uint8_t* to) {
  for (int64_t c = 0; c < kInt8Columns; ++c)
    for (int64_t k = 0; k < kLine; ++k)
      to[k / kInt8Group * kPanelBytes + c * kInt8Group + k % kInt8Group] = *b.at(k0 + k, c0 + c) ^ 0x80;
}
#endif

// Any strides, and what lies beyond the edges of b: 0, which is 128 here.
void pack_any(const Bytes& b, int64_t k0, int64_t k1, int64_t groups, int64_t c0, int64_t columns, uint8_t* to) {
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t c = 0; c < kInt8Columns; ++c)
      for (int64_t i = 0; i < kInt8Group; ++i) {
        const int64_t k = k0 + g * kInt8Group + i;
        to[g * kPanelBytes + c * kInt8Group + i] = (c < columns && k < k1 ? *b.at(k, c0 + c) : 0) ^ 0x80;
      }
}

// A block of b: panels [p0, p1), groups [g0, g1) of k.
class PackedB {
 public:
  explicit PackedB(const View& b)
      : b_(bytes_of(b)), k_(b.sizes[0]), n_(b.sizes[1]), bytes_(static_cast<size_t>(kUnitPanels * kPanelBlock)) {}

  void pack(int64_t p0, int64_t p1, int64_t g0, int64_t g1) const {
    const int64_t whole = p1 * kInt8Columns <= n_ ? p1 : p1 - 1;  // panels with 16 columns
    const int64_t end = std::min(k_, g1 * kInt8Group);            // of what b has
    const auto to = [&](int64_t p, int64_t g) {
      return bytes_.as<uint8_t>() + (p - p0) * kPanelBlock + (g - g0) * kPanelBytes;
    };
    int64_t done = g0;
    if (b_.col == 1) {
      for (; (done + 1) * kInt8Group <= end; ++done) {
        fetch_rows((done + kGroupsAhead) * kInt8Group, p0 * kInt8Columns, whole * kInt8Columns);
        for (int64_t p = p0; p < whole; ++p) pack_rows(b_, done * kInt8Group, p * kInt8Columns, to(p, done));
      }
    } else if (b_.row == 1) {
      for (; done * kInt8Group + kLine <= end; done += kLine / kInt8Group)
        for (int64_t p = p0; p < whole; ++p) pack_lines(b_, done * kInt8Group, p * kInt8Columns, to(p, done));
    }
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t g = p < whole ? done : g0;
      pack_any(b_, g * kInt8Group, k_, g1 - g, p * kInt8Columns, std::min(kInt8Columns, n_ - p * kInt8Columns),
               to(p, g));
    }
  }
  // Of the block, the panels counted from its first.
  const uint8_t* at(int64_t panel) const { return bytes_.as<uint8_t>() + panel * kPanelBlock; }

 private:
  static constexpr int64_t kPanelBlock = (kBlockGroups + 1) * kPanelBytes;  // panels do not share the sets of a cache
  static constexpr int64_t kGroupsAhead = 12;

  // Rows lie pages apart, where the hardware does not look ahead.
  void fetch_rows(int64_t k0, int64_t c0, int64_t c1) const {
    for (int64_t k = k0; k < std::min(k0 + kInt8Group, k_); ++k)
      for (int64_t c = c0; c < c1; c += kLine) __builtin_prefetch(b_.at(k, c));
  }

  Bytes b_;
  int64_t k_, n_;
  Buffer bytes_;
};

// --- a

// Rows as signed bytes, zeros behind k, `step` bytes apart: no multiple of a page, or the rows of a tile would share
// the sets of a cache.
class PackedA {
 public:
  PackedA(int64_t k, int64_t most)
      : k_(k),
        step_(round_up(k, kLine) + kLine),
        bytes_(static_cast<size_t>(most * step_)),
        start_(static_cast<size_t>(most) * sizeof(int32_t)) {}

  // Rows [i0, i0 + m).
  void load(const View& a, int64_t i0, int64_t m) {
    const Bytes from = bytes_of(a);
    const uint8_t flip = a.dtype == DType::kUInt8 ? 0x80 : 0;
    parallel_for(m, grain_for(2 * k_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) load_row(from.at(i0 + i, 0), from.col, flip, i);
    });
  }
  const int8_t* at(int64_t i, int64_t group) const { return bytes_.as<int8_t>() + i * step_ + group * kInt8Group; }
  const int32_t* start(int64_t i) const { return start_.as<int32_t>() + i; }
  int64_t step() const { return step_; }

 private:
  void load_row(const uint8_t* from, int64_t col, uint8_t flip, int64_t i) {
    auto* to = bytes_.as<uint8_t>() + i * step_;
    if (col == 1 && !flip)
      std::memcpy(to, from, static_cast<size_t>(k_));
    else
      for (int64_t k = 0; k < k_; ++k) to[k] = from[k * col] ^ flip;
    std::memset(to + k_, 0, static_cast<size_t>(step_ - k_));
    const auto* codes = reinterpret_cast<const int8_t*>(to);
    int32_t sum = 0;
    for (int64_t k0 = 0; k0 < step_; k0 += kLine) {  // 16-bit sums of a line do not overflow
      int16_t line = 0;
      for (int64_t k = k0; k < k0 + kLine; ++k) line = static_cast<int16_t>(line + codes[k]);
      sum += line;
    }
    start_.as<uint32_t>()[i] = static_cast<uint32_t>(sum) * static_cast<uint32_t>(-128);
  }

  int64_t k_, step_;
  Buffer bytes_, start_;
};

Int8TileFn tile_for(int64_t rows) {
  const Int8TileFn fast = int8_tile_vnni(rows);
  return fast ? fast : int8_tile_avx2(rows);
}

struct Unit {
  int64_t r0, r1, p0, p1;  // rows of what a holds, panels of b
};

// A block of b is packed and meets the rows while it is in the L2 cache.
void run_unit(const Unit& u, const View& c, const PackedA& a, const PackedB& b, int64_t groups) {
  const int64_t rows = u.r1 - u.r0, tiles = (rows + kInt8TileRows - 1) / kInt8TileRows;
  for (int64_t g = 0; g == 0 || g < groups; g += kBlockGroups) {
    const int64_t count = std::min(kBlockGroups, groups - g);
    b.pack(u.p0, u.p1, g, g + count);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = u.r0 + t * rows / tiles, end = u.r0 + (t + 1) * rows / tiles;
      const Int8TileFn run = tile_for(end - row);
      for (int64_t p = 0; p < u.p1 - u.p0; p += kInt8Panels) {
        const int64_t column = (u.p0 + p) * kInt8Columns, next = std::min(p + 1, u.p1 - u.p0 - 1);
        run({end - row,
             count,
             a.at(row, g),
             a.step(),
             {b.at(p), b.at(next)},
             a.start(row),
             c.as<int32_t>() + row * c.strides[0] + column,
             c.strides[0],
             std::min(kInt8Panels * kInt8Columns, c.sizes[1] - column),
             g > 0});
      }
    }
  }
}

// Few rows: columns are read where they are, once.
void few_rows(const View& c, const PackedA& a, const View& b, Int8DotsFn run) {
  const Bytes from = bytes_of(b);
  parallel_for(c.sizes[1], grain_for(b.sizes[0] * 2), [&](int64_t begin, int64_t end) {
    run({c.sizes[0], b.sizes[0], end - begin, a.at(0, 0), a.step(), from.at(0, begin), from.col, a.start(0),
         c.as<int32_t>() + begin, c.strides[0]});
  });
}

// c += 128 * the sums of b's columns.
void add_column_sums(const View& c, const View& b) {
  const Bytes from = bytes_of(b);
  const int64_t n = c.sizes[1];
  const Buffer buffer(static_cast<size_t>(n) * sizeof(uint32_t));
  auto* sums = buffer.as<uint32_t>();
  std::fill_n(sums, n, 0u);
  for (int64_t k = 0; k < b.sizes[0]; ++k)
    for (int64_t j = 0; j < n; ++j) sums[j] += static_cast<uint32_t>(static_cast<int8_t>(*from.at(k, j)));
  parallel_for(c.sizes[0], grain_for(n * 8), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      auto* row = c.as<uint32_t>() + i * c.strides[0];
      for (int64_t j = 0; j < n; ++j) row[j] += 128 * sums[j];
    }
  });
}

void check(const View& c, const View& a, const View& b) {
  DS_CHECK((a.dtype == DType::kInt8 || a.dtype == DType::kUInt8) && b.dtype == DType::kInt8 &&
               c.dtype == DType::kInt32 && a.ndim() == 2 && b.ndim() == 2 && c.ndim() == 2 &&
               a.sizes[1] == b.sizes[0] && c.sizes[0] == a.sizes[0] && c.sizes[1] == b.sizes[1] &&
               (c.strides[1] == 1 || c.sizes[1] <= 1),
           "int8_gemm: operands do not fit");
}

}  // namespace

void int8_gemm(const View& c, const View& a, const View& b) {
  check(c, a, b);
  const int64_t m = c.sizes[0], n = c.sizes[1], k = a.sizes[1];
  if (m == 0 || n == 0) return;
  count_route(int8_tile_vnni(1) ? Route::kMatmulInt8Vnni : Route::kMatmulInt8Avx2);
  const int64_t groups = round_up(k, 2 * kInt8Group) / kInt8Group, panels = round_up(n, kInt8Columns) / kInt8Columns,
                panel_units = (panels + kUnitPanels - 1) / kUnitPanels;
  const int64_t parts = (m + kPackRows - 1) / kPackRows;
  PackedA rows(k, (m + parts - 1) / parts);
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t i0 = part * m / parts, count = (part + 1) * m / parts - i0;
    rows.load(a, i0, count);
    View to = c;
    to.data = c.as<int32_t>() + i0 * c.strides[0];
    if (m <= kInt8FewRows && b.strides[0] == 1) {
      if (const Int8DotsFn run = int8_dots_vnni(m)) {
        few_rows(c, rows, b, run);
        break;
      }
    }
    // Rows are cut only where there are not enough columns: every cut packs b once more.
    const int64_t most = std::max<int64_t>(1, count / kFewestRows);
    const int64_t row_units = std::clamp<int64_t>(2 * num_threads() / panel_units, 1, num_threads() == 1 ? 1 : most);
    const int64_t work = (count / row_units + kFewestRows) * kUnitPanels * kInt8Columns * (k + kLine) / 16;
    parallel_for(row_units * panel_units, grain_for(work), [&](int64_t begin, int64_t end) {
      const PackedB packed(b);
      for (int64_t u = begin; u < end; ++u) {
        const int64_t r = u / panel_units, p = u % panel_units * kUnitPanels;
        run_unit({r * count / row_units, (r + 1) * count / row_units, p, std::min(p + kUnitPanels, panels)}, to, rows,
                 packed, groups);
      }
    });
  }
  if (a.dtype == DType::kUInt8) add_column_sums(c, b);
}

void int8_gemm_plain(const View& c, const View& a, const View& b) {
  check(c, a, b);
  const Bytes x = bytes_of(a), y = bytes_of(b);
  for (int64_t i = 0; i < c.sizes[0]; ++i)
    for (int64_t j = 0; j < c.sizes[1]; ++j) {
      uint32_t sum = 0;
      for (int64_t k = 0; k < a.sizes[1]; ++k) {
        const uint8_t left = *x.at(i, k);
        const int32_t l = a.dtype == DType::kUInt8 ? left : static_cast<int8_t>(left);
        sum += static_cast<uint32_t>(l * static_cast<int8_t>(*y.at(k, j)));
      }
      c.as<uint32_t>()[i * c.strides[0] + j] = sum;
    }
}

}  // namespace deepseek::kernels
