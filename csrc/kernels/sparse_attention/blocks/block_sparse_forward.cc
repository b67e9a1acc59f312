#include <cmath>
#include <cstring>

#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_attention/blocks/block_sparse_forward.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/sparse_attention/blocks/block_sparse-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// Rows whose sums a thread keeps: enough of them select the same tile, and they stay in the cache.
constexpr int64_t kSparseRows = 4096;

inline int64_t queries_at_once(const AttentionShape& s, const BlockSelection& sel) {
  const int64_t groups = std::max<int64_t>(1, kSparseRows / (s.group * sel.group));
  return std::min(groups, sel.groups(s.queries)) * sel.group;
}

// One thread's block of queries of one key head.
template <class M>
class SparseForwardBlock {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  SparseForwardBlock(const Attention& a, const AttentionShape& s, const BlockSelection& sel, int64_t queries)
      : a_(a),
        s_(s),
        sel_(sel),
        rows_(round_up(queries * s.group, panel_rows())),
        width_(round_up(s.dv, lanes())),
        mask_(a, s),
        walk_(a.q),
        lists_(sel, s),
        strips_(s, rows_),
        queries_(static_cast<size_t>(round_up(M::words(s.d), 4) * panel_rows()) * 4),
        gathered_(static_cast<size_t>(panel_rows() * round_up(s.d, 4)) * 4),
        scores_(static_cast<size_t>(kKeyTile * panel_rows() + panel_rows()) * 4),
        weights_(static_cast<size_t>(kKeyTile * panel_rows()) * 4),
        key_words_(static_cast<size_t>(kKeyTile * (s.d + 1)) * 4),
        value_words_(static_cast<size_t>(kKeyTile * width_) * 4),
        sums_(static_cast<size_t>(2 * RowSums::floats(rows_, width_) + RowSums::floats(panel_rows(), width_)) * 4),
        chunk_(sums_.as<float>(), rows_),
        total_(sums_.as<float>() + RowSums::floats(rows_, width_), rows_),
        panel_(sums_.as<float>() + 2 * RowSums::floats(rows_, width_), panel_rows()) {}

  void run(int64_t b, int64_t key_head, int64_t first_query, int64_t queries) {
    b_ = b, head_ = key_head, first_ = first_query * s_.group, count_ = queries * s_.group;
    std::fill_n(total_.top, count_, -kInf);
    std::fill_n(total_.sum, count_, 0.0f);
    std::fill_n(total_.values, count_ * width_, 0.0f);
    lists_.build(b, key_head, first_query / sel_.group, sel_.groups(first_query + queries));
    if (strips_)
      strips_.take(
          a_.q.template as<E>(), [&](int64_t r) { return walk_.at(s_, b_, head_, first_ + r); }, count_, s_.d,
          gathered_.as<Word>(), queries_.as<Word>());
    tile_ = -1, waiting_.clear();
    for (int64_t tile = 0; tile < lists_.tiles(); ++tile)
      ForPanels(sel_, s_, lists_.begin(tile), lists_.end(tile), true, gather_, [&](const GatheredRows& rows) {
        if (waiting_.n > 0) read_panel(tile, &rows);
        waiting_ = rows, waiting_tile_ = tile;
      });
    if (waiting_.n > 0) read_panel(waiting_tile_, nullptr);
  }

  void finish(const View& out, const LogSums& logs) {
    const RowWalk to(out);
    for (int64_t r = 0; r < count_; ++r) {
      const int64_t row = first_ + r, head = head_ * s_.group + row % s_.group;
      FinishRow(total_.values + r * width_, width_, s_.dv, total_.sum[r], 1 / total_.sum[r],
                out.as<E>() + to.at(s_, b_, head_, row));
      logs.put((b_ * s_.heads + head) * s_.queries + row / s_.group, total_.top[r], total_.sum[r], mask_.unit());
    }
  }

 private:
  const E* key_at(int64_t key) const {
    return a_.k.template as<E>() + b_ * a_.k.strides[0] + head_ * a_.k.strides[1] + key * a_.k.strides[2];
  }
  const E* value_at(int64_t key) const {
    return a_.v.template as<E>() + b_ * a_.v.strides[0] + head_ * a_.v.strides[1] + key * a_.v.strides[2];
  }
  int64_t keys_in(int64_t tile) const { return std::min(kKeyTile, s_.keys - tile * kKeyTile); }

  void take_tile(int64_t tile) {
    const int64_t key = tile * kKeyTile, n = keys_in(tile);
    keys_ = M::rows(key_at(key), a_.k.strides[2], n, s_.d, key_words_.as<Word>(), true);
    values_ = M::columns(value_at(key), a_.v.strides[2], n, s_.dv, width_, value_words_.as<Word>(), true);
    tile_ = tile;
  }

