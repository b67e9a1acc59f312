#include <algorithm>
#include <deque>
#include <vector>

#include "kernels/attention/attention_turns.h"
#include "kernels/simd/routes.h"
#include "kernels/sparse_attention/tokens/token_list.h"
#include "kernels/sparse_attention/tokens/token_sparse.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_attention/tokens/token_sparse_backward.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/attention_backward-inl.h"
#include "kernels/attention/attention_mask-inl.h"
#include "kernels/attention/attention_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kTokenRange = 512;  // keys that one thread adds to

// The lists of all queries.
class TokenLists {
 public:
  TokenLists(const AttentionShape& s, const View& indices)
      : queries_(s.queries),
        n_(indices.sizes[2]),
        tokens_(static_cast<size_t>(s.batch * queries_ * n_) * 4),
        counts_(static_cast<size_t>(s.batch * queries_)) {
    parallel_for(s.batch * queries_, grain_for(n_ * 16 + s.keys / 8), [&](int64_t begin, int64_t end) {
      TokenList list(s.keys);
      std::vector<int32_t> tokens;
      for (int64_t i = begin; i < end; ++i) {
        list.build(s, indices.as<int64_t>() + i * n_, n_, s.start + i % queries_, tokens);
        std::copy(tokens.begin(), tokens.end(), tokens_.as<int32_t>() + i * n_);
        counts_[static_cast<size_t>(i)] = static_cast<int32_t>(tokens.size());
      }
    });
  }
  struct Part {
    const int32_t* tokens;
    int64_t n;
  };
  // The tokens of a query in first..end-1.
  Part part(int64_t b, int64_t query, int64_t first, int64_t end) const {
    const int64_t i = b * queries_ + query;
    const int32_t *all = tokens_.as<int32_t>() + i * n_, *last = all + counts_[static_cast<size_t>(i)],
                  *from = std::lower_bound(all, last, first), *to = std::lower_bound(from, last, end);
    return {from, to - from};
  }

 private:
  const int64_t queries_, n_;
  Buffer tokens_;
  std::vector<int32_t> counts_;
};

// One thread's range of keys of one key head: it alone adds to their gradients, in the order of the queries, and to
// those of a query when the range before has.
template <class M>
class TokenBackward {
  using E = typename M::Element;

 public:
  TokenBackward(const Attention& a, const AttentionShape& s, const TokenLists& lists, const GivenGradients& given,
                const QuerySums& by_queries, Turns& turns)
      : a_(a),
        s_(s),
        lists_(lists),
        by_queries_(by_queries),
        turns_(turns),
        scale_only_(without_positions(a)),
        scale_shape_(scale_only_),
        mask_(scale_only_, scale_shape_),
        sums_(s, kTokenRange, kKeyTile),
        gathered_keys_(static_cast<size_t>(kKeyTile * s.d) * sizeof(E)),
        gathered_values_(static_cast<size_t>(kKeyTile * s.dv) * sizeof(E)) {
    for (int64_t p = 0; p * panel_rows() < s.group; ++p) panels_.emplace_back(a, s, given);
  }

  void run(int64_t b, int64_t head, int64_t range, const View& dk, const View& dv) {
    const int64_t first = range * kTokenRange, n = std::min(kTokenRange, s_.keys - first),
                  index = b * s_.key_heads + head;
    b_ = b, head_ = head, first_ = first;
    sums_.clear(n);
    for (int64_t query = 0; query < s_.queries; ++query) {
      const TokenLists::Part part = lists_.part(b, query, first, first + n);
      if (part.n > 0) {
        take_query(query);
        const auto turn = [&] { turns_.wait(index, query, range); };
        for (int64_t j = 0; j < part.n; j += kKeyTile)
          tile(query, part.tokens + j, std::min(kKeyTile, part.n - j), turn);
      } else {
        turns_.wait(index, query, range);
      }
      turns_.done(index, query, range);
    }
    sums_.store(dk, dv, b, head, first, n, false);
  }

 private:
  int64_t rows_of(int64_t p) const { return std::min(panel_rows(), s_.group - p * panel_rows()); }

  void take_query(int64_t query) {
    for (size_t p = 0; p < panels_.size(); ++p) {
      const int64_t first = static_cast<int64_t>(p) * panel_rows();
      panels_[p].take(b_, head_, rows_of(static_cast<int64_t>(p)),
                      [&](int64_t r) { return query * s_.group + first + r; });
    }
  }

