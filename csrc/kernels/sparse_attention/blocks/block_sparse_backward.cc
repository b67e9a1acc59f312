#include <vector>

#include "kernels/attention/attention_turns.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_attention/blocks/block_sparse_backward.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/attention_backward-inl.h"
#include "kernels/sparse_attention/blocks/block_sparse-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// One thread's tile of keys of one key head. Gradients of queries are added up in the order of the tiles: a group of
// queries waits for its turn.
template <class M>
class SparseBackwardTile {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  SparseBackwardTile(const Attention& a, const AttentionShape& s, const BlockSelection& sel,
                     const GivenGradients& given, const QuerySums& by_queries, Turns& turns)
      : a_(a),
        s_(s),
        sel_(sel),
        by_queries_(by_queries),
        turns_(turns),
        d_(round_up(s.d, lanes())),
        mask_(a, s),
        panel_(a, s, given),
        sums_(s, kKeyTile, kKeyTile),
        by_rows_(words(panel_rows() * d_)) {}

  void run(int64_t b, int64_t head, int64_t tile, const TileLists& lists, const View& dk, const View& dv, bool add) {
    const int64_t key = tile * kKeyTile, n = std::min(kKeyTile, s_.keys - key);
    const bool read = lists.begin(tile) < lists.end(tile);
    if (add && !read) return;
    b_ = b, head_ = head;
    if (read) take_keys(key, n);
    sums_.clear(n);
    waiting_.clear();
    ForPanels(sel_, s_, lists.begin(tile), lists.end(tile), false, gather_, [&](const GatheredRows& rows) {
      if (waiting_.n > 0) read_panel(waiting_, key, n, &rows);
      waiting_ = rows;
    });
    if (waiting_.n > 0) read_panel(waiting_, key, n, nullptr);
    sums_.store(dk, dv, b, head, key, n, add);
  }

 private:
  static size_t words(int64_t n) { return static_cast<size_t>(n) * 4; }

  void take_keys(int64_t key, int64_t n) {
    const int64_t row_k = a_.k.strides[2], row_v = a_.v.strides[2];
    const E* k = a_.k.template as<E>() + b_ * a_.k.strides[0] + head_ * a_.k.strides[1] + key * row_k;
    const E* v = a_.v.template as<E>() + b_ * a_.v.strides[0] + head_ * a_.v.strides[1] + key * row_v;
    tile_ = sums_.take(k, row_k, v, row_v, n);
  }

  // What the panel after this one reads; asked for between the steps of this one.
  void plan(const GatheredRows* next) {
    rows_ahead_.clear(), sums_ahead_.clear();
    if (!next) return;
    const int64_t size = static_cast<int64_t>(sizeof(E)), index = b_ * s_.key_heads + head_;
    for (int64_t i = 0; i < next->n; ++i) {
      rows_ahead_.add(panel_.query_at(b_, head_, next->row[i]), s_.d * size);
      sums_ahead_.add(by_queries_.at(index, next->row[i]), d_ * 4);
    }
    for (int64_t i = 0; i < next->n; ++i) rows_ahead_.add(panel_.grad_at(b_, head_, next->row[i]), s_.dv * size);
  }
  // out[k][rows] = A B in small steps.
  void multiply(int64_t n, int64_t vecs, int64_t words, const Operand<Word>& a, const Word* b, PiecesPrefetch& ahead,
                int64_t lines, float* out) {
    for (int64_t j = 0; j < n; j += kRows) {
      M::scores(std::min<int64_t>(kRows, n - j), vecs, words, a.data + j * a.row, a.row, b, out + j * panel_rows());
      ahead.advance(lines / (n / kRows + 1) + 1);
    }
  }

  void read_panel(const GatheredRows& rows, int64_t key, int64_t n, const GatheredRows* next) {
    const int64_t vecs = (rows.n + lanes() - 1) / lanes();
    const TileAt t{b_, head_, rows.row[0], rows.n, key, n, rows.position};
    float *scores = sums_.scores(), *by_scores = sums_.by_scores();
    panel_.take(b_, head_, rows.n, [&](int64_t r) { return rows.row[r]; });
    plan(next);
    multiply(n, vecs, M::words(s_.d), tile_.keys, panel_.queries(), rows_ahead_, rows_ahead_.lines(), scores);
    mask_.apply(t, scores, nullptr);
    CutUnselected(rows, n, scores);
    multiply(n, vecs, M::words(s_.dv), tile_.values, panel_.grads(), sums_ahead_, sums_ahead_.lines(), by_scores);
    WeightGradients(t, mask_.unit(), static_cast<float>(a_.scale), panel_.numbers(), nullptr, nullptr, scores,
                    by_scores);
    sums_.add(panel_, rows.n, n, 0);
    add_to_queries(rows, n);
  }

