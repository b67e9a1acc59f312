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
    const int64_t more = few_ ? std::clamp<int64_t>(s_.keys - next, 0, kKeyTile) : 0;
    ask_keys_ = RowsAhead(k_ + next * row_k, more, s_.d, row_k);
    ask_values_ = RowsAhead(v_ + next * row_v, more, s_.dv, row_v);
  }
  void scores(int64_t p, int64_t n, float* to) {
    if (few_) {
      if constexpr (kWidens)
        if (in_place_) return few_scores(keys_there_, s_.d, n, to);
      return few_scores(keys_, M::words(s_.d), n, to);
    }
    M::scores(n, vecs(p), M::words(s_.d), keys_.data, keys_.row, panel(p), to);
  }
  static const float* factors() { return nullptr; }
  void values(int64_t p, int64_t n, const float* scores, const float* keep, float* to, bool fresh) {
    const Word* weights = M::weights(scores, n, vecs(p), weights_.as<Word>());
    if (few_) {
      if constexpr (kWidens)
        if (in_place_) return few_values(values_there_, n, weights, keep, to, fresh);
      return few_values(values_, n, weights, keep, to, fresh);
    }
    M::values(rows_of(p), width_, M::words(n), weights, values_.data, values_.row, keep, to, width_, fresh);
  }

 protected:
  // n rows of keys and of values, a step of row_k and row_v between them.
  void take_rows(const Element* k, int64_t row_k, const Element* v, int64_t row_v, int64_t n) {
    in_place_ = kWidens && few_ && n % few_rows::kKeys == 0 && s_.d % 2 == 0 && row_k % 2 == 0 && s_.dv == width_;
    keys_there_ = {k, row_k}, values_there_ = {v, row_v};
    if (in_place_) return;
    keys_ = M::rows(k, row_k, n, s_.d, key_words_.as<Word>(), !few_);
    values_ = M::columns(v, row_v, n, s_.dv, width_, value_words_.as<Word>(), !few_);
  }

  const Attention& a_;
  const AttentionShape& s_;
  const Element *k_ = nullptr, *v_ = nullptr;  // of the key head

 private:
  static constexpr bool kWidens = std::is_same_v<Element, BFloat16> && std::is_same_v<Word, float>;

  Word* panel(int64_t p) { return queries_.as<Word>() + p * panel_words_; }
  int64_t rows_of(int64_t p) const { return std::min(panel_rows(), count_ - p * panel_rows()); }
  int64_t vecs(int64_t p) const { return (rows_of(p) + lanes() - 1) / lanes(); }

  // A few rows, for which keys and values come from memory: asks for those of the next tile while it computes with this
  // one. The steps are cut finer, the sums are the same.
  template <class E>
  void few_scores(const Operand<E>& keys, int64_t n_words, int64_t n, float* scores) {
    int64_t j = 0;
    for (; j + few_rows::kKeys <= n; j += few_rows::kKeys) {
      HWY_ALIGN float sums[few_rows::kMaxRows * few_rows::kKeys];
      few_keys::scores(count_, n_words, keys.data + j * keys.row, keys.row, panel(0), sums, ask_keys_);
      Transpose(sums, few_rows::kKeys, count_, few_rows::kKeys, scores + j * panel_rows(), panel_rows());
    }
    if constexpr (std::is_same_v<E, Word>)
      for (; j < n; j += kRows) {
        M::scores(std::min<int64_t>(kRows, n - j), vecs(0), n_words, keys.data + j * keys.row, keys.row, panel(0),
                  scores + j * panel_rows());
        ask_keys_.advance(kRows * s_.d * static_cast<int64_t>(sizeof(Element)) / 64 + 1);
      }
  }
  template <class E>
  void few_values(const Operand<E>& values, int64_t n, const Word* weights, const float* keep, float* to, bool fresh) {
    constexpr int64_t kStep = 16;
    const int64_t lines = kStep * panel_rows() * static_cast<int64_t>(sizeof(Element)) / 64;
    for (int64_t j = 0; j < n; j += kStep) {
      const int64_t at = M::words(j), some = M::words(std::min(kStep, n - j));
      for (int64_t c = 0; c < width_; c += panel_rows()) {
        M::values(count_, std::min(panel_rows(), width_ - c), some, weights + at * panel_rows(),
                  values.data + at * values.row + c, values.row, j == 0 ? keep : nullptr, to + c, width_,
                  fresh && j == 0);
        ask_values_.advance(lines + 1);
      }
    }
  }

  const int64_t width_;
  const RowWalk walk_;
  const int64_t panel_words_;
  Buffer queries_, gathered_, weights_, key_words_, value_words_;
  Operand<Word> keys_{}, values_{};
  Operand<Element> keys_there_{}, values_there_{};
  NearRowsPrefetch ask_values_, ask_keys_;
  int64_t count_ = 0;
  bool few_ = false;
  bool in_place_ = false;  // a few rows read bfloat16 where they lie, widened in registers
};

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
