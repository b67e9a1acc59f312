#include <cmath>
#include <vector>

#include "kernels/attention_turns.h"
#include "kernels/matmul_bf16.h"
#include "kernels/routes.h"
#include "runtime/allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/block_sparse_backward.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/block_sparse-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// One thread's tile of keys of one key head. Gradients of queries are added up in the order of the tiles: a group of
// queries waits for its turn.
template <class M>
class SparseBackwardTile {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  SparseBackwardTile(const Attention& a, const AttentionShape& s, const BlockSelection& sel, const View& grad,
                     const float* lse, const float* delta, float* by_queries, Turns& turns)
      : a_(a),
        s_(s),
        sel_(sel),
        grad_(grad),
        lse_(lse),
        delta_(delta),
        by_queries_(by_queries),
        turns_(turns),
        d_(round_up(s.d, lanes())),
        dv_(round_up(s.dv, lanes())),
        w_(panel_rows()),
        mask_(a, s),
        walk_q_(a.q),
        walk_g_(grad),
        size_(0),
        memory_(layout()) {
    layout();
  }

  void run(int64_t b, int64_t head, int64_t tile, const TileLists& lists, const View& dk, const View& dv) {
    const int64_t key = tile * kKeyTile, n = std::min(kKeyTile, s_.keys - key);
    b_ = b, head_ = head;
    if (lists.begin(tile) < lists.end(tile)) take_keys(key, n);
    std::fill_n(by_keys_, n * d_, 0.0f);
    std::fill_n(by_values_, n * dv_, 0.0f);
    ForPanels(sel_, s_, lists.begin(tile), lists.end(tile), gather_,
              [&](const GatheredRows& rows) { read_panel(rows, key, n); });
    for (int64_t j = 0; j < n; ++j) {
      const auto to = [&](const View& out) {
        return out.as<E>() + b * out.strides[0] + head * out.strides[1] + (key + j) * out.strides[2];
      };
      StoreRow(by_keys_ + j * d_, s_.d, to(dk));
      StoreRow(by_values_ + j * dv_, s_.dv, to(dv));
    }
  }

 private:
  // Where each piece of scratch lies; called once for the size and once for the pointers.
  size_t layout() {
    char* at = size_ ? memory_.as<char>() : nullptr;
    size_t used = 0;
    const auto take = [&](auto*& p, int64_t words) {
      if (at) p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(at + used);
      used += static_cast<size_t>(words + 15) / 16 * 64;
    };
    const int64_t tile = kKeyTile * w_;
    take(key_row_words_, kKeyTile * (s_.d + 1));
    take(value_row_words_, kKeyTile * (s_.dv + 1));
    take(key_column_words_, kKeyTile * d_);
    take(by_keys_, kKeyTile * d_);
    take(by_values_, kKeyTile * dv_);
    take(queries_, round_up(s_.d, 4) * w_);
    take(grads_, round_up(s_.dv, 4) * w_);
    take(query_columns_, w_ * d_);
    take(grad_columns_, w_ * dv_);
    take(gathered_, w_ * (std::max(d_, dv_) + 4));
    take(scores_, tile), take(by_scores_, tile);
    take(weights_, tile), take(turned_, tile);
    take(lse_rows_, w_), take(delta_rows_, w_);
    take(by_rows_, w_ * d_);
    return size_ = used;
  }

  void take_keys(int64_t key, int64_t n) {
    const int64_t row_k = a_.k.strides[2], row_v = a_.v.strides[2];
    const E* k = a_.k.template as<E>() + b_ * a_.k.strides[0] + head_ * a_.k.strides[1] + key * row_k;
    const E* v = a_.v.template as<E>() + b_ * a_.v.strides[0] + head_ * a_.v.strides[1] + key * row_v;
    key_rows_ = M::rows(k, row_k, n, s_.d, key_row_words_, true);
    value_rows_ = M::rows(v, row_v, n, s_.dv, value_row_words_, true);
    key_columns_ = M::columns(k, row_k, n, s_.d, d_, key_column_words_, true);
  }

