#include "kernels/gemm/matmul_float.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "kernels/gemm/tile/prefetch.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/matmul_float.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/gemm/matmul_columns-inl.h"
#include "kernels/gemm/tile/float_tile-inl.h"
#include "kernels/gemm/tile/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kBlockK = kGemmBlockK;
constexpr int64_t kBlockBytesB =
    HWY_TARGET <= HWY_AVX3 ? 256 * 1024 : 192 * 1024;  // packed B and the next block fit in L2
constexpr int64_t kBlockM = 960;                       // packed A stays in the L3 cache
constexpr int64_t kChunkK = 64;  // few rows: pack and use this many rows of B while they are in the L1 cache
constexpr int64_t kFewRows = 30;

// Scratch memory, taken from the allocator when first needed and kept for a batch of problems.
class PackBuffer {
 public:
  template <class T>
  T* get(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (bytes > size_) {
      release();
      p_ = allocate(bytes);
      size_ = bytes;
    }
    return static_cast<T*>(p_);
  }
  PackBuffer() = default;
  PackBuffer(const PackBuffer&) = delete;
  PackBuffer& operator=(const PackBuffer&) = delete;
  ~PackBuffer() { release(); }

 private:
  void release() {
    if (p_) deallocate(p_, size_);
    p_ = nullptr;
  }
  void* p_ = nullptr;
  size_t size_ = 0;
};

template <class S, class T>
class Runner {
 public:
  explicit Runner(const Gemm& g) : g_(g) {}

  void run(const S* a, const S* b, Sums<T> c) {
    const int64_t done = dot_rows(a, b, c);
    if (done == g_.n) return;
    b += done * g_.b_col;
    c = c.at(0, done);
    columns_ = g_.n - done;
    for (int64_t i0 = 0; i0 < g_.m; i0 += row_block()) {
      const int64_t m = std::min(row_block(), g_.m - i0);
      for (int64_t k0 = 0; k0 < g_.k; k0 += kBlockK) {
        const int64_t k = std::min(kBlockK, g_.k - k0);
        int64_t a_row = g_.a_row;
        const T* pa = rows_of_a(a + i0 * g_.a_row + k0 * g_.a_col, m, k, &a_row);
        const Sums<T> to = (k0 == 0 ? c : c.added_to()).at(i0, 0);
        const S* pb = b + k0 * g_.b_row;
        if (m <= kFewRows || narrow_b(k))
          few_rows(m, k, pa, a_row, pb, to);
        else
          many_rows(m, k, pa, a_row, pb, to, g_.k - k0 - k);
      }
    }
  }

 private:
  static constexpr bool kSame = std::is_same_v<S, T>;
  bool direct_a() const { return kSame && (g_.a_col == 1 || g_.k == 1); }
  int64_t row_block() const { return direct_a() ? g_.m : kBlockM; }

