#include "kernels/attention.h"

#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/attention_few_rows.h"
#include "kernels/matmul_bf16.h"
#include "kernels/routes.h"
#include "runtime/allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention_mask-inl.h"
#include "kernels/attention_operands-inl.h"
#include "kernels/attention_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kBlockRows = 128;  // rows that share a tile of keys while it is in the cache

// One thread's block of rows of one key head.
template <class M>
class ForwardBlock {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  ForwardBlock(const Attention& a, const AttentionShape& s, int64_t max_rows)
      : a_(a),
        s_(s),
        rows_(round_up(max_rows, panel_rows())),
        panels_(rows_ / panel_rows()),
        width_(round_up(s.dv, lanes())),
        mask_(a, s),
        walk_(a.q),
        panel_words_(round_up(M::words(s.d), 4) * panel_rows()),
        queries_(static_cast<size_t>(panels_ * panel_words_) * 4),
        gathered_(static_cast<size_t>(panel_rows() * round_up(s.d, 4)) * 4),
        scores_(static_cast<size_t>(kKeyTile * panel_rows() + panel_rows()) * 4),
        weights_(static_cast<size_t>(kKeyTile * panel_rows()) * 4),
        keys_(static_cast<size_t>(kKeyTile * (s.d + 1)) * 4),
        values_(static_cast<size_t>(kKeyTile * width_) * 4),
        sums_(static_cast<size_t>(2 * RowSums::floats(rows_, width_)) * 4),
        positions_(static_cast<size_t>(rows_) * 4),
        part_(sums_.as<float>(), rows_),
        total_(sums_.as<float>() + RowSums::floats(rows_, width_), rows_),
        merged_(panels_),
        fresh_(panels_) {
    std::fill_n(scores_.as<float>(), kKeyTile * panel_rows(), 0.0f);  // lanes without a row stay harmless
  }

  // Takes up rows first.. of a key head.
  void begin(int64_t b, int64_t key_head, int64_t first, int64_t count) {
    b_ = b, head_ = key_head, first_ = first, count_ = count;
    merged_.assign(panels_, false);
    const E* q = a_.q.template as<E>();
    for (int64_t p = 0; p * panel_rows() < count; ++p)
      M::panel(
          q, [&](int64_t r) { return walk_.at(s_, b, key_head, first + p * panel_rows() + r); }, rows_of(p), s_.d,
          gathered_.as<Word>(), panel(p));
    int32_t* position = positions_.as<int32_t>();
    for (int64_t r = 0; r < rows_; ++r) position[r] = static_cast<int32_t>(s_.position(first + std::min(r, count - 1)));
  }

  // A chunk of keys on its own; fresh[panel] stays set where no key takes part.
  void chunk(int64_t index, const RowSums& part, char* fresh) {
    std::fill_n(fresh, panels_, char{1});
    const int64_t end = std::min(s_.keys, (index + 1) * kKeyChunk);
    for (int64_t key = index * kKeyChunk; key < end; key += kKeyTile)
      tile(key, std::min(kKeyTile, end - key), part, fresh);
  }
  void merge(const RowSums& part, const char* fresh) {
    for (int64_t p = 0; p < panels(); ++p) {
      if (fresh[p]) continue;
      Merge(total_, part, p * panel_rows(), rows_of(p), width_, !merged_[p]);
      merged_[p] = true;
    }
  }
  // All chunks one after another.
  void run() {
    const int64_t begin = s_.first_key(s_.position(first_)), end = s_.end_key(s_.position(first_ + count_ - 1));
    for (int64_t c = begin / kKeyChunk; c * kKeyChunk < end; ++c) {
      chunk(c, part_, fresh_.data());
      merge(part_, fresh_.data());
    }
  }

  void finish(const View& out, const View& lse) {
    const RowWalk to(out);
    for (int64_t r = 0; r < count_; ++r) {
      const int64_t row = first_ + r, head = head_ * s_.group + row % s_.group;
      const bool any = merged_[r / panel_rows()];
      float top = any ? total_.top[r] : -kInf, sum = any ? total_.sum[r] : 0, keep = 1;
      if (a_.sinks.data) {
        const float sink = a_.sinks.as<float>()[head] * kLog2e, both = std::max(top, sink),
                    shift = both == -kInf ? 0 : both;
        keep = Exp2Of(top - shift);
        sum = sum * keep + Exp2Of(sink - shift);
        top = both;
      }
      lse.as<float>()[(b_ * s_.heads + head) * s_.queries + row / s_.group] =
          sum == 0 ? -kInf : top * kLn2 + std::log(sum);
      float* values = total_.values + r * width_;
      const float scale = sum == 0 ? 0 : keep / sum;
      const F32 d;
      for (int64_t c = 0; c < width_; c += lanes())
        hn::StoreU(any ? hn::Mul(hn::LoadU(d, values + c), hn::Set(d, scale)) : hn::Zero(d), d, values + c);
      StoreRow(values, s_.dv, out.as<E>() + to.at(s_, b_, head_, row));
    }
  }

