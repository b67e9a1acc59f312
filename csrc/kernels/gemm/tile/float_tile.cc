#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/tile/float_tile.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/gemm/tile/float_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kAhead = 16;  // rows of B between a prefetch and its use

template <class Dot, int NV>
struct StreamOperands : TileOperands<Dot> {
  HWY_INLINE void step(int64_t i) const {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) __builtin_prefetch(this->b_data + (i + kAhead) * this->b_row + v * Dot::lanes());
  }
};

// The prefix of a vector, as the last one of a row.
template <class Dot, int NV>
struct EdgeOperands : TileOperands<Dot> {
  using T = typename Dot::Number;
  hn::Mask<Tag<T>> mask;
  HWY_INLINE typename Dot::Sum b(int64_t i, int v) const { return load(this->b_data + i * this->b_row, v); }
  HWY_INLINE typename Dot::Sum load(const T* row, int v) const {
    const T* p = row + v * Dot::lanes();
    return v == NV - 1 ? hn::MaskedLoad(mask, Tag<T>(), p) : hn::LoadU(Tag<T>(), p);
  }
};

template <class T>
struct StreamTile {
  using Dot = FusedDot<T>;
  template <int MR, int NV>
  static void run(const TileOperands<Dot>& operands, const Sums<T>& c) {
    const StreamOperands<Dot, NV> x{operands};
    run_tile<Dot, MR, NV>(
        x, [](int, int) __attribute__((always_inline)) { return Dot::zero(); }, StoreSums<Dot>{c});
  }
};

// Only `last` lanes of the last vector exist.
template <class T>
struct EdgeTile {
  using Dot = FusedDot<T>;
  template <int MR, int NV>
  static void run(const TileOperands<Dot>& operands, const Sums<T>& sums, size_t last) {
    const EdgeOperands<Dot, NV> x{operands, hn::FirstN(Tag<T>(), last)};
    const Sums<T> c = sums;
    run_tile<Dot, MR, NV>(
        x, [](int, int) __attribute__((always_inline)) { return Dot::zero(); },
        [&](int r, int v, typename Dot::Sum sum) __attribute__((always_inline)) {
          if (c.from) sum = hn::Add(x.load(c.from + r * c.from_row, v), sum);
          T* to = c.out + r * c.out_row + v * Dot::lanes();
          if (v == NV - 1)
            hn::BlendedStore(sum, x.mask, Tag<T>(), to);
          else
            hn::StoreU(sum, Tag<T>(), to);
        });
  }
};

template <class Dot>
ProductFn<Dot> product_tile(int64_t rows, int64_t vecs) {
  return tile_of<ProductTile<Dot>, kRows, kVecs>(rows, vecs);
}

template <class T>
void multiply_tile(int64_t rows, int64_t n, const TileOperands<FusedDot<T>>& x, const Sums<T>& c, bool stream) {
  const int64_t lanes = FusedDot<T>::lanes(), vecs = (n + lanes - 1) / lanes, last = n - (vecs - 1) * lanes;
  if (last < lanes) return tile_of<EdgeTile<T>, kRows, kVecs>(rows, vecs)(x, c, static_cast<size_t>(last));
  if (stream) return tile_of<StreamTile<T>, kRows, kVecs>(rows, vecs)(x, c);
  product_tile<FusedDot<T>>(rows, vecs)(x, nullptr, c);
}

template ProductFn<FusedDot<float>> product_tile(int64_t, int64_t);
template ProductFn<FusedDot<double>> product_tile(int64_t, int64_t);
template void multiply_tile(int64_t, int64_t, const TileOperands<FusedDot<float>>&, const Sums<float>&, bool);
template void multiply_tile(int64_t, int64_t, const TileOperands<FusedDot<double>>&, const Sums<double>&, bool);

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
