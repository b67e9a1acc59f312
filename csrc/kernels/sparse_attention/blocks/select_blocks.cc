#include "kernels/sparse_attention/blocks/select_blocks.h"

#include <cmath>
#include <vector>

#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_attention/blocks/select_blocks.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/products/attention_operands-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kMeansAtOnce = 256;
constexpr int32_t kNever = std::numeric_limits<int32_t>::min(), kAlways = std::numeric_limits<int32_t>::max();

// Integers in the order of floats, 0 and -0 equal; NaN is the greatest.
inline void OrderKeys(const float* from, int64_t n, int32_t* to) {
  const F32 d;
  const I32 di;
  for (int64_t i = 0; i < n; i += lanes()) {
    const auto x = hn::LoadU(d, from + i);
    const auto bits = hn::BitCast(di, x), magnitude = hn::And(bits, hn::Set(di, kAlways));
    const auto key = hn::IfThenElse(hn::Lt(bits, hn::Zero(di)), hn::Neg(magnitude), magnitude);
    hn::StoreU(hn::IfThenElse(hn::RebindMask(di, hn::IsNaN(x)), hn::Set(di, kAlways), key), di, to + i);
  }
}

// least is above kNever.
inline int64_t CountFrom(const int32_t* keys, int64_t n, int32_t least) {
  const I32 d;
  const auto below = hn::Set(d, least - 1);
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += lanes())
    count += static_cast<int64_t>(hn::CountTrue(d, hn::Gt(hn::LoadU(d, keys + i), below)));
  return count;
}

// The greatest number that at least `count` keys reach, or one that exactly so many reach; n a whole number of vectors.
inline int32_t Threshold(const int32_t* keys, int64_t n, int64_t count) {
  uint32_t found = 0;  // of keys from 0 on
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t higher = found | 1u << bit;
    const int64_t reach = CountFrom(keys, n, static_cast<int32_t>(higher ^ 0x80000000u));
    if (reach >= count) found = higher;
    if (reach == count) break;
  }
  return static_cast<int32_t>(found ^ 0x80000000u);
}

// One thread's tile of queries of one key head.
template <class M>
class BlockSelector {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  static int64_t tile_queries(const SelectBlocks& a) {
    const int64_t group = a.q.sizes[1] / a.k.sizes[1];
    return a.mass > 0 ? std::max<int64_t>(1, panel_rows() / group) : panel_rows();
  }

  BlockSelector(const SelectBlocks& a, const View& out)
      : a_(a),
        out_(out),
        group_(a.q.sizes[1] / a.k.sizes[1]),
        d_(a.q.sizes[3]),
        blocks_(a.means.sizes[2]),
        width_(round_up(std::max(blocks_, a.blocks()), lanes()) +
               lanes()),  // rows do not start in one set of the cache
        near_width_(round_up(std::min(a.block_size, a.keys()), lanes()) + lanes()),
        rows_(a.mass > 0 ? round_up(tile_queries(a) * group_, 4) : panel_rows()),
        means_of_queries_(static_cast<size_t>(panel_rows() * d_ + 1) * sizeof(E)),
        sum_(words(round_up(d_, lanes()))),
        gathered_(words(panel_rows() * round_up(d_, 4))),
        panel_(words(round_up(M::words(d_), 4) * panel_rows())),
        mean_words_(words(kMeansAtOnce * (d_ + 1))),
        some_(words(kMeansAtOnce * panel_rows())),
        scores_(words(rows_ * width_)),
        near_(words(a.mass > 0 ? rows_ * near_width_ : 1)),
        weights_(words(width_)),
        keys_(words(width_)) {}

  void run(int64_t b, int64_t head, int64_t first, int64_t n) {
    b_ = b, head_ = head, first_ = first, n_ = n;
    int64_t end = 0;
    bool any = false;
    for (int64_t i = 0; i < n; ++i) {
      any = any || !a_.takes_all(position(i));
      end = std::max(end, a_.end(position(i)));
    }
    if (any) a_.mass > 0 ? score_heads(end) : score_means_of_queries(end);
    for (int64_t i = 0; i < n; ++i) {
      int64_t* to = out_.as<int64_t>() + ((b * a_.k.sizes[1] + head) * a_.q.sizes[2] + first + i) * out_.sizes[3];
      const int64_t taken = choose(i, to);
      std::fill(to + taken, to + out_.sizes[3], -1);
    }
  }