  // The panel's queries and gradients, as both sides of products.
  void take_rows(const GatheredRows& rows) {
    const auto query = [&](int64_t r) { return walk_q_.at(s_, b_, head_, rows.row[r]); };
    const auto grad = [&](int64_t r) { return walk_g_.at(s_, b_, head_, rows.row[r]); };
    M::panel(a_.q.template as<E>(), query, rows.n, s_.d, gathered_, queries_);
    M::gathered_columns(gathered_, rows.n, s_.d, d_, query_columns_);
    M::panel(grad_.template as<E>(), grad, rows.n, s_.dv, gathered_, grads_);
    M::gathered_columns(gathered_, rows.n, s_.dv, dv_, grad_columns_);
    for (int64_t r = 0; r < round_up(rows.n, lanes()); ++r) {
      const int64_t row = rows.row[std::min(r, rows.n - 1)], h = head_ * s_.group + row % s_.group;
      const int64_t at = (b_ * s_.heads + h) * s_.queries + row / s_.group;
      const float lse = lse_[at];
      lse_rows_[r] = lse == -kInf ? 0 : lse * kLog2e;  // without any key all scores are -inf
      delta_rows_[r] = delta_[at];
    }
  }

  void read_panel(const GatheredRows& rows, int64_t key, int64_t n) {
    const int64_t vecs = (rows.n + lanes() - 1) / lanes();
    const TileAt t{b_, head_, rows.row[0], rows.n, key, n, rows.position};
    take_rows(rows);
    M::scores(n, vecs, M::words(s_.d), key_rows_.data, key_rows_.row, queries_, scores_);
    const float c = mask_.apply(t, scores_, nullptr);
    CutUnselected(rows, n, scores_);
    M::scores(n, vecs, M::words(s_.dv), value_rows_.data, value_rows_.row, grads_, by_scores_);
    WeightGradients(t, c, static_cast<float>(a_.scale), lse_rows_, delta_rows_, nullptr, nullptr, scores_, by_scores_);
    M::add(n, rows.n, dv_, scores_, grad_columns_, turned_, by_values_);
    M::add(n, rows.n, d_, by_scores_, query_columns_, turned_, by_keys_);
    add_to_queries(rows, n, vecs);
  }

  void add_to_queries(const GatheredRows& rows, int64_t n, int64_t vecs) {
    const int64_t index = b_ * s_.key_heads + head_;
    float* sums = by_queries_ + index * s_.rows * d_;
    const Word* weights = M::weights(by_scores_, n, vecs, weights_);
    for (int64_t i = 0; i < rows.n; ++i) {
      const SelectedTile& from = *rows.from[i];
      if (i == 0 || rows.from[i - 1] != &from) turns_.wait(index, from.group, from.turn);
      std::copy_n(sums + rows.row[i] * d_, d_, by_rows_ + i * d_);
    }
    M::values(rows.n, d_, M::words(n), weights, key_columns_.data, key_columns_.row, nullptr, by_rows_, d_, false);
    for (int64_t i = 0; i < rows.n; ++i) {
      const SelectedTile& from = *rows.from[i];
      std::copy_n(by_rows_ + i * d_, d_, sums + rows.row[i] * d_);
      const int64_t end = std::min<int64_t>((from.group + 1) * sel_.group, s_.queries) * s_.group;
      if (rows.row[i] == end - 1) turns_.done(index, from.group, from.turn);
    }
  }

  const Attention& a_;
  const AttentionShape& s_;
  const BlockSelection& sel_;
  const View& grad_;
  const float *lse_, *delta_;
  float* by_queries_;
  Turns& turns_;
  const int64_t d_, dv_, w_;
  ScoreMask mask_;
  const RowWalk walk_q_, walk_g_;
  Word *key_row_words_, *value_row_words_, *key_column_words_, *queries_, *grads_, *query_columns_, *grad_columns_,
      *gathered_, *weights_, *turned_;
  float *by_keys_, *by_values_, *scores_, *by_scores_, *lse_rows_, *delta_rows_, *by_rows_;
  Operand<Word> key_rows_{}, value_rows_{}, key_columns_{};
  GatheredRows gather_;
  int64_t b_ = 0, head_ = 0;
  size_t size_;
  Buffer memory_;
};

