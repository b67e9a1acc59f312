// What is chosen by values, and counted: results whose size depends on data.
#include <algorithm>
#include <cstring>

#include "core/dispatch/inplace.h"
#include "kernels/index/index.h"
#include "kernels/index/masked.h"
#include "ops/composite.h"
#include "ops/operands.h"

namespace deepseek {

struct Nonzero {
  static constexpr OpInfo info{.schema = "nonzero(Tensor input) -> Tensor",
                               .doc = "Indices of the non-zero elements, int64 [n, ndim].",
                               .differentiable = false,
                               .reads_data = true};
  bool operator==(const Nonzero&) const = default;
  Meta infer(Inputs in) const { return {DType::kInt64, {kernels::count_nonzero(in[0].view()), in[0].dim()}}; }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() > 0) kernels::nonzero(out.view(), in[0].view());
  }
};
DS_OP(Nonzero);
Tensor nonzero(const Tensor& input) { return apply(Nonzero{}, input); }

DS_BODY(Argwhere, "argwhere(Tensor input) -> Tensor",
        "Indices of the elements that are not zero: shape [n, dims], as `nonzero`.", false, kBoth, ) {
  return nonzero(in[0]);
}

DS_BODY(CountNonzero, "count_nonzero(Tensor input, int[]? dim=None) -> Tensor",
        "How many elements are non-zero, over dims.", false, kBoth, Opt<Dims> dim;) {
  return sum(ne(in[0], 0), dim, false);
}

struct MaskedSelect {
  static constexpr OpInfo info{.schema = "masked_select(Tensor input, Tensor mask) -> Tensor",
                               .doc = "Elements where mask is True, as a 1-d tensor.",
                               .saves = Saves::kRest,
                               .reads_data = true};
  bool operator==(const MaskedSelect&) const = default;
  static Dims sizes(Inputs in) { return broadcast_sizes("masked_select", in[0].sizes(), in[1].sizes()); }
  Meta infer(Inputs in) const {
    DS_CHECK(in[1].dtype() == DType::kBool, "masked_select: expected BoolTensor for mask, got ",
             name_of(in[1].dtype()));
    return {in[0].dtype(), {kernels::count_nonzero(in[1].view_as(sizes(in)))}};
  }
  void eval(Inputs in, Tensor& out) const {
    kernels::masked_select(out.view(), in[0].view_as(sizes(in)), in[1].view_as(sizes(in)));
  }
  Grads vjp(const Vjp& c) const { return {masked_scatter(zeros(sizes(c.in), c.grad[0].dtype()), c.in[1], c.grad[0])}; }
};
DS_OP(MaskedSelect);
Tensor masked_select(const Tensor& input, const Tensor& mask) { return apply(MaskedSelect{}, input, mask); }

struct MaskedScatter {
  static constexpr OpInfo info{.schema = "masked_scatter(Tensor input, Tensor mask, Tensor source) -> Tensor",
                               .doc = "input with source's first elements where mask is True.",
                               .saves = Saves::kRest,
                               .inplace = true,
                               .writes_part = true,
                               .refuses_values = true};
  bool operator==(const MaskedScatter&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[1].dtype() == DType::kBool, "masked_scatter_ only supports boolean masks, but got ",
             name_of(in[1].dtype()));
    DS_CHECK(in[0].dtype() == in[2].dtype(), "masked_scatter: expected self and source to have same dtypes but got ",
             name_of(in[0].dtype()), " and ", name_of(in[2].dtype()));
    return {in[0].dtype(), broadcast_sizes("masked_scatter", in[0].sizes(), in[1].sizes())};
  }
  void eval(Inputs in, Tensor& out) const {
    const View mask = in[1].view_as(out.sizes());
    const int64_t n = kernels::count_nonzero(mask);
    DS_CHECK(in[2].numel() >= n,
             "masked_scatter: expected self to have number of elements >= number of ones in mask; source has ",
             in[2].numel(), ", mask ", n);
    kernels::copy(out.view(), in[0].view_as(out.sizes()));
    kernels::masked_scatter(out.view(), mask, dense(in[2], in[2].dtype()).view());
  }
  Grads vjp(const Vjp& c) const {
    const Tensor &g = c.grad[0], &mask = c.in[1];
    Grads out(3);
    if (c.need(0)) out[0] = masked_fill(g, mask, scalar(0.0));
    if (c.need(2)) {  // what was not taken gets zeros
      const Tensor taken = masked_select(g, mask);
      const Tensor rest = zeros({c.in[2].numel() - taken.numel()}, g.dtype());
      out[2] = reshape(cat(TensorList{taken, rest}, 0), c.in[2].sizes());
    }
    return out;
  }
};
DS_OP(MaskedScatter);
Tensor masked_scatter(const Tensor& input, const Tensor& mask, const Tensor& source) {
  return apply(MaskedScatter{}, input, mask, source);
}
Tensor masked_scatter_(const Tensor& self, const Tensor& mask, const Tensor& source) {
  const MaskedScatter op;
  dispatch_inplace(op_def<MaskedScatter>(), &op, TensorList{self, mask, source});
  return self;
}

struct Bincount {
  int64_t minlength;
  static constexpr OpInfo info{.schema = "bincount(Tensor input, Tensor? weights=None, int minlength=0) -> Tensor",
                               .doc =
                                   "How often each value from 0 to input's largest occurs, int64 [bins], or the sum "
                                   "of its weights, float32 or float64; at least `minlength` bins.",
                               .differentiable = false,
                               .reads_data = true};
  bool operator==(const Bincount&) const = default;
  Meta infer(Inputs in) const {
    const Tensor &x = in[0], &weights = in[1];
    DS_CHECK(x.dim() == 1 && is_exact(x.dtype()), "bincount only supports 1-d non-negative integral inputs, got ",
             name_of(x.dtype()), " of shape ", x.sizes());
    DS_CHECK_AS(NotImplementedError, x.dtype() != DType::kBool, "bincount: not implemented for bool");
    DS_CHECK(minlength >= 0, "bincount: minlength should be >= 0, got ", minlength);
    DS_CHECK(!weights.defined() || weights.sizes() == x.sizes(),
             "bincount: weights should be 1-d and have the same length as input, got shapes ", weights.sizes(), " and ",
             x.sizes());
    if (x.numel() == 0) return {DType::kInt64, {minlength}};
    const auto [least, largest] = kernels::index_range(dense(x, DType::kInt64).view());
    DS_CHECK(least >= 0, "bincount only supports 1-d non-negative integral inputs, got ", least);
    DS_CHECK(largest < INT64_MAX, "bincount: the value ", largest, " is too large");
    return {weights.defined() ? result_type(weights.dtype()) : DType::kInt64, {std::max(largest + 1, minlength)}};
  }
  void eval(Inputs in, Tensor& out) const {
    std::memset(out.data_ptr(), 0, out.nbytes());
    if (in[0].numel() == 0) return;
    const Tensor x = dense(in[0], DType::kInt64);
    if (out.dtype() == DType::kInt64) return kernels::bincount(out.view(), x.view());
    const View weights = dense(in[1], out.dtype()).view();
    kernels::bincount(out.view(), x.view(), &weights);
  }

 private:
  static DType result_type(DType t) { return t == DType::kFloat32 ? t : DType::kFloat64; }
};
DS_OP(Bincount);

}  // namespace deepseek
