// Panels of gathered rows. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_SPARSE_ATTENTION_BLOCKS_BLOCK_SPARSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_SPARSE_ATTENTION_BLOCKS_BLOCK_SPARSE_INL_H_
#undef DEEPSEEK_KERNELS_SPARSE_ATTENTION_BLOCKS_BLOCK_SPARSE_INL_H_
#else
#define DEEPSEEK_KERNELS_SPARSE_ATTENTION_BLOCKS_BLOCK_SPARSE_INL_H_
#endif

#include "kernels/attention/attention_mask-inl.h"
#include "kernels/attention/attention_softmax-inl.h"
#include "kernels/attention/products/attention_operands-inl.h"
#include "kernels/gemm/tile/prefetch.h"
#include "kernels/sparse_attention/blocks/block_sparse.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kMaxPanel = kVecs * HWY_MAX_BYTES / 4;

// Rows of one key head that read one tile.
struct GatheredRows {
  int64_t n = 0;
  int64_t row[kMaxPanel];
  const SelectedTile* from[kMaxPanel];
  int32_t position[kMaxPanel], keys[kMaxPanel];
  bool every_key = true;  // no row reads only a part of the tile

  void clear() { n = 0, every_key = true; }
  void add(const AttentionShape& s, int64_t r, const SelectedTile& t) {
    row[n] = r, from[n] = &t, position[n] = static_cast<int32_t>(s.position(r)), keys[n] = t.keys;
    every_key = every_key && t.keys == SelectedTile::kAll;
    ++n;
  }
  // Lanes beyond the last row do as that row does.
  void pad() {
    for (int64_t i = n; i < round_up(n, lanes()); ++i) position[i] = position[n - 1], keys[i] = keys[n - 1];
  }
};

// Calls f(rows) with the rows that read a tile, a panel at a time, in order; or those first that read no earlier tile
// of the chunk, so that the sums of most panels start afresh.
template <class F>
void ForPanels(const BlockSelection& sel, const AttentionShape& s, const SelectedTile* begin, const SelectedTile* end,
               bool fresh_first, GatheredRows& rows, F f) {
  rows.clear();
  for (int pass = 0; pass < (fresh_first ? 2 : 1); ++pass)
    for (const SelectedTile* t = begin; t < end; ++t) {
      if (fresh_first && t->first != (pass == 0)) continue;
      const int64_t first = t->group * sel.group * s.group,
                    last = std::min<int64_t>((t->group + 1) * sel.group, s.queries) * s.group;
      for (int64_t r = first; r < last; ++r) {
        rows.add(s, r, *t);
        if (rows.n < panel_rows()) continue;
        f(rows);
        rows.clear();
      }
    }
  if (rows.n == 0) return;
  rows.pad();
  f(rows);
}

// Pieces of memory anywhere, neighbours joined.
class MemoryPieces {
 public:
  void add(const void* from, int64_t bytes) {
    if (count_ == kMost || bytes <= 0) return;
    if (count_ > 0 && pieces_[count_ - 1].data + pieces_[count_ - 1].bytes == from)
      pieces_[count_ - 1].bytes += bytes;
    else
      pieces_[count_++] = {static_cast<const char*>(from), bytes};
    lines_ += (bytes + 63) / 64;
  }
  int64_t lines() const { return lines_; }

 protected:
  void clear() { count_ = next_ = lines_ = 0; }
  MemoryPiece next() { return next_ < count_ ? pieces_[next_++] : MemoryPiece{}; }

 private:
  static constexpr int64_t kMost = 2 * kMaxPanel + kKeyTile;
  MemoryPiece pieces_[kMost];
  int64_t count_ = 0, next_ = 0, lines_ = 0;
};
using PiecesPrefetch = Prefetch<MemoryPieces>;

// The rows of a block of queries, turned once: of rows that always come together (heads of a query) strips
// [words][rows], from which panels are put together by plain copies.
template <class M>
class RowStrips {
  using E = typename M::Element;
  using Word = typename M::Word;

 public:
  RowStrips(const AttentionShape& s, int64_t rows)
      : words_(M::words(s.d)),
        together_(s.group % 16 == 0  ? 16
                  : s.group % 8 == 0 ? 8
                  : s.group % 4 == 0 ? 4
                                     : 0),
        strips_(static_cast<size_t>(together_ ? rows * words_ : 1) * 4) {}
  explicit operator bool() const { return together_ != 0; }

  // Rows 0.. count - 1 of the block; `gathered` and `turned` as in M::panel.
  template <class RowAt>
  void take(const E* base, RowAt row_at, int64_t count, int64_t d, Word* gathered, Word* turned) {
    for (int64_t r = 0; r < count; r += panel_rows()) {
      const int64_t n = std::min(panel_rows(), count - r);
      M::panel(
          base, [&](int64_t i) { return row_at(r + i); }, n, d, gathered, turned);
      for (int64_t i = 0; i < n; i += together_)
        for (int64_t w = 0; w < words_; ++w)
          std::memcpy(strip(r + i) + w * together_, turned + w * panel_rows() + i, static_cast<size_t>(together_) * 4);
    }
  }
  // Calls f(start, bytes) with the strips of a panel.
  template <class F>
  void for_each_strip(const int64_t* rows, int64_t first, int64_t n, F f) const {
    for (int64_t i = 0; i < n; i += together_) f(strip(rows[i] - first), words_ * together_ * 4);
  }
  // The panel of rows[i] - first, i < n.
  void panel(const int64_t* rows, int64_t first, int64_t n, Word* turned) const {
    for (int64_t i = 0; i < n; i += together_) {
      const Word* from = strip(rows[i] - first);
      together_ == 16  ? spread<16>(from, turned + i)
      : together_ == 8 ? spread<8>(from, turned + i)
                       : spread<4>(from, turned + i);
    }
    for (int64_t end = round_up(n, lanes()), w = 0; n < end && w < words_; ++w)
      std::fill(turned + w * panel_rows() + n, turned + w * panel_rows() + end, Word{0});
  }

 private:
  Word* strip(int64_t row) const { return strips_.template as<Word>() + row * words_; }
  template <int N>
  void spread(const Word* HWY_RESTRICT from, Word* HWY_RESTRICT to) const {
    for (int64_t w = 0; w < words_; ++w) std::memcpy(to + w * panel_rows(), from + w * N, N * 4);
  }

  const int64_t words_, together_;
  Buffer strips_;
};

// -inf for keys of the tile that a row did not select.
inline void CutUnselected(const GatheredRows& rows, int64_t keys, float* scores) {
  if (rows.every_key) return;
  const F32 d;
  const I32 di;
  const auto none = hn::Set(d, -kInf);
  for (int64_t r = 0; r < rows.n; r += lanes()) {
    const auto selected = hn::LoadU(di, rows.keys + r);
    for (int64_t j = 0; j < keys; ++j) {
      const auto bit = hn::Set(di, 1 << (j / kSelectedKeys));
      float* at = scores + j * panel_rows() + r;
      hn::StoreU(hn::IfThenElse(hn::RebindMask(d, hn::Eq(hn::And(selected, bit), bit)), hn::LoadU(d, at), none), d, at);
    }
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