  // Few rows times contiguous columns: whole vectors of columns, all of k. Returns how many columns are done.
  int64_t dot_rows([[maybe_unused]] const S* a, [[maybe_unused]] const S* b, [[maybe_unused]] const Sums<T>& c) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    if constexpr (std::is_same_v<T, float>) {
      constexpr int64_t kSide = block_side<float>();
      if (g_.m > kMaxDotRows || g_.b_row != 1 || g_.k < kSide || g_.n < kSide) return 0;
      DS_COUNT_ROUTE(MatmulDotRows);
      return multiply_columns(g_, blocks_of_a(a), b, c);
    }
#endif
    return 0;
  }

  // [k / side, m, side]: A as dot_columns reads it.
  const T* blocks_of_a(const S* a) {
    constexpr int64_t kSide = block_side<T>();
    if constexpr (kSame)
      if (g_.m == 1 && g_.a_col == 1) return a;  // is that already
    T* packed = scratch_a_.template get<T>((g_.k + kSide - 1) / kSide * kSide * g_.m);
    for (int64_t k0 = 0; k0 < g_.k; k0 += kSide)
      pack(a + k0 * g_.a_col, g_.a_row, g_.a_col, g_.m, std::min(kSide, g_.k - k0), packed + k0 * g_.m, kSide);
    return packed;
  }

  const T* rows_of_a(const S* a, int64_t m, int64_t k, int64_t* a_row) {
    if constexpr (kSame)
      if (direct_a()) return a;
    T* packed = scratch_a_.template get<T>(m * k);
    pack(a, g_.a_row, g_.a_col, m, k, packed, k);
    *a_row = k;
    return packed;
  }

  // Prefetching pays when B comes from memory and costs when it is in the cache; it never changes a result.
  bool large_b() const { return g_.n * g_.k * static_cast<int64_t>(sizeof(S)) > (int64_t{4} << 20); }
  bool direct_b() const { return kSame && (g_.b_col == 1 || g_.n == 1); }
  // B is one panel that stays in the L1 cache: nothing to pack.
  bool narrow_b(int64_t k) const {
    return direct_b() && columns_ <= panel_width<T>() && k * g_.b_row * static_cast<int64_t>(sizeof(T)) <= 32 * 1024;
  }

  // k_after: what of k comes after this block.
  void many_rows(int64_t m, int64_t k, const T* a, int64_t a_row, const S* b, const Sums<T>& c, int64_t k_after) {
    DS_COUNT_ROUTE(MatmulManyRows);
    const int64_t w = panel_width<T>();
    const int64_t block = std::max(kBlockBytesB / static_cast<int64_t>(sizeof(T)) / kBlockK / w, int64_t{1}) * w;
    const int64_t ahead = g_.b_row == 1 ? block_side<T>() : w;
    T* packed = scratch_b_.template get<T>(std::min(block, (columns_ + w - 1) / w * w) * k);
    for (int64_t j0 = 0; j0 < columns_; j0 += block) {
      const int64_t n = std::min(block, columns_ - j0);
      for (int64_t j = 0; j < n; j += w)
        pack_padded(b + (j0 + j) * g_.b_col, g_.b_row, g_.b_col, k, std::min(w, n - j), packed + j * k, w,
                    ahead * g_.b_col);
      RowsPrefetch next;
      if (large_b()) next = next_block(g_, b, columns_, block, j0 + block, k, k_after);
      const int64_t tiles = (m + kRows - 1) / kRows * ((n + w - 1) / w), lines = (next.lines() + tiles - 1) / tiles;
      for (int64_t i = 0; i < m; i += kRows)
        for (int64_t j = 0; j < n; j += w) {
          next.advance(lines);
          multiply_tile<T>(std::min<int64_t>(kRows, m - i), std::min(w, n - j),
                           {k, a + i * a_row, a_row, packed + j * k, w}, c.at(i, j0 + j), false);
        }
    }
  }

  void few_rows(int64_t m, int64_t k, const T* a, int64_t a_row, const S* b, const Sums<T>& c) {
    const int64_t w = panel_width<T>();
    for (int64_t j = 0; j < columns_; j += w) {
      const int64_t n = std::min(w, columns_ - j);
      if constexpr (kSame) {
        if (direct_b()) {
          DS_COUNT_ROUTE(MatmulFewRows);
          for (int64_t i = 0; i < m; i += kRows)
            multiply_tile<T>(std::min<int64_t>(kRows, m - i), n, {k, a + i * a_row, a_row, b + j, g_.b_row}, c.at(i, j),
                             large_b());
          continue;
        }
      }
      DS_COUNT_ROUTE(MatmulFewRowsPacked);
      few_rows_packed(m, k, a, a_row, b + j * g_.b_col, n, c.at(0, j));
    }
  }

  // Partial sums of a block of k stay in a scratch tile while chunks of B pass through the L1 cache.
  void few_rows_packed(int64_t m, int64_t k, const T* a, int64_t a_row, const S* b, int64_t n, const Sums<T>& c) {
    constexpr int64_t kMaxWidth = kVecs * HWY_MAX_BYTES / sizeof(T);
    HWY_ALIGN T panel[kChunkK * kMaxWidth];
    HWY_ALIGN T sums[kFewRows * kMaxWidth];
    const int64_t lanes = hn::Lanes(Tag<T>());
    const int vecs = static_cast<int>((n + lanes - 1) / lanes);
    const int64_t width = vecs * lanes;
    for (int64_t k0 = 0; k0 < k; k0 += kChunkK) {
      const int64_t chunk = std::min(kChunkK, k - k0);
      pack_padded(b + k0 * g_.b_row, g_.b_row, g_.b_col, chunk, n, panel, width, large_b() ? chunk : 0);
      for (int64_t i = 0; i < m; i += kRows) {
        T* s = sums + i * width;
        product_tile<FusedDot<T>>(std::min<int64_t>(kRows, m - i), vecs)(
            {chunk, a + i * a_row + k0, a_row, panel, width}, k0 ? s : nullptr, {s, width});
      }
    }
    store_tile(sums, width, m, n, c);
  }

  const Gemm& g_;
  int64_t columns_ = 0;  // that the packing kernels have to do
  PackBuffer scratch_a_, scratch_b_;
};