  // The panel that waits; the next one, of tile `next_tile`, is asked for meanwhile.
  void read_panel(int64_t next_tile, const GatheredRows* next) {
    const GatheredRows& rows = waiting_;
    if (waiting_tile_ != tile_) take_tile(waiting_tile_);
    const int64_t key = tile_ * kKeyTile, n = keys_in(tile_), vecs = (rows.n + lanes() - 1) / lanes();
    if (strips_)
      strips_.panel(rows.row, first_, rows.n, queries_.as<Word>());
    else
      M::panel(
          a_.q.template as<E>(), [&](int64_t r) { return walk_.at(s_, b_, head_, rows.row[r]); }, rows.n, s_.d,
          gathered_.as<Word>(), queries_.as<Word>());
    plan(next_tile, next);
    float *scores = scores_.as<float>(), *keep = scores + kKeyTile * panel_rows();
    multiply(rows.n, n, vecs, scores);
    mask_.apply(TileAt{b_, head_, rows.row[0], rows.n, key, n, rows.position, false}, scores, nullptr);
    CutUnselected(rows, n, scores);
    const bool fresh = take_sums(rows);
    SoftmaxTile(vecs, scores, n, mask_.unit(), {}, panel_.top, panel_.sum, keep, fresh);
    const Word* weights = M::weights(scores, n, vecs, weights_.as<Word>());
    for (int64_t r = 0; r < rows.n; r += kRows) {
      M::values(std::min<int64_t>(kRows, rows.n - r), width_, M::words(n), weights + r, values_.data, values_.row,
                keep + r, panel_.values + r * width_, width_, fresh);
      next_ahead_.advance(next_ahead_.lines() / (rows.n / kRows + 1) + 1);
    }
    return_sums(rows);
  }

  // Scores of the panel, in small steps, for the sake of what is asked for between them. A few rows, as when decoding,
  // leave no lanes idle.
  void multiply(int64_t rows, int64_t n, int64_t vecs, float* scores) {
    const int64_t words = M::words(s_.d), lines = sums_ahead_.lines();
    int64_t j = 0;
    if (rows <= few_rows::kMaxRows)
      for (NearRowsPrefetch none; j + few_rows::kKeys <= n; j += few_rows::kKeys) {
        HWY_ALIGN float sums[few_rows::kMaxRows * few_rows::kKeys];
        few_keys::scores(rows, words, keys_.data + j * keys_.row, keys_.row, queries_.as<Word>(), sums, none);
        Transpose(sums, few_rows::kKeys, rows, few_rows::kKeys, scores + j * panel_rows(), panel_rows());
        sums_ahead_.advance(lines / (n / few_rows::kKeys) + 1);
      }
    for (; j < n; j += kRows) {
      M::scores(std::min<int64_t>(kRows, n - j), vecs, words, keys_.data + j * keys_.row, keys_.row,
                queries_.as<Word>(), scores + j * panel_rows());
      sums_ahead_.advance(lines / (n / kRows + 1) + 1);
    }
  }

  void plan(int64_t next_tile, const GatheredRows* next) {
    sums_ahead_.clear(), next_ahead_.clear();
    const int64_t row_bytes = width_ * 4;
    for (int64_t i = 0; i < waiting_.n; ++i)
      if (waiting_.from[i]->last) sums_ahead_.add(total_.values + (waiting_.row[i] - first_) * width_, row_bytes);
    if (!next) return;
    if (strips_)
      strips_.for_each_strip(next->row, first_, next->n,
                             [&](const Word* at, int64_t bytes) { next_ahead_.add(at, bytes); });
    if (next_tile == tile_) return;
    const int64_t key = next_tile * kKeyTile, n = keys_in(next_tile), size = static_cast<int64_t>(sizeof(E));
    for (int64_t i = 0; i < n; ++i)
      sums_ahead_.add(key_at(key + i), s_.d * size), next_ahead_.add(value_at(key + i), s_.dv * size);
  }

