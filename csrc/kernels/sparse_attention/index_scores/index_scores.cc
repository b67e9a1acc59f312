#include "kernels/sparse_attention/index_scores/index_scores.h"

#include <bit>
#include <cstring>
#include <numeric>

#include "kernels/simd/routes.h"
#include "kernels/sparse_attention/index_scores/index_scores_vnni.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_attention/index_scores/index_scores.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/products/attention_operands-inl.h"
#include "kernels/gemm/tile/int16_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kIndexQueries = 16, kIndexKeys = 1024;  // what one unit of work covers

struct IndexShape {
  int64_t batch, queries, heads, d, keys;
  explicit IndexShape(const IndexScores& a)
      : batch(a.q.sizes[0]), queries(a.q.sizes[1]), heads(a.q.sizes[2]), d(a.q.sizes[3]), keys(a.k.sizes[1]) {}
};

// Products of floats or of pairs of bf16.
template <class M>
class FloatIndex {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  static int64_t panel_keys() { return panel_rows(); }
  FloatIndex(const IndexScores& a, const IndexShape& s)
      : a_(a),
        s_(s),
        rows_(static_cast<size_t>(kIndexQueries * s.heads * (s.d + 1)) * 4),
        gathered_(static_cast<size_t>(panel_rows() * round_up(s.d, 4)) * 4),
        panel_(static_cast<size_t>(round_up(M::words(s.d), 4) * panel_rows()) * 4),
        dots_(static_cast<size_t>(s.heads * panel_rows()) * 4) {}

  void take_queries(int64_t first, int64_t n) {
    first_ = first;
    queries_ =
        M::rows(a_.q.template as<E>() + first * s_.heads * s_.d, s_.d, n * s_.heads, s_.d, rows_.as<Word>(), false);
  }
  void take_keys(int64_t first, int64_t n) {
    keys_ = n;
    M::panel(
        a_.k.template as<E>() + first * s_.d, [&](int64_t r) { return r * s_.d; }, n, s_.d, gathered_.as<Word>(),
        panel_.as<Word>());
  }
  // sums[panel] of a query.
  void sums(int64_t query, float* sums) {
    const F32 d;
    const int64_t vecs = (keys_ + lanes() - 1) / lanes();
    float* dots = dots_.as<float>();
    const float* w = a_.w.as<float>() + query * s_.heads;
    M::scores(s_.heads, vecs, M::words(s_.d), queries_.data + (query - first_) * s_.heads * queries_.row, queries_.row,
              panel_.as<Word>(), dots);
    for (int64_t v = 0; v < vecs; ++v) {
      auto sum = hn::Zero(d);
      for (int64_t j = 0; j < s_.heads; ++j) {
        const auto dot = hn::LoadU(d, dots + j * panel_rows() + v * lanes());
        sum = hn::MulAdd(hn::Set(d, w[j]), hn::Max(hn::Zero(d), dot), sum);  // Max gives dot where that is NaN
      }
      hn::StoreU(sum, d, sums + v * lanes());
    }
  }

 private:
  const IndexScores& a_;
  const IndexShape& s_;
  Buffer rows_, gathered_, panel_, dots_;
  Operand<Word> queries_{};
  int64_t first_ = 0, keys_ = 0;
};

// Products of int8: by VNNI, four features a word, or two features of 16 bits a word. The integers are the same.
template <bool kVnni>
class IntIndex {
  static constexpr int64_t kPack = kVnni ? 4 : 2;

 public:
  static int64_t panel_keys() { return kVnni ? 64 : panel_rows(); }
  IntIndex(const IndexScores& a, const IndexShape& s)
      : a_(a),
        s_(s),
        words_((s.d + kPack - 1) / kPack),
        rows_(static_cast<size_t>(kIndexQueries * s.heads * words_ + 1) * 4),
        panel_(static_cast<size_t>(words_ * panel_keys() + 1) * 4),
        weights_(static_cast<size_t>(kIndexQueries * s.heads + 1) * 4) {}

  void take_queries(int64_t first, int64_t n) {
    first_ = first;
    const int8_t* q = a_.q.as<int8_t>() + first * s_.heads * s_.d;
    for (int64_t r = 0; r < n * s_.heads; ++r) {
      for (int64_t i = 0; i < words_; ++i)
        rows_.as<uint32_t>()[r * words_ + i] = word(q + r * s_.d, i) ^ (kVnni ? 0x80808080u : 0);  // + 128
      const int64_t at = first * s_.heads + r;
      weights_.as<float>()[r] = a_.w.as<float>()[at] * a_.q_scale.as<float>()[at];
    }
  }
  void take_keys(int64_t first, int64_t n) {
    key_ = first, keys_ = n;
    const int8_t* k = a_.k.as<int8_t>() + first * s_.d;
    for (int64_t i = 0; i < words_; ++i) {
      uint32_t* to = panel_.as<uint32_t>() + i * panel_keys();
      for (int64_t r = 0; r < n; ++r) to[r] = word(k + r * s_.d, i);
      std::fill(to + n, to + panel_keys(), 0);
    }
    for (int64_t r = 0; r < panel_keys(); ++r)
      start_[r] = r < n ? -128 * std::accumulate(k + r * s_.d, k + (r + 1) * s_.d, 0) : 0;
  }
  void sums(int64_t query, float* sums) {
    const uint32_t* q = rows_.as<uint32_t>() + (query - first_) * s_.heads * words_;
    const float* w = weights_.as<float>() + (query - first_) * s_.heads;
    if constexpr (kVnni)
      tile_(s_.heads, words_, q, panel_.as<uint32_t>(), start_, w, sums);
    else
      by_pairs(q, w, sums);
    const float* scale = a_.k_scale.as<float>() + key_;
    for (int64_t r = 0; r < keys_; ++r) sums[r] *= scale[r];
  }

