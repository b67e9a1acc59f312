// Which blocks of keys a query reads: what sparse attention over blocks selects by.
#include "kernels/sparse_attention/blocks/select_blocks.h"

#include "ops/attention/attention.h"

namespace deepseek {

struct SelectBlocksOp {
  int64_t block_size, most;
  double ratio, mass;
  bool is_causal;
  double scale;
  int64_t query_start;
  static constexpr OpInfo info{
      .schema =
          "_select_blocks(Tensor query, Tensor key, Tensor means, int block_size, int most, float ratio, float mass, "
          "bool is_causal, float scale, int query_start) -> Tensor",
      .doc =
          "Blocks that queries [B, H, L, E] read of keys [B, K, S, E] with the means [B, K, N, E] of blocks: int64 "
          "[B, K, L, min(most, N)], ascending, then -1. The own and the first always, others by score or by mass.",
      .autocast = Autocast::kLower,
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const SelectBlocksOp&) const = default;

  int64_t blocks(int64_t keys) const { return keys / block_size + (keys % block_size != 0); }
  Meta infer(Inputs in) const {
    constexpr auto kName = "select_blocks: ";
    const Tensor &q = in[0], &k = in[1], &means = in[2];
    check_attention_shapes(kName, q, k, k);
    check_attention_dtypes(kName, q, k, k);
    DS_CHECK(block_size > 0 && most > 0, kName, "block_size and most must be positive, got ", block_size, " and ",
             most);
    DS_CHECK(ratio >= 0 && ratio <= 1 && mass >= 0 && mass <= 1, kName, "ratio and mass must be in [0, 1], got ", ratio,
             " and ", mass);
    DS_CHECK(query_start >= 0 && query_start <= kMostPosition && query_start + q.size(2) <= k.size(2), kName,
             "queries lie among the keys, got positions ", query_start, "..", query_start + q.size(2) - 1, " of ",
             k.size(2), " keys");
    const int64_t all = blocks(k.size(2)), last = (query_start + q.size(2) - 1) / block_size;
    DS_CHECK(means.dtype() == k.dtype() && means.dim() == 4 && means.size(0) == k.size(0) &&
                 means.size(1) == k.size(1) && means.size(3) == k.size(3) && means.size(2) <= all &&
                 (q.size(2) == 0 || means.size(2) >= (is_causal ? last : all)),
             kName, "means must be ", name_of(k.dtype()), " [", k.size(0), ", ", k.size(1), ", blocks, ", k.size(3),
             "] of ", all, " blocks (with is_causal at least those before the last query's own), got ",
             name_of(means.dtype()), " ", means.sizes());
    return Meta{DType::kInt64, {q.size(0), k.size(1), q.size(2), std::min(most, all)}};
  }
  void eval(Inputs in, Tensor& out) const {
    const DType t = in[0].dtype();
    const Tensor q = dense_rows(in[0], t), k = dense_rows(in[1], t), means = dense_rows(in[2], t);
    kernels::SelectBlocks a{.q = q.view(), .k = k.view(), .means = means.view()};
    a.block_size = block_size, a.most = most, a.ratio = ratio, a.mass = mass, a.causal = is_causal, a.scale = scale;
    a.query_start = query_start;
    (t == DType::kFloat64 ? kernels::select_blocks_plain : kernels::select_blocks)(a, out.view());
  }
};
DS_OP(SelectBlocksOp);

}  // namespace deepseek
