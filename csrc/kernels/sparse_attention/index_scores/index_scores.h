// Scores by which sparse attention picks its keys (the lightning indexer of DeepSeek-V3.2):
//   out[t, s] = sum over heads j, in order, of w[t, j] max(0, q[t, j] . k[s]).
// Each score is one chain over the heads of products that are chains over the features, so it has the same bits alone
// and beside others. Products of int8 are exact integers, the same on every CPU.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

struct IndexScores {
  View q;  // [B, L, J, D], contiguous: f32, bf16, f16, or int8
  View k;  // [B, S, D], contiguous, of q's dtype
  View w;  // [B, L, J] floats, contiguous
  // Of int8: what q's and k's rows are multiplied by, [B, L, J] and [B, S] floats, contiguous.
  View q_scale, k_scale;
  bool causal = false;      // query t, at position query_start + t, sees the keys up to its own position: others -inf
  int64_t query_start = 0;  // position of the first query
};

// out [B, L, S] floats, contiguous.
void index_scores(const IndexScores& a, const View& out);

// The slow twin, a score at a time in double: floats of any dtype, or int8; out f32 or f64, w of out's dtype.
void index_scores_plain(const IndexScores& a, const View& out);

// Rows [n, d] to int8 and a scale each (quantize.h); in f32, contiguous.
void quantize_rows(const View& in, const View& codes, const View& scales);

}  // namespace deepseek::kernels
