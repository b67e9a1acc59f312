// What a block of attention's forward multiplies with: floats, or pairs of bf16. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_ATTENTION_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_PRODUCTS_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_PRODUCTS_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_ATTENTION_PRODUCTS_INL_H_
#endif

#include "kernels/attention/attention_block-inl.h"
#include "kernels/attention/products/attention_operands-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// Products of floats or of pairs of bf16.
template <class M>
class FloatProducts {
  using Word = typename M::Word;

 public:
  using Element = typename M::Element;
  FloatProducts(const Attention& a, const AttentionShape& s, int64_t rows)
      : a_(a),
        s_(s),
        width_(round_up(s.dv, lanes())),
        walk_(a.q),
        panel_words_(round_up(M::words(s.d), 4) * panel_rows()),
        queries_(static_cast<size_t>(rows / panel_rows() * panel_words_) * 4),
        gathered_(static_cast<size_t>(panel_rows() * round_up(s.d, 4)) * 4),
        weights_(static_cast<size_t>(kKeyTile * panel_rows()) * 4),
        key_words_(static_cast<size_t>(kKeyTile * (s.d + 1)) * 4),
        value_words_(static_cast<size_t>(kKeyTile * width_) * 4) {}

  void begin(int64_t b, int64_t key_head, int64_t first, int64_t count) {
    count_ = count, few_ = count <= few_rows::kMaxRows;
    const Element* q = a_.q.template as<Element>();
    for (int64_t p = 0; p * panel_rows() < count; ++p)
      M::panel(
          q, [&](int64_t r) { return walk_.at(s_, b, key_head, first + p * panel_rows() + r); }, rows_of(p), s_.d,
          gathered_.as<Word>(), panel(p));
    k_ = a_.k.template as<Element>() + b * a_.k.strides[0] + key_head * a_.k.strides[1];
    v_ = a_.v.template as<Element>() + b * a_.v.strides[0] + key_head * a_.v.strides[1];
  }

  void take_keys(int64_t key, int64_t n) {
    const int64_t row_k = a_.k.strides[2], row_v = a_.v.strides[2], next = key + kKeyTile;
    take_rows(k_ + key * row_k, row_k, v_ + key * row_v, row_v, n);
    ask_values_ = RowsAhead(v_ + key * row_v, few_ ? n : 0, s_.dv, row_v);
    ask_keys_ = RowsAhead(k_ + next * row_k, few_ ? std::min(kKeyTile, s_.keys - next) : 0, s_.d, row_k);
  }
  void scores(int64_t p, int64_t n, float* to) {
    if (few_) return few_scores(n, to);
    M::scores(n, vecs(p), M::words(s_.d), keys_.data, keys_.row, panel(p), to);
  }
  static const float* factors() { return nullptr; }
  void values(int64_t p, int64_t n, const float* scores, const float* keep, float* to, bool fresh) {
    const Word* weights = M::weights(scores, n, vecs(p), weights_.as<Word>());
    if (few_) return few_values(n, weights, keep, to, fresh);
    M::values(rows_of(p), width_, M::words(n), weights, values_.data, values_.row, keep, to, width_, fresh);
  }

 protected:
  // n rows of keys and of values, a step of row_k and row_v between them.
  void take_rows(const Element* k, int64_t row_k, const Element* v, int64_t row_v, int64_t n) {
    keys_ = M::rows(k, row_k, n, s_.d, key_words_.as<Word>(), !few_);
    values_ = M::columns(v, row_v, n, s_.dv, width_, value_words_.as<Word>(), !few_);
  }

  const Attention& a_;
  const AttentionShape& s_;
  const Element *k_ = nullptr, *v_ = nullptr;  // of the key head

 private:
  Word* panel(int64_t p) { return queries_.as<Word>() + p * panel_words_; }
  int64_t rows_of(int64_t p) const { return std::min(panel_rows(), count_ - p * panel_rows()); }
  int64_t vecs(int64_t p) const { return (rows_of(p) + lanes() - 1) / lanes(); }

  // A few rows, for which keys and values come from memory: asks for the values of this tile while it computes scores,
  // for the next keys while it adds values up. The steps are cut finer, the sums are the same.
  void few_scores(int64_t n, float* scores) {
    const int64_t words = M::words(s_.d);
    int64_t j = 0;
#if HWY_TARGET <= HWY_AVX3
    for (; j + few_rows::kKeys <= n; j += few_rows::kKeys) {
      HWY_ALIGN float sums[few_rows::kMaxRows * few_rows::kKeys];
      few_rows::scores(count_, words, keys_.data + j * keys_.row, keys_.row, panel(0), sums, ask_values_);
      Transpose(sums, few_rows::kKeys, count_, few_rows::kKeys, scores + j * panel_rows(), panel_rows());
    }
#endif
    for (; j < n; j += kRows) {
      M::scores(std::min<int64_t>(kRows, n - j), vecs(0), words, keys_.data + j * keys_.row, keys_.row, panel(0),
                scores + j * panel_rows());
      ask_values_.advance(kRows * s_.dv * static_cast<int64_t>(sizeof(Element)) / 64 + 1);
    }
  }
  void few_values(int64_t n, const Word* weights, const float* keep, float* to, bool fresh) {
    constexpr int64_t kStep = 16;
    for (int64_t j = 0; j < n; j += kStep) {
      const int64_t at = M::words(j), some = M::words(std::min(kStep, n - j));
      M::values(count_, width_, some, weights + at * panel_rows(), values_.data + at * values_.row, values_.row,
                j == 0 ? keep : nullptr, to, width_, fresh && j == 0);
      ask_keys_.advance(kStep * s_.d * static_cast<int64_t>(sizeof(Element)) / 64 + 1);
    }
  }

  const int64_t width_;
  const RowWalk walk_;
  const int64_t panel_words_;
  Buffer queries_, gathered_, weights_, key_words_, value_words_;
  Operand<Word> keys_{}, values_{};
  RowsPrefetch ask_values_, ask_keys_;
  int64_t count_ = 0;
  bool few_ = false;
};

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