 private:
  static size_t words(int64_t n) { return static_cast<size_t>(n + 1) * 4; }
  int64_t position(int64_t i) const { return a_.query_start + first_ + i; }
  const E* query(int64_t i, int64_t g) const {
    return a_.q.template as<E>() + b_ * a_.q.strides[0] + (head_ * group_ + g) * a_.q.strides[1] +
           (first_ + i) * a_.q.strides[2];
  }
  const E* rows_of(const View& v) const { return v.template as<E>() + b_ * v.strides[0] + head_ * v.strides[1]; }

  // scores[r][j] of the panel's rows, from row `row` on, and of rows begin.. end - 1 of `v` at column j - begin.
  void multiply(const View& v, int64_t begin, int64_t end, int64_t n, float* scores, int64_t width) {
    const int64_t vecs = (n + lanes() - 1) / lanes();
    for (int64_t j = begin; j < end; j += kMeansAtOnce) {
      const int64_t count = std::min(kMeansAtOnce, end - j);
      const Operand<Word> rows =
          M::rows(rows_of(v) + j * v.strides[2], v.strides[2], count, d_, mean_words_.as<Word>(), true);
      int64_t done = 0;
      if (n <= few_rows::kMaxRows) {  // as when decoding: no lanes are idle
        NearRowsPrefetch none;
        for (; done + few_rows::kKeys <= count; done += few_rows::kKeys) {
          HWY_ALIGN float sums[few_rows::kMaxRows * few_rows::kKeys];
          few_keys::scores(n, M::words(d_), rows.data + done * rows.row, rows.row, panel_.as<Word>(), sums, none);
          for (int64_t r = 0; r < n; ++r)
            std::copy_n(sums + r * few_rows::kKeys, few_rows::kKeys, scores + r * width + j - begin + done);
        }
        if (done == count) continue;
      }
      M::scores(count - done, vecs, M::words(d_), rows.data + done * rows.row, rows.row, panel_.as<Word>(),
                some_.as<float>());
      Transpose(some_.as<float>(), panel_rows(), count - done, n, scores + (j - begin + done), width);
    }
  }

  void score_means_of_queries(int64_t end) {
    E* means = means_of_queries_.as<E>();
    for (int64_t i = 0; i < n_; ++i) mean_of_heads(i, means + i * d_);
    M::panel(
        means, [&](int64_t r) { return r * d_; }, n_, d_, gathered_.as<Word>(), panel_.as<Word>());
    multiply(a_.means, 0, end, n_, scores_.as<float>(), width_);
  }
  void mean_of_heads(int64_t i, E* to) {
    const F32 d;
    float* sum = sum_.as<float>();
    ConvertRow(query(i, 0), d_, d_, sum);
    for (int64_t g = 1; g < group_; ++g) {
      const E* q = query(i, g);
      int64_t c = 0;
      for (; c + lanes() <= d_; c += lanes()) hn::StoreU(hn::Add(hn::LoadU(d, sum + c), load_as(d, q + c)), d, sum + c);
      for (; c < d_; ++c) sum[c] += static_cast<float>(q[c]);
    }
    const float share = 1.0f / static_cast<float>(group_);
    for (int64_t c = 0; c < d_; ++c) sum[c] *= share;
    StoreRow(sum, d_, to);
  }

  // Of each head of each query, row i * group + g: with the means, and with the keys of the query's own block.
  void score_heads(int64_t end) {
    const E* q = a_.q.template as<E>();
    for (int64_t row = 0; row < n_ * group_; row += panel_rows()) {
      const int64_t n = std::min(panel_rows(), n_ * group_ - row);
      M::panel(
          q, [&](int64_t r) { return query((row + r) / group_, (row + r) % group_) - q; }, n, d_, gathered_.as<Word>(),
          panel_.as<Word>());
      multiply(a_.means, 0, end, n, scores_.as<float>() + row * width_, width_);
      for (int64_t r = 0; r < n;) {
        const int64_t own = a_.own(position((row + r) / group_));
        int64_t next = r;
        while (next < n && a_.own(position((row + next) / group_)) == own) ++next;
        near_keys(own, row, r, next, n);
        r = next;
      }
    }
  }
  // Rows begin..end - 1 of the panel, at `row`, have this block for their own.
  void near_keys(int64_t own, int64_t row, int64_t begin, int64_t end, int64_t n) {
    const int64_t first = own * a_.block_size, keys = a_.keys_in(own);
    if (end - begin == n)
      return multiply(a_.k, first, first + keys, n, near_.as<float>() + row * near_width_, near_width_);
    if (others_.size() < static_cast<size_t>(panel_rows() * near_width_))
      others_.resize(static_cast<size_t>(panel_rows() * near_width_));
    multiply(a_.k, first, first + keys, n, others_.data(), near_width_);
    std::copy_n(others_.data() + begin * near_width_, (end - begin) * near_width_,
                near_.as<float>() + (row + begin) * near_width_);
  }

