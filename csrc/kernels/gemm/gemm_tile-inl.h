// The register tile of float and double products: every caller that goes through it gives the sum that matmul_float.h
// defines. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_GEMM_GEMM_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_GEMM_GEMM_TILE_INL_H_
#undef DEEPSEEK_KERNELS_GEMM_GEMM_TILE_INL_H_
#else
#define DEEPSEEK_KERNELS_GEMM_GEMM_TILE_INL_H_
#endif

#include <cstdint>
#include <utility>

#include "hwy/highway.h"
#include "kernels/gemm/matmul_float.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Register tile: kRows x (kVecs vectors). 24 accumulators of 32 registers, or 12 of 16.
constexpr int kRows = 6;
constexpr int kVecs = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
constexpr int64_t kAhead = 16;  // rows of B between a prefetch and its use

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
HWY_INLINE constexpr int64_t panel_width() {
  return kVecs * static_cast<int64_t>(hn::Lanes(Tag<T>()));
}

// What a tile reads beside its operands. kStream: B comes from memory in short runs, which the hardware does not
// prefetch. kEdge: only some lanes of the last vector exist, in B and in the result.
enum class TileMode { kPlain, kStream, kEdge };

// c[MR, NV vectors] = init + A B over k. A is row-major; init has the rows of c.out and may be null (zero).
template <int MR, int NV, TileMode kMode, class T>
HWY_INLINE void run_tile(int64_t k, const T* HWY_RESTRICT a, int64_t a_row, const T* HWY_RESTRICT b, int64_t b_row,
                         const T* init, const Sums<T>& c, [[maybe_unused]] size_t last) {
  const Tag<T> d;
  using V = hn::Vec<Tag<T>>;
  const int64_t lanes = hn::Lanes(d);
  const auto mask = hn::FirstN(d, last);
  const auto load = [&](const T* p, int v) {
    return kMode == TileMode::kEdge && v == NV - 1 ? hn::MaskedLoad(mask, d, p) : hn::LoadU(d, p);
  };
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[r][v] = init ? hn::LoadU(d, init + r * c.out_row + v * lanes) : hn::Zero(d);
  for (int64_t i = 0; i < k; ++i) {
    V vb[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      vb[v] = load(b + i * b_row + v * lanes, v);
      if (kMode == TileMode::kStream) __builtin_prefetch(b + (i + kAhead) * b_row + v * lanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const V va = hn::Set(d, a[r * a_row + i]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = hn::MulAdd(va, vb[v], acc[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      T* p = c.out + r * c.out_row + v * lanes;
      const V sum = c.from ? hn::Add(load(c.from + r * c.from_row + v * lanes, v), acc[r][v]) : acc[r][v];
      if (kMode == TileMode::kEdge && v == NV - 1)
        hn::BlendedStore(sum, mask, d, p);
      else
        hn::StoreU(sum, d, p);
    }
}

template <int MR, int NV, bool kStream, class T>
void micro(int64_t k, const T* HWY_RESTRICT a, int64_t a_row, const T* HWY_RESTRICT b, int64_t b_row, const T* init,
           const Sums<T>& c) {
  run_tile<MR, NV, kStream ? TileMode::kStream : TileMode::kPlain>(k, a, a_row, b, b_row, init, c, 0);
}
template <int MR, int NV, class T>
void micro_edge(int64_t k, const T* HWY_RESTRICT a, int64_t a_row, const T* HWY_RESTRICT b, int64_t b_row,
                const Sums<T>& c, size_t last) {
  run_tile<MR, NV, TileMode::kEdge>(k, a, a_row, b, b_row, static_cast<const T*>(nullptr), c, last);
}

template <class T>
using MicroFn = void (*)(int64_t, const T*, int64_t, const T*, int64_t, const T*, const Sums<T>&);
template <class T>
using MicroEdgeFn = void (*)(int64_t, const T*, int64_t, const T*, int64_t, const Sums<T>&, size_t);

template <class T>
struct MicroTable {
  MicroFn<T> fn[2][kRows][kVecs];
  MicroEdgeFn<T> edge[kRows][kVecs];
  constexpr MicroTable() : fn(), edge() {
    fill(std::make_integer_sequence<int, 2 * kRows * kVecs>());
    fill_edge(std::make_integer_sequence<int, kRows * kVecs>());
  }
  template <int... I>
  constexpr void fill(std::integer_sequence<int, I...>) {
    ((fn[I / (kRows * kVecs)][I / kVecs % kRows][I % kVecs] =
          &micro<I / kVecs % kRows + 1, I % kVecs + 1, (I >= kRows * kVecs), T>),
     ...);
  }
  template <int... I>
  constexpr void fill_edge(std::integer_sequence<int, I...>) {
    ((edge[I / kVecs][I % kVecs] = &micro_edge<I / kVecs + 1, I % kVecs + 1, T>), ...);
  }
};
template <class T>
constexpr MicroTable<T> kMicro;

// One register tile of `rows` x n. Nothing beyond column n is touched.
template <class T>
void tile(int64_t rows, int64_t n, int64_t k, const T* a, int64_t a_row, const T* b, int64_t b_row, const Sums<T>& c,
          bool stream) {
  const int64_t lanes = hn::Lanes(Tag<T>());
  const int64_t vecs = (n + lanes - 1) / lanes, last = n - (vecs - 1) * lanes;
  if (last == lanes) return kMicro<T>.fn[stream][rows - 1][vecs - 1](k, a, a_row, b, b_row, nullptr, c);
  kMicro<T>.edge[rows - 1][vecs - 1](k, a, a_row, b, b_row, c, static_cast<size_t>(last));
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
