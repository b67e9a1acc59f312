// What backward passes of attention share: a panel of queries with their gradients, and the sums that become the
// gradients of queries. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_ATTENTION_BACKWARD_INL_H_
#endif

#include "kernels/attention/attention_operands-inl.h"
#include "kernels/attention/attention_softmax-inl.h"

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

// Adds the gradients of keys `first`.. of a key head to n rows of sums [n][width], rounded as gradients of their own.
template <class E>
void AddKeyRows(float* sums, int64_t n, int64_t width, const View& from, int64_t b, int64_t head, int64_t first) {
  for (int64_t j = 0; j < n; ++j) {
    const E* row = from.as<E>() + b * from.strides[0] + head * from.strides[1] + (first + j) * from.strides[2];
    for (int64_t i = 0; i < from.sizes[3]; ++i) {
      float& sum = sums[j * width + i];
      sum = static_cast<float>(static_cast<E>(sum)) + static_cast<float>(row[i]);
    }
  }
}
// n rows of sums [n][width] to the gradients of keys `first`.. of a key head.
template <class E>
void StoreKeyRows(const float* sums, int64_t n, int64_t width, const View& out, int64_t b, int64_t head,
                  int64_t first) {
  for (int64_t j = 0; j < n; ++j)
    StoreRow(sums + j * width, out.sizes[3],
             out.as<E>() + b * out.strides[0] + head * out.strides[1] + (first + j) * out.strides[2]);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