  // Weights of a query's blocks up to `end`, summed over its heads; returns the own block's.
  float weigh(int64_t i, int64_t end) {
    const F32 d;
    const int64_t own = a_.own(position(i)), first = own * a_.block_size;
    const int64_t keys = a_.causal ? position(i) + 1 - first : a_.keys_in(own), block = a_.block_size;
    const auto unit = hn::Set(d, static_cast<float>(a_.scale) * kLog2e);
    const float last_share = static_cast<float>(a_.keys_in(a_.blocks() - 1)) / static_cast<float>(block);
    float* weights = weights_.as<float>();
    std::fill_n(weights, round_up(end, lanes()), 0.0f);
    float of_own = 0;
    for (int64_t g = 0; g < group_; ++g) {
      float *score = scores_.as<float>() + (i * group_ + g) * width_,
            *near = near_.as<float>() + (i * group_ + g) * near_width_;
      std::fill(score + end, score + round_up(end, lanes()), -kInf);
      std::fill(near + keys, near + round_up(keys, lanes()), -kInf);
      if (own < end) score[own] = -kInf;
      auto most = hn::Set(d, -kInf);
      for (int64_t j = 0; j < end; j += lanes()) most = hn::Max(hn::Mul(hn::LoadU(d, score + j), unit), most);
      for (int64_t j = 0; j < keys; j += lanes()) most = hn::Max(hn::Mul(hn::LoadU(d, near + j), unit), most);
      const auto top = hn::MaxOfLanes(d, most);
      auto sum = hn::Zero(d), mine = hn::Zero(d);
      for (int64_t j = 0; j < keys; j += lanes())
        mine = hn::Add(mine, Exp2(hn::MulSub(hn::LoadU(d, near + j), unit, top)));
      for (int64_t j = 0; j < end; j += lanes()) {
        const auto w = Exp2(hn::MulSub(hn::LoadU(d, score + j), unit, top));
        hn::StoreU(w, d, score + j);
        sum = hn::Add(sum, w);
      }
      float total = hn::GetLane(hn::SumOfLanes(d, sum));
      if (const int64_t last = a_.blocks() - 1; last < end && last != own) {
        total += score[last] * (last_share - 1);
        score[last] *= last_share;
      }
      const float of_near = hn::GetLane(hn::SumOfLanes(d, mine)) / static_cast<float>(block),
                  share = 1 / (total + of_near);
      of_own += of_near * share;
      const auto vshare = hn::Set(d, share);
      for (int64_t j = 0; j < end; j += lanes())
        hn::StoreU(hn::MulAdd(hn::LoadU(d, score + j), vshare, hn::LoadU(d, weights + j)), d, weights + j);
    }
    return of_own;
  }

  // Writes a query's blocks, returns how many there are.
  int64_t choose(int64_t i, int64_t* to) {
    const int64_t at = position(i), own = a_.own(at), visible = a_.visible(at), end = a_.end(at);
    if (a_.takes_all(at)) {
      for (int64_t j = 0; j < visible; ++j) to[j] = j;
      return visible;
    }
    const bool first = a_.first_always(at) && own != 0;
    const int64_t others = std::max<int64_t>(0, end - 1) - (own > 0 && own < end);
    const int64_t budget = std::min(a_.budget(at) - 1 - first, others);
    const float* rank = scores_.as<float>() + i * width_;
    float always = 0;
    if (a_.mass > 0) {
      always = weigh(i, end);
      rank = weights_.as<float>();
      if (first) always += rank[0];
    }
    int32_t* keys = keys_.as<int32_t>();
    OrderKeys(rank, end, keys);
    std::fill(keys + end, keys + round_up(end, lanes()), kNever);
    if (end > 0) keys[0] = kNever;
    if (own < end) keys[own] = kNever;
    const int32_t threshold = budget > 0 ? Threshold(keys, round_up(end, lanes()), budget) : 0;
    best_.clear();
    if (budget > 0) take(keys, end, threshold, budget);
    if (a_.mass > 0 && a_.mass < 1) keep_needed(always);
    if (first) best_.push_back({kAlways, 0});
    best_.push_back({kAlways, static_cast<int32_t>(own)});
    std::sort(best_.begin(), best_.end(), [](const Best& x, const Best& y) { return x.block < y.block; });
    for (const Best& x : best_) *to++ = x.block;
    return static_cast<int64_t>(best_.size());
  }

