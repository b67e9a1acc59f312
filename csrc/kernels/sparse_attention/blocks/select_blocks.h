// Which blocks of keys a query reads, by the mean key of each block (MoBA, Lu et al. 2025; NSA, Yuan et al. 2025).
//
// A query sees the blocks up to its own, or all. It takes `budget` of them: its own; block 0, where the budget has room
// for two; then the best of the others, of equals the first. What is best:
//   mass 0:     the product of the block's mean with the mean of the queries whose heads share the key head, rounded to
//               their dtype;
//   mass above: the sum over these heads of the weight the block would have if all its keys were its mean. The query's
//               own block counts with the weight of its visible keys themselves. Below 1 a query takes no more blocks
//               than it needs for that share of the weight.
// A product is one chain over the features, weights are added up from block 0 on: a selection never depends on the
// queries beside it, on threads, or on how a prompt is cut.
#pragma once

#include <algorithm>

#include "base/view.h"

namespace deepseek::kernels {

struct SelectBlocks {
  View q;      // [B, H, L, D]: f32, bf16 or f16 of one dtype, the last dim contiguous, as those of k and means
  View k;      // [B, K, S, D]; read where mass is not 0
  View means;  // [B, K, N, D], N blocks: at least those before the last query's own, without `causal` all
  int64_t block_size = 64;
  int64_t most = 1;         // blocks a query may take
  double ratio = 0;         // it also takes no more than this share of its visible keys, in whole blocks; 0: as many
  double mass = 0;          // 0..1
  bool causal = false;      // query t, at position query_start + t, sees the keys up to its own position
  double scale = 1;         // of the scores behind the weights
  int64_t query_start = 0;  // queries lie among the keys

  int64_t keys() const { return k.sizes[2]; }
  int64_t own(int64_t position) const { return position / block_size; }
  int64_t blocks() const { return (keys() + block_size - 1) / block_size; }
  int64_t visible(int64_t position) const { return causal ? own(position) + 1 : blocks(); }
  int64_t budget(int64_t position) const {
    if (ratio == 0) return most;
    // 0.29 of 100 keys is 29, not 28.999…
    const auto share = static_cast<int64_t>(ratio * static_cast<double>(causal ? position + 1 : keys()) * (1 + 1e-12));
    return std::min(most, (std::max<int64_t>(share, 1) + block_size - 1) / block_size);
  }
  // All visible blocks, whatever their scores.
  bool takes_all(int64_t position) const { return (mass == 0 || mass >= 1) && budget(position) >= visible(position); }
  bool first_always(int64_t position) const { return budget(position) >= 2; }
  // Of those the best are taken: blocks 1.. before this one, but the own.
  int64_t end(int64_t position) const { return causal ? own(position) : blocks(); }
  int64_t keys_in(int64_t block) const { return std::min(block_size, keys() - block * block_size); }
};

// out int64 [B, K, L, n], contiguous: blocks in ascending order, then -1.
void select_blocks(const SelectBlocks& a, const View& out);

// The slow twin, in double, for every floating dtype.
void select_blocks_plain(const SelectBlocks& a, const View& out);

}  // namespace deepseek::kernels
