// Mixture-of-experts feed-forward (Shazeer et al. 2017; DeepSeekMoE, Dai et al. 2024), as a composite in plain ops:
// token-expert pairs are sorted by expert, each expert is one small dense feed-forward over its tokens, results are
// added back in order.
#include "ops/composite.h"

namespace deepseek {

DS_BODY(MoeOp,
        "moe(Tensor input, Tensor gate_weight, Tensor up_weight, Tensor down_weight, Tensor topk_indices, Tensor "
        "topk_weights) -> Tensor",
        "sum over k of topk_weights[t, k] * expert[topk_indices[t, k]](input[t]), expert(x) = (silu(x Wg^T) * x Wu^T) "
        "Wd^T. "
        "input [T, D]; gate and up [E, F, D]; down [E, D, F]; indices and weights [T, K].",
        false, kFunctional, ) {
  const Tensor &x = in[0], &gate = in[1], &up = in[2], &down = in[3], &ids = in[4], &weights = in[5];
  DS_CHECK(x.dim() == 2, "moe: input must be [tokens, features], got ", x.sizes());
  DS_CHECK(gate.dim() == 3 && gate.sizes() == up.sizes() && down.dim() == 3 && down.sizes()[0] == gate.sizes()[0] &&
               down.sizes()[1] == gate.sizes()[2] && down.sizes()[2] == gate.sizes()[1] &&
               gate.sizes()[2] == x.sizes()[1],
           "moe: gate and up must be [E, F, D] and down [E, D, F] for input [T, D]; got ", gate.sizes(), ", ",
           up.sizes(), ", ", down.sizes(), " and ", x.sizes());
  DS_CHECK(ids.dim() == 2 && ids.sizes() == weights.sizes() && ids.sizes()[0] == x.sizes()[0] &&
               ids.dtype() == DType::kInt64,
           "moe: topk_indices (int64) and topk_weights must be [T, K] for input [T, D]; got ", ids.sizes(), " and ",
           weights.sizes());
  const int64_t experts = gate.sizes()[0], pairs = ids.numel(), k = ids.sizes()[1];
  const Tensor flat = contiguous(reshape(ids, {-1}));

  // Stable counting sort of the pairs by expert.
  std::vector<int64_t> start(experts + 1, 0);
  const auto* expert_of = flat.data<int64_t>();
  for (int64_t i = 0; i < pairs; ++i) {
    DS_CHECK_AS(IndexError, expert_of[i] >= 0 && expert_of[i] < experts, "moe: expert index ", expert_of[i],
                " is out of range for ", experts, " experts");
    ++start[expert_of[i] + 1];
  }
  for (int64_t e = 0; e < experts; ++e) start[e + 1] += start[e];
  Tensor order = Tensor::empty({pairs}, DType::kInt64), token = Tensor::empty({pairs}, DType::kInt64);
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t at = next[expert_of[i]]++;
    order.data<int64_t>()[at] = i;
    token.data<int64_t>()[at] = i / k;
  }

  const Tensor grouped = index_select(x, 0, token);
  const TensorList gates = unbind(gate, 0), ups = unbind(up, 0), downs = unbind(down, 0);
  TensorList parts;
  for (int64_t e = 0; e < experts; ++e) {
    if (start[e] == start[e + 1]) continue;
    const Tensor rows = slice(grouped, 0, start[e], start[e + 1]);
    parts.push_back(linear(swiglu(linear(rows, gates[e]), linear(rows, ups[e])), downs[e]));
  }
  if (parts.empty()) return zeros_like(x);
  const Tensor weighted = cat(parts, 0) * unsqueeze(index_select(reshape(weights, {-1}), 0, order), 1);
  return index_add(zeros(x.sizes(), weighted.dtype()), 0, token, weighted);
}

}  // namespace deepseek