 private:
  int64_t panels() const { return (count_ + panel_rows() - 1) / panel_rows(); }
  Word* panel(int64_t p) { return queries_.as<Word>() + p * panel_words_; }
  int64_t rows_of(int64_t p) const { return std::min(panel_rows(), count_ - p * panel_rows()); }

  void tile(int64_t key, int64_t n, const RowSums& part, char* fresh) {
    const int32_t* position = positions_.as<int32_t>();
    const E* k = a_.k.template as<E>() + b_ * a_.k.strides[0] + head_ * a_.k.strides[1] + key * a_.k.strides[2];
    const E* v = a_.v.template as<E>() + b_ * a_.v.strides[0] + head_ * a_.v.strides[1] + key * a_.v.strides[2];
    const bool reused = count_ > few_rows::kMaxRows;
    Operand<Word> keys{}, values{};
    for (int64_t p = 0; p < panels(); ++p) {
      const int64_t r0 = p * panel_rows(), rows = rows_of(p), vecs = (rows + lanes() - 1) / lanes();
      const int32_t* at = position + r0;
      if (!s_.any(at[0], at[rows - 1], key, key + n - 1)) continue;
      if (!keys.data) {
        keys = M::rows(k, a_.k.strides[2], n, s_.d, keys_.as<Word>(), reused);
        values = M::columns(v, a_.v.strides[2], n, s_.dv, width_, values_.as<Word>(), reused);
      }
      float *scores = scores_.as<float>(), *keep = scores + kKeyTile * panel_rows();
      if (reused)
        M::scores(n, vecs, M::words(s_.d), keys.data, keys.row, panel(p), scores);
      else
        few_scores(v, n, vecs, keys, scores);
      const TileAt t{b_, head_, first_ + r0, rows, key, n, at};
      const float c = mask_.apply(t, scores, nullptr);
      const float* kept = a_.dropout_p > 0 ? mask_.kept(t) : nullptr;
      SoftmaxTile(vecs, scores, n, c, kept, part.top + r0, part.sum + r0, keep, fresh[p]);
      const Word* weights = M::weights(scores, n, vecs, weights_.as<Word>());
      float* to = part.values + r0 * width_;
      if (reused)
        M::values(rows, width_, M::words(n), weights, values.data, values.row, keep, to, width_, fresh[p]);
      else
        few_values(k, key, n, weights, values, keep, to, fresh[p]);
      fresh[p] = false;
    }
  }

  // A few rows, for which keys and values come from memory: asks for the values of this tile while it computes scores,
  // for the next keys while it adds values up. The steps are cut finer, the sums are the same.
  void few_scores(const E* v, int64_t n, int64_t vecs, const Operand<Word>& keys, float* scores) {
    const int64_t words = M::words(s_.d);
    few_rows::Ahead ahead = rows_ahead(v, n, s_.dv, a_.v.strides[2]);
    int64_t j = 0;
#if HWY_TARGET <= HWY_AVX3
    for (; j + few_rows::kKeys <= n; j += few_rows::kKeys) {
      HWY_ALIGN float sums[few_rows::kMaxRows * few_rows::kKeys];
      few_rows::scores(count_, words, keys.data + j * keys.row, keys.row, panel(0), sums, ahead);
      Transpose(sums, few_rows::kKeys, count_, few_rows::kKeys, scores + j * panel_rows(), panel_rows());
    }
#endif
    for (; j < n; j += kRows) {
      M::scores(std::min<int64_t>(kRows, n - j), vecs, words, keys.data + j * keys.row, keys.row, panel(0),
                scores + j * panel_rows());
      ahead.take(kRows * s_.dv * static_cast<int64_t>(sizeof(E)) / 64 + 1);
    }
  }
  void few_values(const E* k, int64_t key, int64_t n, const Word* weights, const Operand<Word>& values,
                  const float* keep, float* to, bool fresh) {
    constexpr int64_t kStep = 16;
    const int64_t next = std::min(kKeyTile, s_.keys - key - kKeyTile);
    few_rows::Ahead ahead = rows_ahead(k + kKeyTile * a_.k.strides[2], next, s_.d, a_.k.strides[2]);
    for (int64_t j = 0; j < n; j += kStep) {
      const int64_t at = M::words(j), some = M::words(std::min(kStep, n - j));
      M::values(count_, width_, some, weights + at * panel_rows(), values.data + at * values.row, values.row,
                j == 0 ? keep : nullptr, to, width_, fresh && j == 0);
      ahead.take(kStep * s_.d * static_cast<int64_t>(sizeof(E)) / 64 + 1);
    }
  }
  static few_rows::Ahead rows_ahead(const E* first, int64_t rows, int64_t n, int64_t row) {
    return {first, rows, n * static_cast<int64_t>(sizeof(E)), row * static_cast<int64_t>(sizeof(E))};
  }

