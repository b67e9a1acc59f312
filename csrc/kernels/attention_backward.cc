#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention.h"
#include "kernels/attention_turns.h"
#include "kernels/cast.h"
#include "kernels/matmul_bf16.h"
#include "kernels/routes.h"
#include "runtime/allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_backward.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention_mask-inl.h"
#include "kernels/attention_operands-inl.h"
#include "kernels/attention_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kBlockKeys = 4 * kKeyTile;  // keys that share a panel of queries while it is in the cache

// One thread's block of keys of one key head.
template <class M>
class BackwardBlock {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  BackwardBlock(const Attention& a, const AttentionShape& s, const View& grad, const float* lse, const float* delta,
                float* by_queries, Turns& turns)
      : a_(a),
        s_(s),
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

  void run(int64_t b, int64_t head, int64_t block, const View& dk, const View& dv) {
    const int64_t first = block * kBlockKeys, count = std::min(kBlockKeys, s_.keys - first);
    const E* k = a_.k.template as<E>() + b * a_.k.strides[0] + head * a_.k.strides[1] + first * a_.k.strides[2];
    const E* v = a_.v.template as<E>() + b * a_.v.strides[0] + head * a_.v.strides[1] + first * a_.v.strides[2];
    for (int64_t t = 0; t * kKeyTile < count; ++t) {
      const int64_t n = std::min(kKeyTile, count - t * kKeyTile), row_k = a_.k.strides[2], row_v = a_.v.strides[2];
      const E *kt = k + t * kKeyTile * row_k, *vt = v + t * kKeyTile * row_v;
      key_rows_[t] = M::rows(kt, row_k, n, s_.d, key_row_words_ + t * kKeyTile * (s_.d + 1), true);
      value_rows_[t] = M::rows(vt, row_v, n, s_.dv, value_row_words_ + t * kKeyTile * (s_.dv + 1), true);
      key_columns_[t] = M::columns(kt, row_k, n, s_.d, d_, key_column_words_ + t * kKeyTile * d_, true);
    }
    std::fill_n(by_keys_, count * d_, 0.0f);
    std::fill_n(by_values_, count * dv_, 0.0f);
    for (int64_t panel = 0; panel * w_ < s_.rows; ++panel) rows(b, head, block, panel, first, count);
    for (int64_t j = 0; j < count; ++j) {
      const auto to = [&](const View& out) {
        return out.as<E>() + b * out.strides[0] + head * out.strides[1] + (first + j) * out.strides[2];
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
    take(key_row_words_, kBlockKeys * (s_.d + 1));
    take(value_row_words_, kBlockKeys * (s_.dv + 1));
    take(key_column_words_, kBlockKeys * d_);
    take(by_keys_, kBlockKeys * d_);
    take(by_values_, kBlockKeys * dv_);
    take(queries_, round_up(s_.d, 4) * w_);
    take(grads_, round_up(s_.dv, 4) * w_);
    take(query_columns_, w_ * d_);
    take(grad_columns_, w_ * dv_);
    take(gathered_, w_ * (std::max(d_, dv_) + 4));
    take(scores_, tile), take(by_scores_, tile), take(slope_, tile);
    take(weights_, tile), take(turned_, tile);
    take(lse_rows_, w_), take(delta_rows_, w_), take(position_, w_);
    return size_ = used;
  }

  void rows(int64_t b, int64_t head, int64_t block, int64_t panel, int64_t first, int64_t count) {
    const int64_t row0 = panel * w_, n = std::min(w_, s_.rows - row0);
    const int64_t lo = s_.position(row0), hi = s_.position(row0 + n - 1), index = b * s_.key_heads + head;
    if (!s_.any(lo, hi, first, first + count - 1)) {
      turns_.wait(index, panel, block);
      turns_.done(index, panel, block);
      return;
    }
    take_rows(b, head, row0, n);
    float* by_queries = by_queries_ + (index * s_.rows + row0) * d_;
    bool waited = false;
    for (int64_t t = 0; t * kKeyTile < count; ++t) {
      const int64_t key = first + t * kKeyTile, keys = std::min(kKeyTile, first + count - key);
      if (!s_.any(lo, hi, key, key + keys - 1)) continue;
      tile(TileAt{b, head, row0, n, key, keys, position_}, t);
      if (!waited) turns_.wait(index, panel, block);
      waited = true;
      M::values(n, d_, M::words(keys), M::weights(by_scores_, keys, vecs(n), weights_), key_columns_[t].data,
                key_columns_[t].row, nullptr, by_queries, d_, false);
    }
    if (!waited) turns_.wait(index, panel, block);
    turns_.done(index, panel, block);
  }

  // The panel's queries and gradients, as both sides of products.
  void take_rows(int64_t b, int64_t head, int64_t row0, int64_t n) {
    const auto query = [&](int64_t r) { return walk_q_.at(s_, b, head, row0 + r); };
    const auto grad = [&](int64_t r) { return walk_g_.at(s_, b, head, row0 + r); };
    M::panel(a_.q.template as<E>(), query, n, s_.d, gathered_, queries_);
    M::gathered_columns(gathered_, n, s_.d, d_, query_columns_);
    M::panel(grad_.template as<E>(), grad, n, s_.dv, gathered_, grads_);
    M::gathered_columns(gathered_, n, s_.dv, dv_, grad_columns_);
    for (int64_t r = 0; r < w_; ++r) {
      const int64_t row = row0 + std::min(r, n - 1), h = head * s_.group + row % s_.group;
      const int64_t at = (b * s_.heads + h) * s_.queries + row / s_.group;
      const float lse = lse_[at];
      lse_rows_[r] = lse == -kInf ? 0 : lse * kLog2e;  // without any key all scores are -inf
      delta_rows_[r] = delta_[at];
      position_[r] = static_cast<int32_t>(s_.position(row));
    }
  }
  static int64_t vecs(int64_t n) { return (n + lanes() - 1) / lanes(); }

  void tile(const TileAt& t, int64_t at) {
    M::scores(t.keys, vecs(t.rows), M::words(s_.d), key_rows_[at].data, key_rows_[at].row, queries_, scores_);
    const bool cap = a_.softcap > 0;
    const float c = mask_.apply(t, scores_, cap ? slope_ : nullptr);
    M::scores(t.keys, vecs(t.rows), M::words(s_.dv), value_rows_[at].data, value_rows_[at].row, grads_, by_scores_);
    const float* kept = a_.dropout_p > 0 ? mask_.kept(t) : nullptr;
    WeightGradients(t, c, static_cast<float>(a_.scale), lse_rows_, delta_rows_, kept, cap ? slope_ : nullptr, scores_,
                    by_scores_);
    M::add(t.keys, t.rows, dv_, scores_, grad_columns_, turned_, by_values_ + at * kKeyTile * dv_);
    M::add(t.keys, t.rows, d_, by_scores_, query_columns_, turned_, by_keys_ + at * kKeyTile * d_);
  }

  const Attention& a_;
  const AttentionShape& s_;
  const View& grad_;
  const float *lse_, *delta_;
  float* by_queries_;
  Turns& turns_;
  const int64_t d_, dv_, w_;
  ScoreMask mask_;
  const RowWalk walk_q_, walk_g_;
  Word *key_row_words_, *value_row_words_, *key_column_words_, *queries_, *grads_, *query_columns_, *grad_columns_,
      *gathered_, *weights_, *turned_;
  float *by_keys_, *by_values_, *scores_, *by_scores_, *slope_, *lse_rows_, *delta_rows_;
  int32_t* position_;
  Operand<Word> key_rows_[kBlockKeys / kKeyTile], value_rows_[kBlockKeys / kKeyTile],
      key_columns_[kBlockKeys / kKeyTile];
  size_t size_;
  Buffer memory_;
};

template <class M>
void BackwardAs(const Attention& a, const View& grad, const float* lse, const float* delta, const View& dq,
                const View& dk, const View& dv) {
  using E = typename M::Element;
  const AttentionShape s(a);
  const int64_t heads = s.batch * s.key_heads, blocks = (s.keys + kBlockKeys - 1) / kBlockKeys,
                width = round_up(s.d, lanes());
  Buffer by_queries(static_cast<size_t>(heads * s.rows * width) * 4);
  float* sums = by_queries.as<float>();
  Turns turns(heads, (s.rows + panel_rows() - 1) / panel_rows());
  parallel_for(heads * s.rows, grain_for(width * 4),
               [&](int64_t begin, int64_t end) { std::fill_n(sums + begin * width, (end - begin) * width, 0.0f); });
  const double flops = 2.0 * static_cast<double>(s.rows * std::min(s.keys, kBlockKeys) * (3 * s.d + 2 * s.dv));
  share_units(blocks * heads, flops, [&](std::atomic<int64_t>& next) {
    BackwardBlock<M> block(a, s, grad, lse, delta, sums, turns);
    // Of a causal mask the first keys cost most. Blocks of one key head are far apart, so that none waits for long.
    for (int64_t unit; (unit = next.fetch_add(1)) < blocks * heads;)
      block.run(unit % heads / s.key_heads, unit % heads % s.key_heads, unit / heads, dk, dv);
  });
  const RowWalk to(dq);
  parallel_for(heads * s.rows, grain_for(width * 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      StoreRow(sums + i * width, s.d,
               dq.as<E>() + to.at(s, i / s.rows / s.key_heads, i / s.rows % s.key_heads, i % s.rows));
  });
}

void AttentionBackward(const Attention& a, const View& grad, const View& lse, const View& delta, const View& dq,
                       const View& dk, const View& dv, [[maybe_unused]] bool bf16_dot) {
  if (dq.numel() + dk.numel() + dv.numel() == 0) return;
  const float *l = lse.as<float>(), *shift = delta.as<float>();
#if HWY_TARGET <= HWY_AVX3
  if (bf16_dot) {
    count_route(Route::kAttentionBackwardBf16Dot);
    return BackwardAs<Bf16Operands>(a, grad, l, shift, dq, dk, dv);
  }
#endif
  DS_COUNT_ROUTE(AttentionBackwardFloat);
  switch (a.q.dtype) {
    case DType::kBFloat16:
      return BackwardAs<FloatOperands<BFloat16>>(a, grad, l, shift, dq, dk, dv);
    case DType::kFloat16:
      return BackwardAs<FloatOperands<Half>>(a, grad, l, shift, dq, dk, dv);
    default:
      return BackwardAs<FloatOperands<float>>(a, grad, l, shift, dq, dk, dv);
  }
}

template <class E, class C>
C RowDot(const E* a, const E* b, int64_t n) {
  const Tag<C> d;
  const int64_t step = hn::Lanes(d);
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + step <= n; i += step) sum = hn::MulAdd(load_as(d, a + i), load_as(d, b + i), sum);
  C total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += static_cast<C>(a[i]) * static_cast<C>(b[i]);
  return total;
}

template <class E, class C>
void DeltaAs(const View& grad, const View& out, const View& grad_lse, const View& delta) {
  const int64_t heads = out.sizes[1], queries = out.sizes[2], n = out.sizes[3];
  const auto row = [&](const View& v, int64_t i) {
    return v.as<E>() + i / queries / heads * v.strides[0] + i / queries % heads * v.strides[1] +
           i % queries * v.strides[2];
  };
  parallel_for(delta.numel(), grain_for(2 * n * static_cast<int64_t>(sizeof(E))), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      delta.as<C>()[i] = RowDot<E, C>(row(grad, i), row(out, i), n) - (grad_lse.data ? grad_lse.as<C>()[i] : C(0));
  });
}
void AttentionDelta(const View& grad, const View& out, const View& grad_lse, const View& delta) {
  switch (out.dtype) {
    case DType::kBFloat16:
      return DeltaAs<BFloat16, float>(grad, out, grad_lse, delta);
    case DType::kFloat16:
      return DeltaAs<Half, float>(grad, out, grad_lse, delta);
    case DType::kFloat64:
      return DeltaAs<double, double>(grad, out, grad_lse, delta);
    default:
      return DeltaAs<float, float>(grad, out, grad_lse, delta);
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(AttentionBackward);
HWY_EXPORT(AttentionDelta);

void attention_delta(const View& grad_out, const View& out, const View& grad_lse, const View& delta) {
  HWY_DYNAMIC_DISPATCH(AttentionDelta)(grad_out, out, grad_lse, delta);
}

void attention_sink_gradient(const View& sinks, const View& lse, const View& delta, const View& by_sinks) {
  dispatch(sinks.dtype, [&]<class T>() {
    if constexpr (std::is_floating_point_v<T>) {
      const int64_t batch = lse.sizes[0], heads = lse.sizes[1], queries = lse.sizes[2];
      for (int64_t h = 0; h < heads; ++h) {
        double sum = 0;
        for (int64_t b = 0; b < batch; ++b)
          for (int64_t at = (b * heads + h) * queries, i = at; i < at + queries; ++i)
            if (sinks.as<T>()[h] != -std::numeric_limits<T>::infinity())
              sum -= std::exp(static_cast<double>(sinks.as<T>()[h] - lse.as<T>()[i])) *
                     static_cast<double>(delta.as<T>()[i]);
        by_sinks.as<T>()[h] = static_cast<T>(sum);
      }
    }
  });
}

void attention_backward(const Attention& a, const View& grad_out, const View& lse, const View& delta, const View& dq,
                        const View& dk, const View& dv) {
  HWY_DYNAMIC_DISPATCH(AttentionBackward)
  (a, grad_out, lse, delta, dq, dk, dv, attention_uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
