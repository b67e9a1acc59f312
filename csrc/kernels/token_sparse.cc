#include "kernels/token_sparse.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/matmul_bf16.h"
#include "kernels/routes.h"
#include "kernels/token_list.h"
#include "runtime/allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/token_sparse.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention_mask-inl.h"
#include "kernels/attention_operands-inl.h"
#include "kernels/attention_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kTokenRows = 64;  // heads of a query that share a gathered tile

// One thread's rows of one query.
template <class M>
class TokenBlock {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  TokenBlock(const Attention& a, const AttentionShape& s, const View& indices)
      : a_(a),
        s_(s),
        indices_(indices),
        width_(round_up(s.dv, lanes())),
        scale_only_(without_positions(a)),
        scale_shape_(scale_only_),
        mask_(scale_only_, scale_shape_),
        walk_(a.q),
        list_(s.keys),
        tokens_(),
        panel_words_(round_up(M::words(s.d), 4) * panel_rows()),
        queries_(static_cast<size_t>(kTokenRows / panel_rows() * panel_words_) * 4),
        gathered_(static_cast<size_t>(panel_rows() * round_up(s.d, 4)) * 4),
        scores_(static_cast<size_t>(kKeyTile * panel_rows() + panel_rows()) * 4),
        weights_(static_cast<size_t>(kKeyTile * panel_rows()) * 4),
        key_rows_(static_cast<size_t>(kKeyTile * s.d) * sizeof(E)),
        value_rows_(static_cast<size_t>(kKeyTile * s.dv) * sizeof(E)),
        keys_(static_cast<size_t>(kKeyTile * (s.d + 1)) * 4),
        values_(static_cast<size_t>(kKeyTile * width_) * 4),
        sums_(static_cast<size_t>(2 * RowSums::floats(kTokenRows, width_)) * 4),
        part_(sums_.as<float>(), kTokenRows),
        total_(sums_.as<float>() + RowSums::floats(kTokenRows, width_), kTokenRows) {}

  // `count` heads of a key head from `first` on.
  void run(int64_t b, int64_t key_head, int64_t query, int64_t first, int64_t count) {
    b_ = b, head_ = key_head, first_ = query * s_.group + first, count_ = count;
    const int64_t n = indices_.sizes[2];
    list_.build(s_, indices_.as<int64_t>() + (b * s_.queries + query) * n, n, s_.start + query, tokens_);
    for (int64_t p = 0; p * panel_rows() < count; ++p)
      M::panel(
          a_.q.template as<E>(), [&](int64_t r) { return walk_.at(s_, b, key_head, first_ + p * panel_rows() + r); },
          rows_of(p), s_.d, gathered_.as<Word>(), panel(p));
    const int64_t keys = static_cast<int64_t>(tokens_.size());
    for (int64_t chunk = 0; chunk < keys; chunk += kKeyChunk) {
      const int64_t end = std::min(keys, chunk + kKeyChunk);
      for (int64_t key = chunk; key < end; key += kKeyTile) tile(key, std::min(kKeyTile, end - key), key == chunk);
      for (int64_t p = 0; p * panel_rows() < count; ++p)
        Merge(total_, part_, p * panel_rows(), rows_of(p), width_, chunk == 0);
    }
  }

  void finish(const View& out, const View& lse) {
    const F32 d;
    const RowWalk to(out);
    const bool any = !tokens_.empty();
    for (int64_t r = 0; r < count_; ++r) {
      const int64_t row = first_ + r, head = head_ * s_.group + row % s_.group;
      const float sum = any ? total_.sum[r] : 0, scale = sum == 0 ? 0 : 1 / sum;
      lse.as<float>()[(b_ * s_.heads + head) * s_.queries + row / s_.group] =
          sum == 0 ? -kInf : total_.top[r] * kLn2 + std::log(sum);
      float* values = total_.values + r * width_;
      for (int64_t c = 0; c < width_; c += lanes())
        hn::StoreU(any ? hn::Mul(hn::LoadU(d, values + c), hn::Set(d, scale)) : hn::Zero(d), d, values + c);
      StoreRow(values, s_.dv, out.as<E>() + to.at(s_, b_, head_, row));
    }
  }

 private:
  Word* panel(int64_t p) { return queries_.as<Word>() + p * panel_words_; }
  int64_t rows_of(int64_t p) const { return std::min(panel_rows(), count_ - p * panel_rows()); }

