// Panels of gathered rows. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_BLOCK_SPARSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_BLOCK_SPARSE_INL_H_
#undef DEEPSEEK_KERNELS_BLOCK_SPARSE_INL_H_
#else
#define DEEPSEEK_KERNELS_BLOCK_SPARSE_INL_H_
#endif

#include "kernels/attention_mask-inl.h"
#include "kernels/attention_operands-inl.h"
#include "kernels/attention_softmax-inl.h"
#include "kernels/block_sparse.h"

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

// Calls f(rows) with the rows that read a tile, a panel at a time, in order.
template <class F>
void ForPanels(const BlockSelection& sel, const AttentionShape& s, const SelectedTile* begin, const SelectedTile* end,
               GatheredRows& rows, F f) {
  rows.clear();
  for (const SelectedTile* t = begin; t < end; ++t) {
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