  // Keys above the threshold, and the first ones of those that equal it.
  void take(const int32_t* keys, int64_t end, int32_t threshold, int64_t budget) {
    const I32 d;
    int64_t equal = budget;
    if (threshold < kAlways) equal -= CountFrom(keys, round_up(end, lanes()), threshold + 1);
    const auto below = hn::Set(d, threshold - 1);
    for (int64_t j = 0; j < end; j += lanes()) {
      uint64_t bits = 0;
      hn::StoreMaskBits(d, hn::Gt(hn::LoadU(d, keys + j), below), reinterpret_cast<uint8_t*>(&bits));
      for (; bits; bits &= bits - 1) {
        const int64_t at = j + __builtin_ctzll(bits);
        if (keys[at] == threshold && equal-- <= 0) continue;
        best_.push_back({keys[at], static_cast<int32_t>(at)});
      }
    }
  }
  // Of the best, those that the share of the weight needs; `sum` is that of the blocks taken anyway.
  void keep_needed(float sum) {
    const float* weights = weights_.as<float>();
    const float enough = static_cast<float>(a_.mass) * static_cast<float>(group_);
    const auto after = [](const Best& x, const Best& y) { return x.key != y.key ? x.key < y.key : x.block > y.block; };
    std::make_heap(best_.begin(), best_.end(), after);
    auto last = best_.end();
    while (sum < enough && last != best_.begin()) {
      std::pop_heap(best_.begin(), last--, after);
      sum += weights[last->block];
    }
    best_.erase(best_.begin(), last);
  }

  struct Best {
    int32_t key, block;
  };
  const SelectBlocks& a_;
  const View& out_;
  const int64_t group_, d_, blocks_, width_, near_width_, rows_;
  Buffer means_of_queries_, sum_, gathered_, panel_, mean_words_, some_, scores_, near_, weights_, keys_;
  std::vector<float> others_ = {};
  std::vector<Best> best_ = {};
  int64_t b_ = 0, head_ = 0, first_ = 0, n_ = 0;
};

template <class M>
void SelectBlocksAs(const SelectBlocks& a, const View& out) {
  const int64_t size = BlockSelector<M>::tile_queries(a), queries = a.q.sizes[2], tiles = (queries + size - 1) / size,
                heads = a.q.sizes[0] * a.k.sizes[1];
  const double flops = 2.0 * static_cast<double>(panel_rows() * a.means.sizes[2] * a.q.sizes[3]);
  share_units(tiles * heads, flops, [&](std::atomic<int64_t>& next) {
    BlockSelector<M> selector(a, out);
    for (int64_t unit; (unit = next.fetch_add(1)) < tiles * heads;) {
      const int64_t head = unit / tiles, first = (tiles - 1 - unit % tiles) * size;
      selector.run(head / a.k.sizes[1], head % a.k.sizes[1], first, std::min(size, queries - first));
    }
  });
}

void SelectBlocksRun(const SelectBlocks& a, const View& out, bool bf16_dot) {
  DotsBf16(bf16_dot) ? count_route(Route::kSelectBlocksBf16Dot) : DS_COUNT_ROUTE(SelectBlocksFloat);
  ForOperands(a.q.dtype, bf16_dot, [&]<class M>() { SelectBlocksAs<M>(a, out); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(SelectBlocksRun);

void select_blocks(const SelectBlocks& a, const View& out) {
  if (out.numel() == 0) return;
  HWY_DYNAMIC_DISPATCH(SelectBlocksRun)(a, out, uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
