// Several views of one tensor: their gradients are joined once, not summed as full-size zeros.
#include "ops/ops.h"

namespace deepseek {

struct Unbind {
  int64_t dim;
  static constexpr OpInfo info{.schema = "unbind(Tensor input, int dim=0) -> Tensor[]",
                               .doc = "Every index of a dim, as separate tensors.",
                               .saves = Saves::kNone};
  bool operator==(const Unbind&) const = default;
  ViewSpecs views(const Tensor& in) const {
    DS_CHECK_AS(IndexError, in.dim() > 0, "Dimension specified as ", dim, " but tensor has no dimensions");
    ViewSpecs out;
    const int d = wrap_dim("unbind", dim, in.dim());
    ViewSpec s{in.sizes(), in.strides(), 0};
    s.sizes.erase(d), s.strides.erase(d);
    for (int64_t i = 0; i < in.sizes()[d]; ++i) {
      s.offset = i * in.strides()[d];
      out.push_back(s);
    }
    return out;
  }
  Grads vjp(const Vjp& c) const {
    TensorList parts;
    for (size_t i = 0; i < c.out.size(); ++i) parts.push_back(c.grad[i].defined() ? c.grad[i] : zeros_like(c.out[i]));
    return {stack(parts, dim)};
  }
};
DS_OP(Unbind);
TensorList unbind(const Tensor& input, int64_t dim) { return apply_list(Unbind{dim}, {&input, 1}); }

namespace {

ViewSpecs split_views(const Tensor& in, int d, std::span<const int64_t> sizes) {
  ViewSpecs out;
  int64_t at = 0;
  for (int64_t n : sizes) {
    ViewSpec s{in.sizes(), in.strides(), at * in.strides()[d]};
    s.sizes[d] = n;
    out.push_back(s);
    at += n;
  }
  return out;
}

Grads split_vjp(const Vjp& c, int64_t dim) {
  TensorList parts;
  for (size_t i = 0; i < c.out.size(); ++i) parts.push_back(c.grad[i].defined() ? c.grad[i] : zeros_like(c.out[i]));
  return {cat(parts, dim)};
}

}  // namespace

struct Split {
  int64_t split_size;
  int64_t dim;
  static constexpr OpInfo info{.schema = "split(Tensor input, int split_size, int dim=0) -> Tensor[]",
                               .doc = "Pieces of `split_size` along a dim; the last may be smaller.",
                               .saves = Saves::kNone};
  bool operator==(const Split&) const = default;
  ViewSpecs views(const Tensor& in) const {
    DS_CHECK(in.dim() > 0, "split expects at least a 1-dimensional tensor");
    const int d = wrap_dim("split", dim, in.dim());
    const int64_t n = in.sizes()[d];
    DS_CHECK(split_size > 0 || (split_size == 0 && n == 0),
             "split_size can only be 0 if dimension size is 0, but got dimension size of ", n, " and split_size ",
             split_size);
    SmallVector<int64_t, 16> sizes;
    int64_t rest = n;
    do {
      sizes.push_back(std::min(split_size, rest));
      rest -= sizes.back();
    } while (rest > 0);
    return split_views(in, d, {sizes.data(), sizes.size()});
  }
  Grads vjp(const Vjp& c) const { return split_vjp(c, dim); }
};
DS_OP(Split);
TensorList split(const Tensor& input, int64_t split_size, int64_t dim) {
  return apply_list(Split{split_size, dim}, {&input, 1});
}

struct SplitList {
  Dims split_size;
  int64_t dim;
  static constexpr OpInfo info{.schema = "split.sizes(Tensor input, int[] split_size, int dim=0) -> Tensor[]",
                               .doc = "Pieces of the listed sizes along a dim.",
                               .saves = Saves::kNone};
  bool operator==(const SplitList&) const = default;
  ViewSpecs views(const Tensor& in) const {
    DS_CHECK(in.dim() > 0, "split expects at least a 1-dimensional tensor");
    const int d = wrap_dim("split", dim, in.dim());
    int64_t total = 0;
    for (int64_t s : split_size) {
      DS_CHECK(s >= 0,
               "split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes=", split_size);
      total += s;
    }
    DS_CHECK(total == in.sizes()[d], "split_with_sizes expects split_sizes to sum exactly to ", in.sizes()[d],
             " (input tensor's size at dimension ", d, "), but got split_sizes=", split_size);
    return split_views(in, d, split_size);
  }
  Grads vjp(const Vjp& c) const { return split_vjp(c, dim); }
};
DS_OP(SplitList);
TensorList split(const Tensor& input, const Dims& sizes, int64_t dim) {
  return apply_list(SplitList{sizes, dim}, {&input, 1});
}

}  // namespace deepseek