 private:
  // Word i of a row, zeros behind its end.
  uint32_t word(const int8_t* row, int64_t i) const {
    int8_t bytes[kPack] = {};
    if ((i + 1) * kPack <= s_.d)
      std::memcpy(bytes, row + i * kPack, kPack);
    else
      std::copy(row + i * kPack, row + s_.d, bytes);
    if constexpr (kVnni)
      return std::bit_cast<uint32_t>(bytes);
    else
      return static_cast<uint16_t>(bytes[0]) | static_cast<uint32_t>(static_cast<uint16_t>(bytes[1])) << 16;
  }

  template <int R>
  HWY_INLINE void pair_rows(const uint32_t* q, const float* w, VF (&sum)[kVecs]) const {
    const F32 d;
    run_tile<Int16Dot, R, kVecs>(
        TileOperands<Int16Dot>{words_, q, words_, panel_.as<uint32_t>(), panel_rows()},
        [](int, int) __attribute__((always_inline)) { return Int16Dot::zero(); },
        [&](int r, int v, hn::Vec<I32> dot) __attribute__((always_inline)) {
          sum[v] = hn::MulAdd(hn::Set(d, w[r]), hn::ConvertTo(d, hn::Max(dot, hn::Zero(I32()))), sum[v]);
        });
  }
  void by_pairs(const uint32_t* q, const float* w, float* sums) const {
    const F32 d;
    VF sum[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) sum[v] = hn::Zero(d);
    int64_t j = 0;
    for (; j + 4 <= s_.heads; j += 4) pair_rows<4>(q + j * words_, w + j, sum);
    for (; j < s_.heads; ++j) pair_rows<1>(q + j * words_, w + j, sum);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) hn::StoreU(sum[v], d, sums + v * lanes());
  }

  const IndexScores& a_;
  const IndexShape& s_;
  const int64_t words_;
  Buffer rows_, panel_, weights_;
  int32_t start_[64];
  const IndexTileFn tile_ = index_tile_vnni();
  int64_t first_ = 0, key_ = 0, keys_ = 0;
};

template <class Index>
void IndexScoresAs(const IndexScores& a, const View& out) {
  const IndexShape s(a);
  const int64_t w = Index::panel_keys(), blocks = (s.queries + kIndexQueries - 1) / kIndexQueries,
                chunks = (s.keys + kIndexKeys - 1) / kIndexKeys;
  const double flops = 2.0 * static_cast<double>(std::min(kIndexQueries, s.queries) * s.heads) *
                       static_cast<double>(std::min(kIndexKeys, s.keys) * s.d);
  share_units(s.batch * blocks * chunks, flops, [&](std::atomic<int64_t>& next) {
    Index index(a, s);
    const Buffer sums(static_cast<size_t>(w) * 4);
    for (int64_t unit; (unit = next.fetch_add(1)) < s.batch * blocks * chunks;) {
      const int64_t b = unit / chunks / blocks, first = unit / chunks % blocks * kIndexQueries,
                    n = std::min(kIndexQueries, s.queries - first), begin = unit % chunks * kIndexKeys,
                    end = std::min(begin + kIndexKeys, s.keys);
      index.take_queries(b * s.queries + first, n);
      for (int64_t key = begin; key < end; key += w) {
        const int64_t count = std::min(w, end - key);
        const bool any = !a.causal || key <= a.query_start + first + n - 1;
        if (any) index.take_keys(b * s.keys + key, count);
        for (int64_t t = first; t < first + n; ++t) {
          const int64_t row = b * s.queries + t;
          const int64_t seen = a.causal ? std::clamp<int64_t>(a.query_start + t + 1 - key, 0, count) : count;
          float *to = out.as<float>() + row * s.keys + key, *from = sums.as<float>();
          if (seen > 0) index.sums(row, from);
          std::copy_n(from, seen, to);
          std::fill(to + seen, to + count, -kInf);
        }
      }
    }
  });
}

void IndexScoresRun(const IndexScores& a, const View& out, [[maybe_unused]] bool bf16_dot) {
#if HWY_TARGET <= HWY_AVX3
  if (bf16_dot) {
    count_route(Route::kIndexScoresBf16Dot);
    return IndexScoresAs<FloatIndex<Bf16Operands>>(a, out);
  }
  if (a.q.dtype == DType::kInt8 && index_tile_vnni()) {
    count_route(Route::kIndexScoresVnni);
    return IndexScoresAs<IntIndex<true>>(a, out);
  }
#endif
  if (a.q.dtype == DType::kInt8) {
    DS_COUNT_ROUTE(IndexScoresInt16);
    return IndexScoresAs<IntIndex<false>>(a, out);
  }
  DS_COUNT_ROUTE(IndexScoresFloat);
  dispatch_among<BFloat16, Half, float>("index_scores", a.q.dtype,
                                        [&]<class E>() { IndexScoresAs<FloatIndex<FloatOperands<E>>>(a, out); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(IndexScoresRun);

void index_scores(const IndexScores& a, const View& out) {
  if (out.numel() == 0) return;
  const bool bf16_dot = uses_bf16_dot(a.q.dtype);
  HWY_DYNAMIC_DISPATCH(IndexScoresRun)(a, out, bf16_dot);
}

}  // namespace deepseek::kernels
#endif