  // n rows of the keys or values at `tokens`, side by side.
  void gather(const View& from, const int32_t* tokens, int64_t n, int64_t size, E* to) const {
    const E* base = from.as<E>() + b_ * from.strides[0] + head_ * from.strides[1];
    for (int64_t j = 0; j < n; ++j) std::copy_n(base + tokens[j] * from.strides[2], size, to + j * size);
  }
  // The selected keys tokens[0..n-1] with all rows of a query; turn() before the query's sums are added to.
  template <class Turn>
  void tile(int64_t query, const int32_t* tokens, int64_t n, Turn turn) {
    gather(a_.k, tokens, n, s_.d, gathered_keys_.as<E>());
    gather(a_.v, tokens, n, s_.dv, gathered_values_.as<E>());
    const auto [keys, values, columns] = sums_.take(gathered_keys_.as<E>(), s_.d, gathered_values_.as<E>(), s_.dv, n);
    int64_t places[kKeyTile];
    for (int64_t j = 0; j < n; ++j) places[j] = tokens[j] - first_;
    float *scores = sums_.scores(), *by_scores = sums_.by_scores();
    for (size_t at = 0; at < panels_.size(); ++at) {
      const RowPanel<M>& panel = panels_[at];
      const int64_t p = static_cast<int64_t>(at), rows = rows_of(p), vecs = (rows + lanes() - 1) / lanes(),
                    row = query * s_.group + p * panel_rows();
      const TileAt t{b_, head_, row, rows, 0, n, positions_};
      M::scores(n, vecs, M::words(s_.d), keys.data, keys.row, panel.queries(), scores);
      mask_.apply(t, scores, nullptr);
      M::scores(n, vecs, M::words(s_.dv), values.data, values.row, panel.grads(), by_scores);
      WeightGradients(t, mask_.unit(), static_cast<float>(a_.scale), panel.numbers(), nullptr, nullptr, scores,
                      by_scores);
      sums_.add_apart(panel, rows, n, places);
      if (at == 0) turn();
      sums_.add_to_queries(rows, n, columns, by_queries_.at(b_ * s_.key_heads + head_, row));
    }
  }

  const Attention& a_;
  const AttentionShape& s_;
  const TokenLists& lists_;
  const QuerySums& by_queries_;
  Turns& turns_;
  const Attention scale_only_;
  const AttentionShape scale_shape_;
  ScoreMask mask_;
  std::deque<RowPanel<M>> panels_{};  // the heads of a query
  const KeySums<M> sums_;
  Buffer gathered_keys_, gathered_values_;
  int32_t positions_[kVecs * HWY_MAX_BYTES / 4] = {};  // say nothing: keys are picked beforehand
  int64_t b_ = 0, head_ = 0, first_ = 0;
};

template <class M>
void TokenBackwardAs(const Attention& a, const View& indices, const GivenGradients& given, const View& dq,
                     const View& dk, const View& dv) {
  const AttentionShape s(a);
  const TokenLists lists(s, indices);
  const QuerySums by_queries(s);
  const int64_t heads = s.batch * s.key_heads, ranges = (s.keys + kTokenRange - 1) / kTokenRange;
  Turns turns(heads, s.queries);
  const double flops = 2.0 * static_cast<double>(s.rows * indices.sizes[2]) * static_cast<double>(3 * s.d + 2 * s.dv) /
                       static_cast<double>(std::max<int64_t>(ranges, 1));
  share_units(ranges * heads, flops, [&](std::atomic<int64_t>& next) {
    TokenBackward<M> block(a, s, lists, given, by_queries, turns);
    for (int64_t unit; (unit = next.fetch_add(1)) < ranges * heads;)  // an earlier range never waits for a later one
      block.run(unit % heads / s.key_heads, unit % heads % s.key_heads, unit / heads, dk, dv);
  });
  by_queries.template store<typename M::Element>(dq);
}

void TokenSparseBackward(const Attention& a, const View& indices, const View& grad, const View& lse, const View& delta,
                         const View& dq, const View& dk, const View& dv, bool bf16_dot) {
  if (dq.numel() + dk.numel() + dv.numel() == 0) return;
  const GivenGradients given(grad, lse, delta);
  DotsBf16(bf16_dot) ? count_route(Route::kTokenSparseBackwardBf16Dot) : DS_COUNT_ROUTE(TokenSparseBackwardFloat);
  ForOperands(a.q.dtype, bf16_dot, [&]<class M>() { TokenBackwardAs<M>(a, indices, given, dq, dk, dv); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(TokenSparseBackward);

void token_sparse_backward(const Attention& a, const View& indices, const View& grad_out, const View& lse,
                           const View& delta, const View& dq, const View& dk, const View& dv) {
  HWY_DYNAMIC_DISPATCH(TokenSparseBackward)
  (a, indices, grad_out, lse, delta, dq, dk, dv, uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
