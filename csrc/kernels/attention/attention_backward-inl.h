// What backward passes of attention share: a panel of queries with their gradients, and the sums that become the
// gradients of queries, of keys and of values. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_
#endif

#include "kernels/attention/attention_softmax-inl.h"
#include "kernels/attention/products/attention_operands-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// What is given to a backward pass beside the operands; all but the gradient of the result are contiguous.
struct GivenGradients {
  const View& grad;
  const float *lse, *delta, *low;  // low: null for zeros
  GivenGradients(const View& grad_out, const View& lse_view, const View& delta_view, const View& low_view = {})
      : grad(grad_out),
        lse(lse_view.as<float>()),
        delta(delta_view.as<float>()),
        low(low_view.data && low_view.numel() > 0 ? low_view.as<float>() : nullptr) {}
};

// Rows of queries and of the result's gradients, as both sides of products.
template <class M>
class RowPanel {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  RowPanel(const Attention& a, const AttentionShape& s, const GivenGradients& given)
      : a_(a),
        s_(s),
        given_(given),
        walk_q_(a.q),
        walk_g_(given.grad),
        d_(round_up(s.d, lanes())),
        dv_(round_up(s.dv, lanes())),
        queries_(size(round_up(s.d, 4))),
        grads_(size(round_up(s.dv, 4))),
        query_columns_(size(d_)),
        grad_columns_(size(dv_)),
        gathered_(size(std::max(d_, dv_) + 4)),
        to_unit_(kLog2e / ScoreUnit(a)),
        numbers_(size(3)) {}

  // Rows row_of(0..n-1) of a key head; lanes up to the next vector do as the last row.
  template <class RowOf>
  void take(int64_t b, int64_t head, int64_t n, RowOf row_of) {
    const auto query = [&](int64_t r) { return walk_q_.at(s_, b, head, row_of(r)); };
    const auto grad = [&](int64_t r) { return walk_g_.at(s_, b, head, row_of(r)); };
    auto* gathered = gathered_.as<Word>();
    M::panel(a_.q.template as<E>(), query, n, s_.d, gathered, queries_.as<Word>());
    M::gathered_columns(gathered, n, s_.d, d_, query_columns_.as<Word>());
    M::panel(given_.grad.template as<E>(), grad, n, s_.dv, gathered, grads_.as<Word>());
    M::gathered_columns(gathered, n, s_.dv, dv_, grad_columns_.as<Word>());
    for (int64_t r = 0; r < round_up(n, lanes()); ++r) {
      const int64_t row = row_of(std::min(r, n - 1)), h = head * s_.group + row % s_.group;
      const int64_t at = (b * s_.heads + h) * s_.queries + row / s_.group;
      const float lse = given_.lse[at];
      numbers_.as<float>()[r] = lse == -kInf ? 0 : lse * to_unit_;  // without any key all scores are -inf
      numbers_.as<float>()[panel_rows() + r] = given_.low ? given_.low[at] * kLog2e : 0;
      numbers_.as<float>()[2 * panel_rows() + r] = given_.delta[at];
    }
  }
  const E* query_at(int64_t b, int64_t head, int64_t row) const {
    return a_.q.template as<E>() + walk_q_.at(s_, b, head, row);
  }
  const E* grad_at(int64_t b, int64_t head, int64_t row) const {
    return given_.grad.template as<E>() + walk_g_.at(s_, b, head, row);
  }
  const Word* queries() const { return queries_.as<Word>(); }
  const Word* grads() const { return grads_.as<Word>(); }
  const Word* query_columns() const { return query_columns_.as<Word>(); }
  const Word* grad_columns() const { return grad_columns_.as<Word>(); }
  RowNumbers numbers() const {
    const float* first = numbers_.as<float>();
    return {first, first + panel_rows(), first + 2 * panel_rows()};
  }

 private:
  static size_t size(int64_t row) { return static_cast<size_t>(row * panel_rows()) * 4; }

  const Attention& a_;
  const AttentionShape& s_;
  const GivenGradients given_;
  const RowWalk walk_q_, walk_g_;
  const int64_t d_, dv_;
  Buffer queries_, grads_, query_columns_, grad_columns_, gathered_;
  const float to_unit_;
  Buffer numbers_;
};

// The gradients of queries while they are sums: [batch, key heads, rows][width] floats.
class QuerySums {
 public:
  explicit QuerySums(const AttentionShape& s)
      : s_(s),
        width_(round_up(s.d, lanes())),
        rows_(s.batch * s.key_heads * s.rows),
        memory_(static_cast<size_t>(rows_ * width_) * 4) {
    parallel_for(rows_, grain_for(width_ * 4), [&](int64_t begin, int64_t end) {
      std::fill_n(memory_.as<float>() + begin * width_, (end - begin) * width_, 0.0f);
    });
  }
  // Of row `row` of key head `head`, batch entries one after another.
  float* at(int64_t head, int64_t row) const { return memory_.as<float>() + (head * s_.rows + row) * width_; }
  template <class E>
  void store(const View& dq) const {
    const RowWalk to(dq);
    parallel_for(rows_, grain_for(width_ * 4), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        StoreRow(memory_.as<float>() + i * width_, s_.d,
                 dq.as<E>() + to.at(s_, i / s_.rows / s_.key_heads, i / s_.rows % s_.key_heads, i % s_.rows));
    });
  }

 private:
  const AttentionShape& s_;
  const int64_t width_, rows_;
  Buffer memory_;
};

