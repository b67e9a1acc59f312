#include "kernels/sparse_attention/blocks/block_selection.h"

#include <algorithm>

namespace deepseek::kernels {

int64_t wrong_block(const BlockSelection& sel, int64_t blocks) {
  const int64_t* indices = sel.indices.as<int64_t>();
  for (int64_t i = 0; i < sel.indices.numel(); ++i)
    if (const int64_t block = indices[i]; block < -1 || block >= blocks) return block;
  return -1;
}

void selection_mask(const BlockSelection& sel, const AttentionShape& s, const View& mask) {
  const int64_t groups = sel.groups(s.queries), n = sel.indices.sizes[3];
  parallel_for(s.batch * s.heads * s.queries, grain_for(s.keys + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / s.queries / s.heads, head = i / s.queries % s.heads / s.group;
      bool* row = mask.as<bool>() + i * s.keys;
      std::fill_n(row, s.keys, false);
      const int64_t at = (b * s.key_heads + head) * groups + i % s.queries / sel.group;
      for (int64_t j = at * n; j < (at + 1) * n; ++j) {
        const int64_t block = sel.indices.as<int64_t>()[j], first = block * sel.block_size;
        if (block >= 0 && block < sel.blocks(s.keys))
          std::fill(row + first, row + std::min(first + sel.block_size, s.keys), true);
      }
    }
  });
}

TileLists::TileLists(const BlockSelection& sel, const AttentionShape& s)
    : sel_(sel),
      s_(s),
      keys_(static_cast<size_t>((s.keys + kKeyTile - 1) / kKeyTile)),
      touched_(),
      found_(),
      sorted_(),
      start_(keys_.size() + 1) {}

void TileLists::add_group(const int64_t* indices, int64_t n, int64_t group) {
  touched_.clear();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t block = indices[i];
    if (block < 0 || block >= sel_.blocks(s_.keys)) continue;  // checked before, but others may write
    const int64_t first = block * sel_.block_size, end = std::min(first + sel_.block_size, s_.keys);
    for (int64_t key = first; key < end; key += kSelectedKeys) {
      int8_t& keys = keys_[static_cast<size_t>(key / kKeyTile)];
      if (keys == 0) touched_.push_back(static_cast<int32_t>(key / kKeyTile));
      keys = static_cast<int8_t>(keys | 1 << (key % kKeyTile / kSelectedKeys));
    }
  }
  std::sort(touched_.begin(), touched_.end());
  const int64_t lo = s_.start + group * sel_.group, hi = s_.start + std::min((group + 1) * sel_.group, s_.queries) - 1;
  int32_t turn = 0;
  int64_t chunk = -1;
  for (const int32_t tile : touched_) {
    const int8_t keys = std::exchange(keys_[static_cast<size_t>(tile)], int8_t{0});
    const int64_t key = tile * kKeyTile;
    if (!s_.any(lo, hi, key, std::min(key + kKeyTile, s_.keys) - 1)) continue;
    const bool first = key / kKeyChunk != chunk;
    if (!first) found_.back().last = false;
    chunk = key / kKeyChunk;
    found_.push_back({tile, static_cast<int32_t>(group), turn++, keys, first, true});
  }
}

void TileLists::build(int64_t b, int64_t key_head, int64_t begin, int64_t end) {
  const int64_t n = sel_.indices.sizes[3], groups = sel_.groups(s_.queries);
  const int64_t* indices = sel_.indices.as<int64_t>() + (b * s_.key_heads + key_head) * groups * n;
  found_.clear();
  for (int64_t g = begin; g < end; ++g) add_group(indices + g * n, n, g);
  std::fill(start_.begin(), start_.end(), 0);
  for (const SelectedTile& t : found_) ++start_[static_cast<size_t>(t.tile) + 1];
  for (size_t i = 1; i < start_.size(); ++i) start_[i] += start_[i - 1];
  sorted_.resize(found_.size());
  for (const SelectedTile& t : found_) sorted_[static_cast<size_t>(start_[static_cast<size_t>(t.tile)]++)] = t;
  for (size_t i = start_.size() - 1; i > 0; --i) start_[i] = start_[i - 1];  // each was moved to its end
  start_[0] = 0;
}

}  // namespace deepseek::kernels
