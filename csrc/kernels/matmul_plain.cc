#include "kernels/matmul_plain.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/routes.h"
#include "runtime/allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul_plain.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/gemm_tile-inl.h"
#include "kernels/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kBlockK = kGemmBlockK;
constexpr int64_t kBlockBytesB = HWY_TARGET <= HWY_AVX3 ? 512 * 1024 : 192 * 1024;  // packed B stays in the L2 cache
constexpr int64_t kBlockM = 960;                                                    // packed A stays in the L3 cache
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

  void run(const S* a, const S* b, T* c) {
    for (int64_t i0 = 0; i0 < g_.m; i0 += row_block()) {
      const int64_t m = std::min(row_block(), g_.m - i0);
      for (int64_t k0 = 0; k0 < g_.k; k0 += kBlockK) {
        const int64_t k = std::min(kBlockK, g_.k - k0);
        int64_t a_row = g_.a_row;
        const T* pa = rows_of_a(a + i0 * g_.a_row + k0 * g_.a_col, m, k, &a_row);
        const bool add = g_.accumulate || k0 > 0;
        const S* pb = b + k0 * g_.b_row;
        if (m <= kFewRows)
          few_rows(m, k, pa, a_row, pb, c + i0 * g_.c_row, add);
        else
          many_rows(m, k, pa, a_row, pb, c + i0 * g_.c_row, add);
      }
    }
  }

 private:
  static constexpr bool kSame = std::is_same_v<S, T>;
  bool direct_a() const { return kSame && (g_.a_col == 1 || g_.k == 1); }
  int64_t row_block() const { return direct_a() ? g_.m : kBlockM; }

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
  // Row-major B of the compute type needs no packing where whole vectors can be read.
  bool direct_b(int64_t width) const { return kSame && g_.b_col == 1 && width % hn::Lanes(Tag<T>()) == 0; }

  void many_rows(int64_t m, int64_t k, const T* a, int64_t a_row, const S* b, T* c, bool add) {
    DS_COUNT_ROUTE(MatmulManyRows);
    const int64_t w = panel_width<T>();
    const int64_t block = std::max(kBlockBytesB / static_cast<int64_t>(sizeof(T)) / kBlockK / w, int64_t{1}) * w;
    T* packed = scratch_b_.template get<T>(std::min(block, (g_.n + w - 1) / w * w) * k);
    for (int64_t j0 = 0; j0 < g_.n; j0 += block) {
      const int64_t n = std::min(block, g_.n - j0);
      for (int64_t j = 0; j < n; j += w)
        pack_padded(b + (j0 + j) * g_.b_col, g_.b_row, g_.b_col, k, std::min(w, n - j), packed + j * k, w);
      for (int64_t i = 0; i < m; i += kRows)
        for (int64_t j = 0; j < n; j += w)
          tile(std::min<int64_t>(kRows, m - i), std::min(w, n - j), k, a + i * a_row, a_row, packed + j * k, w,
               c + i * g_.c_row + j0 + j, g_.c_row, add, false);
    }
  }

  void few_rows(int64_t m, int64_t k, const T* a, int64_t a_row, const S* b, T* c, bool add) {
    const int64_t w = panel_width<T>();
    for (int64_t j = 0; j < g_.n; j += w) {
      const int64_t n = std::min(w, g_.n - j);
      if constexpr (kSame) {
        if (direct_b(n)) {
          DS_COUNT_ROUTE(MatmulFewRows);
          for (int64_t i = 0; i < m; i += kRows)
            tile(std::min<int64_t>(kRows, m - i), n, k, a + i * a_row, a_row, b + j, g_.b_row, c + i * g_.c_row + j,
                 g_.c_row, add, large_b());
          continue;
        }
      }
      DS_COUNT_ROUTE(MatmulFewRowsPacked);
      few_rows_packed(m, k, a, a_row, b + j * g_.b_col, n, c + j, add);
    }
  }

  // Partial sums of a block of k stay in a scratch tile while chunks of B pass through the L1 cache.
  void few_rows_packed(int64_t m, int64_t k, const T* a, int64_t a_row, const S* b, int64_t n, T* c, bool add) {
    constexpr int64_t kMaxWidth = kVecs * HWY_MAX_BYTES / sizeof(T);
    HWY_ALIGN T panel[kChunkK * kMaxWidth];
    HWY_ALIGN T sums[kFewRows * kMaxWidth];
    const int64_t lanes = hn::Lanes(Tag<T>());
    const int vecs = static_cast<int>((n + lanes - 1) / lanes);
    const int64_t width = vecs * lanes;
    for (int64_t k0 = 0; k0 < k; k0 += kChunkK) {
      const int64_t chunk = std::min(kChunkK, k - k0);
      pack_padded(b + k0 * g_.b_row, g_.b_row, g_.b_col, chunk, n, panel, width, large_b());
      for (int64_t i = 0; i < m; i += kRows) {
        T* s = sums + i * width;
        kMicro<T>.fn[0][std::min<int64_t>(kRows, m - i) - 1][vecs - 1](chunk, a + i * a_row + k0, a_row, panel, width,
                                                                       k0 ? s : nullptr, s, width, false);
      }
    }
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        c[i * g_.c_row + j] = add ? c[i * g_.c_row + j] + sums[i * width + j] : sums[i * width + j];
  }

  const Gemm& g_;
  PackBuffer scratch_a_, scratch_b_;
};

template <class S, class T>
void run_all(const Gemm& g, int64_t count, int64_t a_step, int64_t b_step, int64_t c_step) {
  Runner<S, T> runner(g);
  for (int64_t i = 0; i < count; ++i)
    runner.run(static_cast<const S*>(g.a) + i * a_step, static_cast<const S*>(g.b) + i * b_step,
               static_cast<T*>(g.c) + i * c_step);
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
    default:
      fail<TypeError>("matmul: no kernel for ", g.dtype);
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(GemmFloat);

namespace {

void zero_c(const Gemm& g, void* c) {
  const int64_t size = g.dtype == DType::kFloat64 ? 8 : 4;
  for (int64_t i = 0; i < g.m; ++i)
    std::memset(static_cast<char*>(c) + i * g.c_row * size, 0, static_cast<size_t>(g.n * size));
}

}  // namespace

void gemm_plain(const Gemm& g, int64_t count, int64_t a_step, int64_t b_step, int64_t c_step) {
  if (g.m <= 0 || g.n <= 0 || count <= 0) return;
  if (g.k > 0) return HWY_DYNAMIC_DISPATCH(GemmFloat)(g, count, a_step, b_step, c_step);
  if (g.accumulate) return;
  const int64_t size = g.dtype == DType::kFloat64 ? 8 : 4;
  for (int64_t i = 0; i < count; ++i) zero_c(g, static_cast<char*>(g.c) + i * c_step * size);
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