  const Attention& a_;
  const AttentionShape& s_;
  const int64_t rows_, panels_, width_;
  ScoreMask mask_;
  const RowWalk walk_;
  const int64_t panel_words_;
  Buffer queries_, gathered_, scores_, weights_, keys_, values_, sums_, positions_;
  const RowSums part_, total_;
  std::vector<char> merged_, fresh_;
  int64_t b_ = 0, head_ = 0, first_ = 0, count_ = 0;
};

struct Blocks {
  int64_t size, count, all;  // rows a block, blocks a key head, blocks in all
  AttentionShape s;
  explicit Blocks(const AttentionShape& shape)
      : size(std::min(kBlockRows, round_up(shape.rows, panel_rows()))),
        count((shape.rows + size - 1) / size),
        all(count * shape.batch * shape.key_heads),
        s(shape) {}

  // Causal blocks cost more the later they are: those come first.
  template <class Block>
  void begin(Block& block, int64_t at) const {
    const int64_t heads = s.batch * s.key_heads, head = at % heads, first = (count - 1 - at / heads) * size;
    block.begin(head / s.key_heads, head % s.key_heads, first, std::min(size, s.rows - first));
  }
  double flops(int64_t keys) const { return 2.0 * static_cast<double>(std::min(size, s.rows) * keys * (s.d + s.dv)); }
};

template <class M>
void ForwardWhole(const Attention& a, const Blocks& blocks, const View& out, const View& lse) {
  share_units(blocks.all, blocks.flops(blocks.s.keys), [&](std::atomic<int64_t>& next) {
    ForwardBlock<M> block(a, blocks.s, blocks.size);
    for (int64_t at; (at = next.fetch_add(1)) < blocks.all;) {
      blocks.begin(block, at);
      block.run();
      block.finish(out, lse);
    }
  });
}

// Fewer blocks than threads: the chunks of keys apart, then merged in order.
template <class M>
void ForwardSplit(const Attention& a, const Blocks& blocks, const View& out, const View& lse) {
  const int64_t chunks = (blocks.s.keys + kKeyChunk - 1) / kKeyChunk, rows = round_up(blocks.size, panel_rows()),
                panels = rows / panel_rows(), floats = RowSums::floats(rows, round_up(blocks.s.dv, lanes()));
  const Buffer sums(static_cast<size_t>(blocks.all * chunks * floats) * 4);
  const Buffer flags(static_cast<size_t>(blocks.all * chunks * panels));
  const auto part = [&](int64_t unit) { return RowSums(sums.as<float>() + unit * floats, rows); };
  share_units(blocks.all * chunks, blocks.flops(kKeyChunk), [&](std::atomic<int64_t>& next) {
    ForwardBlock<M> block(a, blocks.s, blocks.size);
    for (int64_t unit; (unit = next.fetch_add(1)) < blocks.all * chunks;) {
      blocks.begin(block, unit / chunks);
      block.chunk(unit % chunks, part(unit), flags.as<char>() + unit * panels);
    }
  });
  ForwardBlock<M> block(a, blocks.s, blocks.size);
  for (int64_t at = 0; at < blocks.all; ++at) {
    blocks.begin(block, at);
    for (int64_t unit = at * chunks; unit < (at + 1) * chunks; ++unit)
      block.merge(part(unit), flags.as<char>() + unit * panels);
    block.finish(out, lse);
  }
}

template <class M>
void ForwardAs(const Attention& a, const View& out, const View& lse) {
  const Blocks blocks((AttentionShape(a)));
  const bool split = blocks.all < 2 * num_threads() && num_threads() > 1 && blocks.s.keys > kKeyChunk;
  split ? ForwardSplit<M>(a, blocks, out, lse) : ForwardWhole<M>(a, blocks, out, lse);
}

void AttentionForward(const Attention& a, const View& out, const View& lse, [[maybe_unused]] bool bf16_dot) {
#if HWY_TARGET <= HWY_AVX3
  if (bf16_dot) {
    count_route(Route::kAttentionBf16Dot);
    return ForwardAs<Bf16Operands>(a, out, lse);
  }
#endif
  DS_COUNT_ROUTE(AttentionFloat);
  switch (a.q.dtype) {
    case DType::kBFloat16:
      return ForwardAs<FloatOperands<BFloat16>>(a, out, lse);
    case DType::kFloat16:
      return ForwardAs<FloatOperands<Half>>(a, out, lse);
    default:
      return ForwardAs<FloatOperands<float>>(a, out, lse);
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(AttentionForward);

bool attention_uses_bf16_dot(DType dtype) { return dtype == DType::kBFloat16 && bf16_kernel_available(); }

void attention_forward(const Attention& a, const View& out, const View& lse) {
  if (a.q.numel() == 0 && out.numel() == 0) return;
  HWY_DYNAMIC_DISPATCH(AttentionForward)(a, out, lse, attention_uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