  // The rows' sums over the chunk so far; true where none has any.
  bool take_sums(const GatheredRows& rows) {
    if (std::all_of(rows.from, rows.from + rows.n, [](const SelectedTile* t) { return t->first; })) return true;
    for (int64_t i = 0; i < rows.n; ++i) {
      const int64_t at = rows.row[i] - first_;
      const bool first = rows.from[i]->first;
      panel_.top[i] = first ? -kInf : chunk_.top[at];
      panel_.sum[i] = first ? 0 : chunk_.sum[at];
      float* to = panel_.values + i * width_;
      first ? std::fill_n(to, width_, 0.0f) : std::copy_n(chunk_.values + at * width_, width_, to);
    }
    for (int64_t i = rows.n; i < round_up(rows.n, lanes()); ++i) panel_.top[i] = -kInf, panel_.sum[i] = 0;
    return false;
  }
  void return_sums(const GatheredRows& rows) {
    MergeScales(rows);
    for (int64_t i = 0; i < rows.n; ++i) {
      const int64_t at = rows.row[i] - first_;
      const float* from = panel_.values + i * width_;
      if (rows.from[i]->last) {
        merge_row(i, at, from);
      } else {
        chunk_.top[at] = panel_.top[i], chunk_.sum[at] = panel_.sum[i];
        std::copy_n(from, width_, chunk_.values + at * width_);
      }
    }
  }
  // As Merge, of rows that lie apart.
  void MergeScales(const GatheredRows& rows) {
    const F32 d;
    const auto unit = hn::Set(d, mask_.unit());
    float top[kMaxPanel], sum[kMaxPanel];
    for (int64_t i = 0; i < round_up(rows.n, lanes()); ++i) {
      const int64_t at = rows.row[std::min(i, rows.n - 1)] - first_;
      top[i] = total_.top[at], sum[i] = total_.sum[at];
    }
    for (int64_t i = 0; i < rows.n; i += lanes()) {
      const auto m = hn::LoadU(d, top + i), part_m = hn::LoadU(d, panel_.top + i), both = hn::Max(part_m, m);
      const auto shift = hn::IfThenElse(hn::Eq(both, hn::Set(d, -kInf)), hn::Zero(d), both);
      const auto keep = Exp2(hn::Mul(hn::Sub(m, shift), unit)), take = Exp2(hn::Mul(hn::Sub(part_m, shift), unit));
      hn::StoreU(both, d, merged_top_ + i);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, panel_.sum + i), take, hn::Mul(hn::LoadU(d, sum + i), keep)), d,
                 merged_sum_ + i);
      hn::StoreU(keep, d, keep_ + i);
      hn::StoreU(take, d, take_ + i);
    }
  }
  HWY_INLINE void merge_row(int64_t i, int64_t at, const float* from) {
    const F32 d;
    const auto keep = hn::Set(d, keep_[i]), take = hn::Set(d, take_[i]);
    total_.top[at] = merged_top_[i], total_.sum[at] = merged_sum_[i];
    float* to = total_.values + at * width_;
    for (int64_t c = 0; c < width_; c += lanes())
      hn::StoreU(hn::MulAdd(hn::LoadU(d, from + c), take, hn::Mul(hn::LoadU(d, to + c), keep)), d, to + c);
  }

  const Attention& a_;
  const AttentionShape& s_;
  const BlockSelection& sel_;
  const int64_t rows_, width_;
  ScoreMask mask_;
  const RowWalk walk_;
  TileLists lists_;
  RowStrips<M> strips_;
  Buffer queries_, gathered_, scores_, weights_, key_words_, value_words_, sums_;
  const RowSums chunk_, total_, panel_;  // over this chunk of keys, over all before it; of the panel at hand
  float merged_top_[kMaxPanel], merged_sum_[kMaxPanel], keep_[kMaxPanel], take_[kMaxPanel];
  Operand<Word> keys_{}, values_{};
  GatheredRows gather_, waiting_;
  PiecesPrefetch sums_ahead_, next_ahead_;
  int64_t b_ = 0, head_ = 0, first_ = 0, count_ = 0, tile_ = -1, waiting_tile_ = -1;
};

template <class M>
void SparseForwardAs(const Attention& a, const BlockSelection& sel, const View& out, const View& lse) {
  const AttentionShape s(a);
  const int64_t size = queries_at_once(s, sel), count = (s.queries + size - 1) / size, heads = s.batch * s.key_heads;
  const int64_t keys = std::min(s.keys, sel.indices.sizes[3] * sel.block_size);
  const double flops = 2.0 * static_cast<double>(size * s.group * keys * (s.d + s.dv));
  share_units(count * heads, flops, [&](std::atomic<int64_t>& next) {
    SparseForwardBlock<M> block(a, s, sel, size);
    for (int64_t unit; (unit = next.fetch_add(1)) < count * heads;) {
      const int64_t head = unit % heads, first = (count - 1 - unit / heads) * size;  // causal: the longest first
      block.run(head / s.key_heads, head % s.key_heads, first, std::min(size, s.queries - first));
      block.finish(out, {lse, {}});
    }
  });
}

void BlockSparseForward(const Attention& a, const BlockSelection& sel, const View& out, const View& lse,
                        bool bf16_dot) {
  DotsBf16(bf16_dot) ? count_route(Route::kBlockSparseBf16Dot) : DS_COUNT_ROUTE(BlockSparseFloat);
  ForOperands(a.q.dtype, bf16_dot, [&]<class M>() { SparseForwardAs<M>(a, sel, out, lse); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(BlockSparseForward);

void block_sparse_forward(const Attention& a, const BlockSelection& sel, const View& out, const View& lse) {
  if (a.q.numel() == 0 && out.numel() == 0) return;
  HWY_DYNAMIC_DISPATCH(BlockSparseForward)(a, sel, out, lse, uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
