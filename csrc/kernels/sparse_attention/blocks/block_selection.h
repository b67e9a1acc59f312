// Which blocks of keys queries have selected, turned round: for each tile of keys the groups of queries that read it.
#pragma once

#include <vector>

#include "kernels/attention/attention_shape.h"

namespace deepseek::kernels {

inline constexpr int64_t kSelectedKeys = 16;  // blocks are multiples of so many keys

struct BlockSelection {
  // int64 [B, K, ceil(L / group), n], contiguous: blocks that `group` queries one after another select for a key head.
  // In any order; -1 selects nothing, a block that is named twice counts once.
  View indices;
  int64_t block_size = 64;  // a multiple of kSelectedKeys
  int64_t group = 1;

  int64_t groups(int64_t queries) const { return (queries + group - 1) / group; }
  int64_t blocks(int64_t keys) const { return (keys + block_size - 1) / block_size; }
};

// The first index below -1 or not below `blocks`, else -1.
int64_t wrong_block(const BlockSelection& sel, int64_t blocks);

// The selection as a mask: bool [B, H, L, S], contiguous.
void selection_mask(const BlockSelection& sel, const AttentionShape& s, const View& mask);

// A group of queries that reads a tile of keys.
struct SelectedTile {
  static constexpr int kAll = 15;
  int32_t tile, group;
  int32_t turn;      // how many tiles the group reads before this one
  int8_t keys;       // bit i: keys 16 i.. of the tile
  bool first, last;  // of the tiles that the group reads in this chunk of keys
};

// The groups begin..end of a key head by the tiles of keys that they read: by tile, then by group.
class TileLists {
 public:
  TileLists(const BlockSelection& sel, const AttentionShape& s);
  void build(int64_t b, int64_t key_head, int64_t begin, int64_t end);

  int64_t tiles() const { return static_cast<int64_t>(start_.size()) - 1; }
  const SelectedTile* begin(int64_t tile) const { return sorted_.data() + start_[static_cast<size_t>(tile)]; }
  const SelectedTile* end(int64_t tile) const { return sorted_.data() + start_[static_cast<size_t>(tile) + 1]; }

 private:
  void add_group(const int64_t* indices, int64_t n, int64_t group);

  const BlockSelection& sel_;
  const AttentionShape& s_;
  std::vector<int8_t> keys_;      // of each tile, for the group at hand
  std::vector<int32_t> touched_;  // tiles with keys
  std::vector<SelectedTile> found_, sorted_;
  std::vector<int64_t> start_;
};

}  // namespace deepseek::kernels