  // n rows of `size` elements, those of the tokens from `first` on, side by side.
  void gather(const View& from, int64_t first, int64_t n, int64_t size, E* to) const {
    const E* base = from.as<E>() + b_ * from.strides[0] + head_ * from.strides[1];
    for (int64_t j = 0; j < n; ++j)
      std::memcpy(to + j * size, base + tokens_[static_cast<size_t>(first + j)] * from.strides[2],
                  static_cast<size_t>(size) * sizeof(E));
  }

  void tile(int64_t first, int64_t n, bool fresh) {
    gather(a_.k, first, n, s_.d, key_rows_.as<E>());
    gather(a_.v, first, n, s_.dv, value_rows_.as<E>());
    const Operand<Word> keys = M::rows(key_rows_.as<E>(), s_.d, n, s_.d, keys_.as<Word>(), true),
                        values = M::columns(value_rows_.as<E>(), s_.dv, n, s_.dv, width_, values_.as<Word>(), true);
    float *scores = scores_.as<float>(), *keep = scores + kKeyTile * panel_rows();
    for (int64_t p = 0; p * panel_rows() < count_; ++p) {
      const int64_t r0 = p * panel_rows(), rows = rows_of(p), vecs = (rows + lanes() - 1) / lanes();
      M::scores(n, vecs, M::words(s_.d), keys.data, keys.row, panel(p), scores);
      const float c = mask_.apply(TileAt{b_, head_, first_ + r0, rows, 0, n, positions_}, scores, nullptr);
      SoftmaxTile(vecs, scores, n, c, {}, part_.top + r0, part_.sum + r0, keep, fresh);
      M::values(rows, width_, M::words(n), M::weights(scores, n, vecs, weights_.as<Word>()), values.data, values.row,
                keep, part_.values + r0 * width_, width_, fresh);
    }
  }

  const Attention& a_;
  const AttentionShape& s_;
  const View& indices_;
  const int64_t width_;
  const Attention scale_only_;
  const AttentionShape scale_shape_;
  ScoreMask mask_;
  const RowWalk walk_;
  TokenList list_;
  std::vector<int32_t> tokens_;
  const int64_t panel_words_;
  Buffer queries_, gathered_, scores_, weights_, key_rows_, value_rows_, keys_, values_, sums_;
  const RowSums part_, total_;
  int32_t positions_[kTokenRows] = {};  // say nothing: keys are picked beforehand
  int64_t b_ = 0, head_ = 0, first_ = 0, count_ = 0;
};

template <class M>
void TokenSparseAs(const Attention& a, const View& indices, const View& out, const View& lse) {
  const AttentionShape s(a);
  const int64_t parts = (s.group + kTokenRows - 1) / kTokenRows, units = s.batch * s.queries * s.key_heads * parts;
  const double flops =
      2.0 * static_cast<double>(std::min(s.group, kTokenRows) * indices.sizes[2]) * static_cast<double>(s.d + s.dv);
  share_units(units, flops, [&](std::atomic<int64_t>& next) {
    TokenBlock<M> block(a, s, indices);
    for (int64_t unit; (unit = next.fetch_add(1)) < units;) {
      const int64_t first = unit % parts * kTokenRows, head = unit / parts % s.key_heads,
                    query = unit / parts / s.key_heads;
      block.run(query / s.queries, head, query % s.queries, first, std::min(kTokenRows, s.group - first));
      block.finish(out, lse);
    }
  });
}

void TokenSparseForward(const Attention& a, const View& indices, const View& out, const View& lse,
                        [[maybe_unused]] bool bf16_dot) {
#if HWY_TARGET <= HWY_AVX3
  if (bf16_dot) {
    count_route(Route::kTokenSparseBf16Dot);
    return TokenSparseAs<Bf16Operands>(a, indices, out, lse);
  }
#endif
  DS_COUNT_ROUTE(TokenSparseFloat);
  switch (a.q.dtype) {
    case DType::kBFloat16:
      return TokenSparseAs<FloatOperands<BFloat16>>(a, indices, out, lse);
    case DType::kFloat16:
      return TokenSparseAs<FloatOperands<Half>>(a, indices, out, lse);
    default:
      return TokenSparseAs<FloatOperands<float>>(a, indices, out, lse);
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(TokenSparseForward);

void token_sparse_forward(const Attention& a, const View& indices, const View& out, const View& lse) {
  if (a.q.numel() == 0 && out.numel() == 0) return;
  HWY_DYNAMIC_DISPATCH(TokenSparseForward)(a, indices, out, lse, attention_uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
