// The keys that a query has selected and sees, in ascending order, each once.
#pragma once

#include <bit>
#include <utility>
#include <vector>

#include "kernels/attention/attention_shape.h"

namespace deepseek::kernels {

// What positions say is in the lists.
inline Attention without_positions(Attention a) {
  a.causal = false, a.window = 0;
  return a;
}

class TokenList {
 public:
  explicit TokenList(int64_t keys) : bits_(static_cast<size_t>(keys + 63) / 64) {}
  // Of n indices in any order, -1 among them, for a query at `position`.
  void build(const AttentionShape& s, const int64_t* indices, int64_t n, int64_t position,
             std::vector<int32_t>& tokens) {
    const int64_t begin = s.first_key(position), end = s.end_key(position);
    for (int64_t i = 0; i < n; ++i)
      if (const int64_t token = indices[i]; token >= begin && token < end)
        bits_[static_cast<size_t>(token / 64)] |= uint64_t{1} << (token % 64);
    tokens.clear();
    for (size_t w = 0; w < bits_.size(); ++w)
      for (uint64_t left = std::exchange(bits_[w], 0); left; left &= left - 1)
        tokens.push_back(static_cast<int32_t>(w) * 64 + std::countr_zero(left));
  }

 private:
  std::vector<uint64_t> bits_;
};

}  // namespace deepseek::kernels