template <class M>
void SparseBackwardAs(const Attention& a, const BlockSelection& sel, const View& grad, const float* lse,
                      const float* delta, const View& dq, const View& dk, const View& dv) {
  using E = typename M::Element;
  const AttentionShape s(a);
  const int64_t heads = s.batch * s.key_heads, width = round_up(s.d, lanes());
  std::vector<TileLists> lists(static_cast<size_t>(heads), TileLists(sel, s));
  parallel_for(heads, limited_grain(1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      lists[static_cast<size_t>(i)].build(i / s.key_heads, i % s.key_heads, 0, sel.groups(s.queries));
  });
  Buffer by_queries(static_cast<size_t>(heads * s.rows * width) * 4);
  float* sums = by_queries.as<float>();
  parallel_for(heads * s.rows, grain_for(width * 4),
               [&](int64_t begin, int64_t end) { std::fill_n(sums + begin * width, (end - begin) * width, 0.0f); });
  Turns turns(heads, sel.groups(s.queries));
  const int64_t tiles = (s.keys + kKeyTile - 1) / kKeyTile;
  const double flops = 2.0 * static_cast<double>(s.rows * sel.indices.sizes[3] * sel.block_size) *
                       static_cast<double>(3 * s.d + 2 * s.dv) / static_cast<double>(std::max<int64_t>(tiles, 1));
  share_units(tiles * heads, flops, [&](std::atomic<int64_t>& next) {
    SparseBackwardTile<M> block(a, s, sel, grad, lse, delta, sums, turns);
    // Tiles of one key head are far apart, so that none waits for long.
    for (int64_t unit; (unit = next.fetch_add(1)) < tiles * heads;) {
      const int64_t head = unit % heads;
      block.run(head / s.key_heads, head % s.key_heads, unit / heads, lists[static_cast<size_t>(head)], dk, dv);
    }
  });
  const RowWalk to(dq);
  parallel_for(heads * s.rows, grain_for(width * 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      StoreRow(sums + i * width, s.d,
               dq.as<E>() + to.at(s, i / s.rows / s.key_heads, i / s.rows % s.key_heads, i % s.rows));
  });
}

void BlockSparseBackward(const Attention& a, const BlockSelection& sel, const View& grad, const View& lse,
                         const View& delta, const View& dq, const View& dk, const View& dv,
                         [[maybe_unused]] bool bf16_dot) {
  if (dq.numel() + dk.numel() + dv.numel() == 0) return;
  const float *l = lse.as<float>(), *shift = delta.as<float>();
#if HWY_TARGET <= HWY_AVX3
  if (bf16_dot) {
    count_route(Route::kBlockSparseBackwardBf16Dot);
    return SparseBackwardAs<Bf16Operands>(a, sel, grad, l, shift, dq, dk, dv);
  }
#endif
  DS_COUNT_ROUTE(BlockSparseBackwardFloat);
  switch (a.q.dtype) {
    case DType::kBFloat16:
      return SparseBackwardAs<FloatOperands<BFloat16>>(a, sel, grad, l, shift, dq, dk, dv);
    case DType::kFloat16:
      return SparseBackwardAs<FloatOperands<Half>>(a, sel, grad, l, shift, dq, dk, dv);
    default:
      return SparseBackwardAs<FloatOperands<float>>(a, sel, grad, l, shift, dq, dk, dv);
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(BlockSparseBackward);

void block_sparse_backward(const Attention& a, const BlockSelection& sel, const View& grad_out, const View& lse,
                           const View& delta, const View& dq, const View& dk, const View& dv) {
  HWY_DYNAMIC_DISPATCH(BlockSparseBackward)
  (a, sel, grad_out, lse, delta, dq, dk, dv, attention_uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
