// Order and selection along one dim: sort, topk, kthvalue, median, searchsorted. NaN is the largest value.
#include "kernels/index/sort.h"

#include "core/dispatch/promotion.h"
#include "kernels/loops/copy.h"
#include "ops/composite.h"
#include "ops/reduce/reduce.h"

namespace deepseek {
namespace {

// The values keep the gradient; the indices that the vjp needs are an output.
constexpr OpInfo select_info(const char* schema, const char* doc) {
  return {.schema = schema, .doc = doc, .saves = Saves::kOutput};
}

std::array<Meta, 2> values_and_indices(DType t, const Dims& sizes) {
  return {Meta{t, sizes}, Meta{DType::kInt64, sizes}};
}

int64_t length_along(const Tensor& t, int dim) { return t.dim() == 0 ? 1 : t.sizes()[dim]; }

// A 0-d tensor is its own only choice, whatever is asked.
bool select_scalar(const Tensor& in, std::span<Tensor> out) {
  if (in.dim() > 0) return false;
  kernels::copy(out[0].view(), in.view());
  *out[1].data<int64_t>() = 0;
  return true;
}

}  // namespace

struct Sort {
  int64_t dim = -1;
  bool descending = false;
  bool stable = false;  // always is
  static constexpr OpInfo info = select_info(
      "sort(Tensor input, int dim=-1, bool descending=False, *, bool stable=False) -> (Tensor values, Tensor indices)",
      "Elements in order along a dim, and where they were. Always stable.");
  bool operator==(const Sort&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    wrap_dim("sort", dim, in[0].dim());
    return values_and_indices(in[0].dtype(), in[0].sizes());
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    if (select_scalar(in[0], out)) return;
    kernels::sort(out[0].view(), out[1].view(), in[0].view(), wrap_dim("sort", dim, in[0].dim()), descending);
  }
  Grads vjp(const Vjp& c) const { return {value_selecting_vjp(c, dim, true)}; }
};
DS_OP(Sort);

DS_BODY(Argsort, "argsort(Tensor input, int dim=-1, bool descending=False, *, bool stable=False) -> Tensor",
        "The indices that sort along a dim. Always stable.", false, kBoth, int64_t dim;
        bool descending; bool stable;) {
  return apply_n<2>(Sort{dim, descending, stable}, in[0])[1];
}

DS_BODY(Msort, "msort(Tensor input) -> Tensor", "Sorted along the first dim.", false, kBoth, ) {
  return apply(Sort{0, false, true}, in[0]);
}

struct TopK {
  int64_t k;
  int64_t dim = -1;
  bool largest = true;
  bool sorted = true;  // always is
  static constexpr OpInfo info = select_info(
      "topk(Tensor input, int k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor indices)",
      "The k largest (or smallest) elements along a dim, best first; the first of equal ones.");
  bool operator==(const TopK&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    const int d = wrap_dim("topk", dim, in[0].dim());
    DS_CHECK(k >= 0 && k <= length_along(in[0], d), "selected index k out of range");
    Dims sizes = in[0].sizes();
    if (!sizes.empty()) sizes[d] = k;
    return values_and_indices(in[0].dtype(), sizes);
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    if (select_scalar(in[0], out)) return;
    kernels::topk(out[0].view(), out[1].view(), in[0].view(), k, wrap_dim("topk", dim, in[0].dim()), largest);
  }
  Grads vjp(const Vjp& c) const { return {value_selecting_vjp(c, dim, true)}; }
};
DS_OP(TopK);

namespace {
std::array<Meta, 2> one_of_a_dim(const char* op, const Tensor& x, int64_t dim, bool keepdim) {
  const int d = wrap_dim(op, dim, x.dim());
  DS_CHECK_AS(IndexError, length_along(x, d) > 0, op, "(): Expected reduction dim ", d, " to have non-zero size.");
  return values_and_indices(x.dtype(), reduced_sizes(x.sizes(), 1u << d, keepdim));
}
}  // namespace

struct KthValue {
  int64_t k;
  int64_t dim = -1;
  bool keepdim = false;
  static constexpr OpInfo info =
      select_info("kthvalue(Tensor input, int k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)",
                  "The k-th smallest element along a dim, counted from 1.");
  bool operator==(const KthValue&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    const std::array<Meta, 2> metas = one_of_a_dim("kthvalue", in[0], dim, keepdim);
    const int d = wrap_dim("kthvalue", dim, in[0].dim());
    DS_CHECK(k >= 1 && k <= length_along(in[0], d), "kthvalue(): selected number k out of range for dimension ", d);
    return metas;
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    if (select_scalar(in[0], out)) return;
    const int d = wrap_dim("kthvalue", dim, in[0].dim());
    const Dims& sizes = in[0].sizes();
    kernels::kthvalue(keepdim_view(out[0], sizes, 1u << d), keepdim_view(out[1], sizes, 1u << d), in[0].view(), k, d);
  }
  Grads vjp(const Vjp& c) const { return {value_selecting_vjp(c, dim, keepdim)}; }
};
DS_OP(KthValue);

struct MedianDim {
  int64_t dim;
  bool keepdim = false;
  static constexpr OpInfo info =
      select_info("median.dim(Tensor input, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
                  "The lower median along a dim and its position; NaN wins.");
  bool operator==(const MedianDim&) const = default;
  std::array<Meta, 2> infer(Inputs in) const { return one_of_a_dim("median", in[0], dim, keepdim); }
  void eval(Inputs in, std::span<Tensor> out) const {
    if (select_scalar(in[0], out)) return;
    const int d = wrap_dim("median", dim, in[0].dim());
    const Dims& sizes = in[0].sizes();
    kernels::median(keepdim_view(out[0], sizes, 1u << d), keepdim_view(out[1], sizes, 1u << d), in[0].view(), d);
  }
  Grads vjp(const Vjp& c) const { return {value_selecting_vjp(c, dim, keepdim)}; }
};
DS_OP(MedianDim);

struct Median {
  static constexpr OpInfo info{.schema = "median(Tensor input) -> Tensor",
                               .doc = "The lower median of all elements; NaN wins. Equal elements share the gradient.",
                               .saves = Saves::kInputsOutput};
  bool operator==(const Median&) const = default;
  Meta infer(Inputs in) const { return {in[0].dtype(), {}}; }
  void eval(Inputs in, Tensor& out) const {
    const int64_t n = in[0].numel();
    if (n == 0) {
      const double none = std::numeric_limits<double>::quiet_NaN();
      return kernels::fill(out.view(), &none, DType::kFloat64);
    }
    const Tensor flat = in[0].is_contiguous() ? in[0] : Tensor::empty(in[0].sizes(), in[0].dtype());
    if (!flat.is(in[0])) kernels::copy(flat.view(), in[0].view());
    const Tensor index = Tensor::empty({1}, DType::kInt64);
    kernels::median({out.data_ptr(), out.dtype(), {1}, {1}}, index.view(), {flat.data_ptr(), flat.dtype(), {n}, {1}},
                    0);
  }
  Grads vjp(const Vjp& c) const {
    const Tensor &x = c.in[0], &y = c.out[0], &g = c.grad[0];
    const Tensor hit = to_dtype(logical_or(eq(x, y), logical_and(isnan(x), isnan(y))), g.dtype());
    return {g * (hit / sum(hit))};
  }
};
DS_OP(Median);

// --- places in sorted sequences

struct SearchSortedKernel {
  bool right = false;
  bool out_int32 = false;
  static constexpr OpInfo info{
      .schema = "_searchsorted(Tensor sorted_sequence, Tensor input, bool right=False, bool out_int32=False) -> Tensor",
      .doc = "searchsorted for one dtype and valid shapes.",
      .saves = Saves::kNone,
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const SearchSortedKernel&) const = default;
  Meta infer(Inputs in) const {
    const Tensor &line = in[0], &x = in[1];
    DS_CHECK(line.dtype() == x.dtype(), "_searchsorted: one dtype expected, got ", name_of(line.dtype()), " and ",
             name_of(x.dtype()));
    DS_CHECK(line.dim() > 0, "searchsorted(): boundaries tensor should have positive dimension, but got 0 dimension");
    DS_CHECK(x.dim() > 0 || line.dim() == 1,
             "searchsorted(): input value can be a scalar only when boundaries tensor dimension is 1, "
             "but we got boundaries tensor dim(",
             line.dim(), ") and input value's dim(0) numel(1)");
    bool matches = line.dim() == 1 || line.dim() == x.dim();
    for (int d = 0; line.dim() > 1 && matches && d + 1 < line.dim(); ++d) matches = line.sizes()[d] == x.sizes()[d];
    DS_CHECK(matches,
             "searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
             "tensor and "
             "input value tensor must match, but we got boundaries tensor ",
             line.sizes(), " and input value tensor ", x.sizes());
    return {out_int32 ? DType::kInt32 : DType::kInt64, x.sizes()};
  }
  void eval(Inputs in, Tensor& out) const {
    DS_CHECK(!out_int32 || in[0].size(-1) <= std::numeric_limits<int32_t>::max(),
             "searchsorted(): the size of boundaries' last dimension "
             "should be less than 2^31 when out_int32 is True, but got ",
             in[0].size(-1));
    const Tensor places = out_int32 ? Tensor::empty(out.sizes(), DType::kInt64) : out;
    kernels::searchsorted(places.view(), in[0].view(), in[1].view(), right);
    if (out_int32) kernels::copy(out.view(), places.view());
  }
};
DS_OP(SearchSortedKernel);

namespace {
Tensor search(const Tensor& sorted, const Tensor& values, bool right, bool out_int32) {
  const Tensor both[] = {sorted, values};
  const DType t = result_type(both);
  return apply(SearchSortedKernel{right, out_int32}, detach(to_dtype(sorted, t)), detach(to_dtype(values, t)));
}
}  // namespace

DS_BODY(SearchSorted,
        "searchsorted(Tensor sorted_sequence, Tensor|Number input, *, bool out_int32=False, bool right=False, str? "
        "side=None, "
        "Tensor? sorter=None) -> Tensor",
        "Where each value would be inserted to keep the innermost dim sorted: before equal elements, or after them "
        "(right, side='right').",
        false, kFunction, bool out_int32;
        bool right; Opt<Str> side;) {
  DS_CHECK(!side || *side == "left" || *side == "right", "searchsorted(): side can only be 'left' or 'right' but got ",
           (*side).view());
  DS_CHECK(!right || !side || *side == "right",
           "searchsorted(): side and right can't be set to opposites, got side of left while right was True");
  Tensor sorted = in[0];
  if (const Tensor& sorter = in[2]; sorter.defined()) {
    DS_CHECK(sorter.dtype() == DType::kInt64, "searchsorted(): sorter must be a tensor of long dtype but got dtype ",
             name_of(sorter.dtype()));
    DS_CHECK(sorter.sizes() == sorted.sizes(),
             "searchsorted(): boundary and sorter must have the same size, but got boundary tensor ", sorted.sizes(),
             " and got sorter tensor ", sorter.sizes());
    sorted = gather(sorted, -1, sorter);
  }
  return search(sorted, in[1], right || (side && *side == "right"), out_int32);
}

DS_BODY(Bucketize,
        "bucketize(Tensor|Number input, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor",
        "The index of the bucket each value falls in: searchsorted in 1-d boundaries.", false, kFunction,
        bool out_int32;
        bool right;) {
  DS_CHECK(in[1].dim() == 1, "boundaries tensor must be 1 dimension, but got dim(", in[1].dim(), ")");
  return search(in[1], in[0], right, out_int32);
}

}  // namespace deepseek
