#include "kernels/attention/attention_plain.h"
#include "kernels/sparse_attention/blocks/block_sparse.h"
#include "runtime/allocator.h"

namespace deepseek::kernels {
namespace {

class Masked {
 public:
  Masked(const Attention& a, const BlockSelection& sel) : args(a), memory_(bytes(a)) {
    const AttentionShape s(a);
    const Dims sizes{s.batch, s.heads, s.queries, s.keys};
    args.mask = {memory_.as<bool>(), DType::kBool, sizes, contiguous_strides(sizes)};
    selection_mask(sel, s, args.mask);
  }
  Attention args;

 private:
  static size_t bytes(const Attention& a) {
    return static_cast<size_t>(a.q.sizes[0] * a.q.sizes[1] * a.q.sizes[2] * a.k.sizes[2] + 1);
  }
  Buffer memory_;
};

}  // namespace

void block_sparse_forward_plain(const Attention& a, const BlockSelection& sel, const View& out, const View& lse) {
  attention_forward_plain(Masked(a, sel).args, out, lse);
}
void block_sparse_backward_plain(const Attention& a, const BlockSelection& sel, const View& grad_out, const View& lse,
                                 const View& delta, const View& dq, const View& dk, const View& dv) {
  attention_backward_plain(Masked(a, sel).args, grad_out, lse, delta, dq, dk, dv);
}

}  // namespace deepseek::kernels