// A thread's sums that become the gradients of keys and values of one key head, and the memory of a tile on its way
// to them.
template <class M>
class KeySums {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  struct Tile {
    Operand<Word> keys{}, values{}, columns{};  // rows of both, keys as columns
  };

  // Sums of up to `most` keys; operands of up to `operands` at a time.
  KeySums(const AttentionShape& s, int64_t most, int64_t operands)
      : s_(s),
        d_(round_up(s.d, lanes())),
        dv_(round_up(s.dv, lanes())),
        key_row_words_(words(operands * (s.d + 1))),
        value_row_words_(words(operands * (s.dv + 1))),
        key_column_words_(words(operands * d_)),
        by_keys_(words(most * d_)),
        by_values_(words(most * dv_)),
        scores_(words(kKeyTile * panel_rows())),
        by_scores_(words(kKeyTile * panel_rows())),
        weights_(words(kKeyTile * panel_rows())),
        turned_(words(kKeyTile * panel_rows())) {}

  void clear(int64_t keys) const {
    std::fill_n(by_key(0), keys * d_, 0.0f);
    std::fill_n(by_value(0), keys * dv_, 0.0f);
  }
  // The operands of n keys and values, in the place of tile `at`.
  Tile take(const E* k, int64_t row_k, const E* v, int64_t row_v, int64_t n, int64_t at = 0) const {
    const int64_t first = at * kKeyTile;
    return {M::rows(k, row_k, n, s_.d, key_row_words_.template as<Word>() + first * (s_.d + 1), true),
            M::rows(v, row_v, n, s_.dv, value_row_words_.template as<Word>() + first * (s_.dv + 1), true),
            M::columns(k, row_k, n, s_.d, d_, key_column_words_.template as<Word>() + first * d_, true)};
  }

  // [keys of a tile][panel]: scores, then weights; the gradients of weights, then of scores.
  float* scores() const { return scores_.as<float>(); }
  float* by_scores() const { return by_scores_.as<float>(); }

  // Adds a panel's part for n keys from `first` on.
  void add(const RowPanel<M>& panel, int64_t rows, int64_t n, int64_t first) const {
    auto* turned = turned_.as<Word>();
    M::add(n, rows, dv_, scores(), panel.grad_columns(), turned, by_value(first));
    M::add(n, rows, d_, by_scores(), panel.query_columns(), turned, by_key(first));
  }
  // The same for the keys at[0..n-1].
  void add_apart(const RowPanel<M>& panel, int64_t rows, int64_t n, const int64_t* at) const {
    float *by_keys[kKeyTile], *by_values[kKeyTile];
    for (int64_t j = 0; j < n; ++j) by_keys[j] = by_key(at[j]), by_values[j] = by_value(at[j]);
    auto* turned = turned_.as<Word>();
    M::add_rows(n, rows, dv_, scores(), panel.grad_columns(), turned, by_values);
    M::add_rows(n, rows, d_, by_scores(), panel.query_columns(), turned, by_keys);
  }
  // The tile's part of the gradients of a panel's queries, added to `to`.
  void add_to_queries(int64_t rows, int64_t n, const Operand<Word>& columns, float* to) const {
    const int64_t vecs = (rows + lanes() - 1) / lanes();
    M::values(rows, d_, M::words(n), M::weights(by_scores(), n, vecs, weights_.as<Word>()), columns.data, columns.row,
              nullptr, to, d_, false);
  }

  // To the gradients of keys `first`.. of a key head; `add`: onto what is there, each part rounded by itself.
  void store(const View& dk, const View& dv, int64_t b, int64_t head, int64_t first, int64_t n, bool add) const {
    store_rows(by_key(0), n, d_, dk, b, head, first, add);
    store_rows(by_value(0), n, dv_, dv, b, head, first, add);
  }

 private:
  static size_t words(int64_t n) { return static_cast<size_t>(n) * 4; }
  float* by_key(int64_t i) const { return by_keys_.as<float>() + i * d_; }
  float* by_value(int64_t i) const { return by_values_.as<float>() + i * dv_; }
  static void store_rows(float* sums, int64_t n, int64_t width, const View& out, int64_t b, int64_t head, int64_t first,
                         bool add) {
    const int64_t size = out.sizes[3];
    for (int64_t j = 0; j < n; ++j, sums += width) {
      E* to = out.as<E>() + b * out.strides[0] + head * out.strides[1] + (first + j) * out.strides[2];
      for (int64_t i = 0; add && i < size; ++i)
        sums[i] = static_cast<float>(static_cast<E>(sums[i])) + static_cast<float>(to[i]);
      StoreRow(sums, size, to);
    }
  }

  const AttentionShape& s_;
  const int64_t d_, dv_;
  Buffer key_row_words_, value_row_words_, key_column_words_, by_keys_, by_values_, scores_, by_scores_, weights_,
      turned_;
};

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
