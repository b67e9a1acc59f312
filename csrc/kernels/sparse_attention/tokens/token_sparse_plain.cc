#include <algorithm>

#include "kernels/attention/attention_plain.h"
#include "kernels/sparse_attention/tokens/token_sparse.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {

int64_t wrong_token(const View& indices, int64_t keys) {
  const int64_t* at = indices.as<int64_t>();
  for (int64_t i = 0; i < indices.numel(); ++i)
    if (const int64_t token = at[i]; token < -1 || token >= keys) return token;
  return -1;
}

void token_mask(const View& indices, int64_t keys, const View& mask) {
  const int64_t n = indices.sizes[2];
  parallel_for(indices.sizes[0] * indices.sizes[1], grain_for(keys + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      bool* row = mask.as<bool>() + i * keys;
      std::fill_n(row, keys, false);
      for (const int64_t* at = indices.as<int64_t>() + i * n; at < indices.as<int64_t>() + (i + 1) * n; ++at)
        if (const int64_t token = *at; token >= 0 && token < keys) row[token] = true;
    }
  });
}

namespace {

class Masked {
 public:
  Masked(const Attention& a, const View& indices)
      : args(a), memory_(static_cast<size_t>(a.q.sizes[0] * a.q.sizes[2] * a.k.sizes[2] + 1)) {
    const int64_t batch = a.q.sizes[0], queries = a.q.sizes[2], keys = a.k.sizes[2];
    token_mask(indices, keys, {memory_.as<bool>(), DType::kBool, {batch, queries, keys}, {queries * keys, keys, 1}});
    args.mask = {memory_.as<bool>(), DType::kBool, {batch, a.q.sizes[1], queries, keys}, {queries * keys, 0, keys, 1}};
  }
  Attention args;

 private:
  Buffer memory_;
};

}  // namespace

void token_sparse_forward_plain(const Attention& a, const View& indices, const View& out, const View& lse) {
  attention_forward_plain(Masked(a, indices).args, out, lse);
}
void token_sparse_backward_plain(const Attention& a, const View& indices, const View& grad_out, const View& lse,
                                 const View& delta, const View& dq, const View& dk, const View& dv) {
  attention_backward_plain(Masked(a, indices).args, grad_out, lse, delta, dq, dk, dv);
}

}  // namespace deepseek::kernels