  void add_to_queries(const GatheredRows& rows, int64_t n) {
    const int64_t index = b_ * s_.key_heads + head_;
    float* by_rows = by_rows_.as<float>();
    for (int64_t i = 0; i < rows.n; ++i) {
      const SelectedTile& from = *rows.from[i];
      if (i == 0 || rows.from[i - 1] != &from) turns_.wait(index, from.group, from.turn);
      std::copy_n(by_queries_.at(index, rows.row[i]), d_, by_rows + i * d_);
    }
    sums_.add_to_queries(rows.n, n, tile_.columns, by_rows);
    for (int64_t i = 0; i < rows.n; ++i) {
      const SelectedTile& from = *rows.from[i];
      std::copy_n(by_rows + i * d_, d_, by_queries_.at(index, rows.row[i]));
      const int64_t end = std::min<int64_t>((from.group + 1) * sel_.group, s_.queries) * s_.group;
      if (rows.row[i] == end - 1) turns_.done(index, from.group, from.turn);
    }
  }

  const Attention& a_;
  const AttentionShape& s_;
  const BlockSelection& sel_;
  const QuerySums& by_queries_;
  Turns& turns_;
  const int64_t d_;
  ScoreMask mask_;
  RowPanel<M> panel_;
  const KeySums<M> sums_;
  Buffer by_rows_;
  typename KeySums<M>::Tile tile_;
  GatheredRows gather_, waiting_;
  PiecesPrefetch rows_ahead_, sums_ahead_;
  int64_t b_ = 0, head_ = 0;
};

template <class M>
void SparseBackwardAs(const Attention& a, const BlockSelection& sel, const GivenGradients& given, const View& dq,
                      const View& dk, const View& dv, bool add) {
  const AttentionShape s(a);
  const int64_t heads = s.batch * s.key_heads;
  std::vector<TileLists> lists(static_cast<size_t>(heads), TileLists(sel, s));
  parallel_for(heads, limited_grain(1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      lists[static_cast<size_t>(i)].build(i / s.key_heads, i % s.key_heads, 0, sel.groups(s.queries));
  });
  const QuerySums by_queries(s);
  Turns turns(heads, sel.groups(s.queries));
  const int64_t tiles = (s.keys + kKeyTile - 1) / kKeyTile;
  const double flops = 2.0 * static_cast<double>(s.rows * sel.indices.sizes[3] * sel.block_size) *
                       static_cast<double>(3 * s.d + 2 * s.dv) / static_cast<double>(std::max<int64_t>(tiles, 1));
  share_units(tiles * heads, flops, [&](std::atomic<int64_t>& next) {
    SparseBackwardTile<M> block(a, s, sel, given, by_queries, turns);
    // Tiles of one key head are far apart, so that none waits for long.
    for (int64_t unit; (unit = next.fetch_add(1)) < tiles * heads;) {
      const int64_t head = unit % heads;
      block.run(head / s.key_heads, head % s.key_heads, unit / heads, lists[static_cast<size_t>(head)], dk, dv, add);
    }
  });
  by_queries.template store<typename M::Element>(dq);
}

void BlockSparseBackward(const Attention& a, const BlockSelection& sel, const View& grad, const View& lse,
                         const View& delta, const View& dq, const View& dk, const View& dv, bool add, bool bf16_dot) {
  if (dq.numel() + dk.numel() + dv.numel() == 0) return;
  const GivenGradients given(grad, lse, delta);
  DotsBf16(bf16_dot) ? count_route(Route::kBlockSparseBackwardBf16Dot) : DS_COUNT_ROUTE(BlockSparseBackwardFloat);
  ForOperands(a.q.dtype, bf16_dot, [&]<class M>() { SparseBackwardAs<M>(a, sel, given, dq, dk, dv, add); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(BlockSparseBackward);

void block_sparse_backward(const Attention& a, const BlockSelection& sel, const View& grad_out, const View& lse,
                           const View& delta, const View& dq, const View& dk, const View& dv, bool add) {
  HWY_DYNAMIC_DISPATCH(BlockSparseBackward)
  (a, sel, grad_out, lse, delta, dq, dk, dv, add, uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