// A row is a block of four lanes.
HWY_INLINE void multiply_4x4(const float* a, const float* b, const Sums<float>& c) {
  const Tag<float> d;
  for (size_t at = 0; at < 16; at += hn::Lanes(d)) {
    const auto rows = hn::LoadU(d, a + at);
    auto sum = hn::MulAdd(hn::Broadcast<0>(rows), hn::LoadDup128(d, b), hn::Zero(d));
    sum = hn::MulAdd(hn::Broadcast<1>(rows), hn::LoadDup128(d, b + 4), sum);
    sum = hn::MulAdd(hn::Broadcast<2>(rows), hn::LoadDup128(d, b + 8), sum);
    sum = hn::MulAdd(hn::Broadcast<3>(rows), hn::LoadDup128(d, b + 12), sum);
    hn::StoreU(c.from ? hn::Add(hn::LoadU(d, c.from + at), sum) : sum, d, c.out + at);
  }
}

template <class S, class T>
void run_all(const Gemm& g, int64_t count, int64_t a_step, int64_t b_step, int64_t c_step) {
  if constexpr (std::is_same_v<S, float>)
    if (is_dense_4x4(g)) {
      DS_COUNT_ROUTE(Matmul4x4);
      for (int64_t i = 0; i < count; ++i)
        multiply_4x4(static_cast<const float*>(g.a) + i * a_step, static_cast<const float*>(g.b) + i * b_step,
                     g.sums<float>().at(0, i * c_step));
      return;
    }
  Runner<S, T> runner(g);
  for (int64_t i = 0; i < count; ++i)
    runner.run(static_cast<const S*>(g.a) + i * a_step, static_cast<const S*>(g.b) + i * b_step,
               g.sums<T>().at(0, i * c_step));
}

void GemmFloat(const Gemm& g, int64_t count, int64_t a_step, int64_t b_step, int64_t c_step) {
  switch (g.dtype) {
    case DType::kFloat32:
      DS_COUNT_ROUTE(MatmulF32);
      return run_all<float, float>(g, count, a_step, b_step, c_step);
    case DType::kFloat64:
      DS_COUNT_ROUTE(MatmulF64);
      return run_all<double, double>(g, count, a_step, b_step, c_step);
    case DType::kBFloat16:
      DS_COUNT_ROUTE(MatmulBf16AsF32);
      return run_all<BFloat16, float>(g, count, a_step, b_step, c_step);
    case DType::kFloat16:
      DS_COUNT_ROUTE(MatmulF16AsF32);
      return run_all<Half, float>(g, count, a_step, b_step, c_step);
    case DType::kBool:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
      break;
  }
  fail<TypeError>("matmul: no kernel for ", g.dtype);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(GemmFloat);

namespace {

// The product over no k at all.
template <class T>
void copy_c0(const Gemm& g, const Sums<T>& c) {
  for (int64_t i = 0; i < g.m; ++i) {
    T* to = c.out + i * c.out_row;
    if (c.from)
      std::copy_n(c.from + i * c.from_row, g.n, to);
    else
      std::fill_n(to, g.n, T(0));
  }
}

}  // namespace

void gemm_float(const Gemm& g, int64_t count, int64_t a_step, int64_t b_step, int64_t c_step) {
  if (g.m <= 0 || g.n <= 0 || count <= 0) return;
  if (g.k > 0) return HWY_DYNAMIC_DISPATCH(GemmFloat)(g, count, a_step, b_step, c_step);
  for (int64_t i = 0; i < count && g.c0 != g.c; ++i)
    g.dtype == DType::kFloat64 ? copy_c0(g, g.sums<double>().at(0, i * c_step))
                               : copy_c0(g, g.sums<float>().at(0, i * c_step));
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
