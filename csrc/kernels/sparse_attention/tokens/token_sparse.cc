#include "kernels/sparse_attention/tokens/token_sparse.h"

#include <vector>

#include "kernels/simd/routes.h"
#include "kernels/sparse_attention/tokens/token_list.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_attention/tokens/token_sparse.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/attention_products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kTokenRows = 64;  // heads of a query that share a gathered tile

// Products with the keys of one query, gathered a tile at a time.
template <class M>
class TokenProducts : public FloatProducts<M> {
  using E = typename M::Element;

 public:
  TokenProducts(const Attention& a, const AttentionShape& s, int64_t rows)
      : FloatProducts<M>(a, s, rows),
        key_rows_(static_cast<size_t>(kKeyTile * s.d) * sizeof(E)),
        value_rows_(static_cast<size_t>(kKeyTile * s.dv) * sizeof(E)) {}

  std::vector<int32_t> tokens = {};

  void take_keys(int64_t first, int64_t n) {
    gather(this->k_, this->a_.k.strides[2], first, n, this->s_.d, key_rows_.as<E>());
    gather(this->v_, this->a_.v.strides[2], first, n, this->s_.dv, value_rows_.as<E>());
    this->take_rows(key_rows_.as<E>(), this->s_.d, value_rows_.as<E>(), this->s_.dv, n);
  }

 private:
  void gather(const E* from, int64_t row, int64_t first, int64_t n, int64_t size, E* to) const {
    for (int64_t j = 0; j < n; ++j)
      std::copy_n(from + tokens[static_cast<size_t>(first + j)] * row, size, to + j * size);
  }

  Buffer key_rows_, value_rows_;
};

template <class M>
void TokenSparseAs(const Attention& a, const View& indices, const View& out, const View& lse) {
  const AttentionShape s(a);
  const Attention of_list = without_positions(a);
  const int64_t parts = (s.group + kTokenRows - 1) / kTokenRows, units = s.batch * s.queries * s.key_heads * parts,
                n = indices.sizes[2];
  const double flops = 2.0 * static_cast<double>(std::min(s.group, kTokenRows) * n) * static_cast<double>(s.d + s.dv);
  share_units(units, flops, [&](std::atomic<int64_t>& next) {
    AttentionShape shape(of_list);  // of the keys in the list at hand
    ForwardBlock<TokenProducts<M>> block(of_list, shape, kTokenRows);
    TokenList list(s.keys);
    for (int64_t unit; (unit = next.fetch_add(1)) < units;) {
      const int64_t first = unit % parts * kTokenRows, head = unit / parts % s.key_heads,
                    at = unit / parts / s.key_heads, query = at % s.queries;
      std::vector<int32_t>& tokens = block.products().tokens;
      list.build(s, indices.as<int64_t>() + at * n, n, s.start + query, tokens);
      shape.keys = static_cast<int64_t>(tokens.size());
      block.begin(at / s.queries, head, query * s.group + first, std::min(kTokenRows, s.group - first));
      block.run();
      block.finish(out, {lse, {}});
    }
  });
}

void TokenSparseForward(const Attention& a, const View& indices, const View& out, const View& lse, bool bf16_dot) {
  DotsBf16(bf16_dot) ? count_route(Route::kTokenSparseBf16Dot) : DS_COUNT_ROUTE(TokenSparseFloat);
  ForOperands(a.q.dtype, bf16_dot, [&]<class M>() { TokenSparseAs<M>(a, indices, out, lse); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(TokenSparseForward);

void token_sparse_forward(const Attention& a, const View& indices, const View& out, const View& lse) {
  if (a.q.numel() == 0 && out.numel() == 0) return;
  HWY_DYNAMIC_DISPATCH(TokenSparseForward)(a, indices, out, lse, uses_bf16_dot(a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
