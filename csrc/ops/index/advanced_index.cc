// x[i0, :, i1]: advanced indexing and its inverse. Index tensors broadcast together; their dims go where the first one
// stood, or to the front when they are not adjacent (NumPy's rule).
#include "core/dispatch/inplace.h"
#include "core/dispatch/lock_release.h"
#include "core/dispatch/promotion.h"
#include "core/mode.h"
#include "kernels/index/embedding.h"
#include "kernels/index/index.h"
#include "kernels/index/masked.h"
#include "kernels/loops/copy.h"
#include "ops/composite.h"
#include "ops/operands.h"

namespace deepseek {
namespace {

struct Layout {
  Dims broadcast;  // common shape of the index tensors
  Dims out_sizes;
  int at = 0;  // where the index dims stand in the result
};

Layout layout_of(const Dims& sizes, Inputs indices) {
  DS_CHECK_AS(IndexError, static_cast<int>(indices.size()) <= sizes.size(), "too many indices for tensor of dimension ",
              sizes.size(), " (got ", indices.size(), ")");
  Layout l;
  int first = -1, last = -1, count = 0;
  for (size_t i = 0; i < indices.size(); ++i) {
    if (!indices[i].defined()) continue;
    DS_CHECK_AS(IndexError, is_integral(indices[i].dtype()),
                "tensors used as indices must be long, int, byte or bool tensors");
    try {
      l.broadcast = broadcast_sizes("index", l.broadcast, indices[i].sizes());
    } catch (const Error&) {
      std::string shapes;
      for (const Tensor& t : indices)
        if (t.defined()) shapes += text_of({shapes.empty() ? "" : ", ", t.sizes()});
      fail<IndexError>("shape mismatch: indexing tensors could not be broadcast together with shapes ", shapes);
    }
    if (first < 0) first = static_cast<int>(i);
    last = static_cast<int>(i);
    ++count;
  }
  const bool adjacent = last - first + 1 == count;
  l.at = adjacent ? first : 0;
  for (int d = 0; d <= sizes.size(); ++d) {
    if (l.out_sizes.size() == l.at && (adjacent ? d == first : d == 0))
      for (int64_t s : l.broadcast) l.out_sizes.push_back(s);
    if (d < sizes.size() && !(d < static_cast<int>(indices.size()) && indices[d].defined()))
      l.out_sizes.push_back(sizes[d]);
  }
  return l;
}

kernels::IndexPlan plan_of(const Tensor& x, Inputs indices, const Layout& l, TensorList& keep) {
  kernels::IndexPlan plan;
  plan.out_sizes = l.out_sizes;
  const int nb = l.broadcast.size();
  for (int d = 0; d < x.dim(); ++d) {
    const bool indexed = d < static_cast<int>(indices.size()) && indices[d].defined();
    if (plan.strides.size() == l.at)
      for (int i = 0; i < nb; ++i) plan.strides.push_back(0);
    if (!indexed) {
      plan.strides.push_back(x.strides()[d]);
      continue;
    }
    Tensor i64 = indices[d];
    if (i64.dtype() != DType::kInt64 && i64.dtype() != DType::kInt32) {
      i64 = Tensor::empty(indices[d].sizes(), DType::kInt64);
      kernels::copy(i64.view(), indices[d].view());
    }
    keep.push_back(i64);
    kernels::check_indices("index", i64.view(), x.sizes()[d], d, true);
    const View spread = i64.view_as(l.broadcast);
    View v{spread.data, spread.dtype, l.out_sizes, Dims::filled(l.out_sizes.size(), 0)};
    for (int i = 0; i < nb; ++i) v.strides[l.at + i] = spread.strides[i];
    plan.indices.push_back(v);
    plan.index_strides.push_back(x.strides()[d]);
    plan.index_sizes.push_back(x.sizes()[d]);
  }
  if (plan.strides.size() == l.at && plan.strides.size() < l.out_sizes.size())
    for (int i = 0; i < nb; ++i) plan.strides.push_back(0);
  return plan;
}

}  // namespace

struct Index {
  static constexpr OpInfo info{.schema = "_index(Tensor input, Tensor?[] indices) -> Tensor",
                               .doc = "Advanced indexing; a missing index keeps its dim.",
                               .saves = Saves::kRest,
                               .shown = Shown::kHidden};
  bool operator==(const Index&) const = default;
  Meta infer(Inputs in) const { return {in[0].dtype(), layout_of(in[0].sizes(), in.subspan(1)).out_sizes}; }
  void eval(Inputs in, Tensor& out) const {
    TensorList keep;
    const Layout l = layout_of(in[0].sizes(), in.subspan(1));
    const kernels::IndexPlan plan = plan_of(in[0], in.subspan(1), l, keep);
    if (out.numel() > 0) kernels::index_get(out.view(), in[0].data_ptr(), plan);
  }
  Grads vjp(const Vjp& c) const {
    return {index_put(zeros(c.in[0].sizes(), c.grad[0].dtype()), c.in.subspan(1), c.grad[0], true)};
  }
};
DS_OP(Index);

struct IndexPut {
  bool accumulate = false;
  static constexpr OpInfo info{
      .schema = "_index_put(Tensor input, Tensor values, Tensor?[] indices, *, bool accumulate=False) -> Tensor",
      .doc = "input with values written (or added, in index order) at advanced indices.",
      .saves = Saves::kRest,
      .inplace = true,
      .writes_part = true,
      .shown = Shown::kHidden};
  bool operator==(const IndexPut&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[0].dtype() == in[1].dtype(), "Index put requires the source and destination dtypes match, got ",
             name_of(in[0].dtype()), " for the destination and ", name_of(in[1].dtype()), " for the source.");
    const Layout l = layout_of(in[0].sizes(), in.subspan(2));
    Dims values = in[1].sizes();
    while (values.size() > l.out_sizes.size() && values[0] == 1) values.erase(0);
    bool fits = values.size() <= l.out_sizes.size();
    for (int i = 0; fits && i < values.size(); ++i) {
      const int64_t want = l.out_sizes[l.out_sizes.size() - values.size() + i];
      fits = values[i] == want || values[i] == 1;
    }
    DS_CHECK(fits, "shape mismatch: value tensor of shape ", in[1].sizes(),
             " cannot be broadcast to indexing result of shape ", l.out_sizes);
    return {in[0].dtype(), in[0].sizes(), preserved_strides(in[0].sizes(), in[0].strides())};
  }
  void eval(Inputs in, Tensor& out) const {
    kernels::copy(out.view(), in[0].view());
    TensorList keep;
    const Layout l = layout_of(in[0].sizes(), in.subspan(2));
    const kernels::IndexPlan plan = plan_of(out, in.subspan(2), l, keep);
    Tensor values = in[1];
    while (values.dim() > l.out_sizes.size())
      values = values.alias({Dims(std::span(values.sizes().begin() + 1, values.sizes().end())),
                             Dims(std::span(values.strides().begin() + 1, values.strides().end())), 0});
    if (numel_of(l.out_sizes) > 0) kernels::index_put(out.data_ptr(), values.view_as(l.out_sizes), plan, accumulate);
  }
  Grads vjp(const Vjp& c) const {
    const Tensor& g = c.grad[0];
    const Inputs indices = c.in.subspan(2);
    Grads out(2);
    if (c.need(0)) out[0] = accumulate ? g : index_put(g, indices, zeros({}, g.dtype()), false);
    if (c.need(1)) {
      out[1] = index(g, indices);  // and dims of one that values had in front
      while (out[1].dim() < c.in[1].dim()) out[1] = unsqueeze(out[1], 0);
    }
    return out;
  }
};
DS_OP(IndexPut);

namespace {
// Masks become one index list a dim they cover.
TensorList expand_masks(const Tensor& x, Inputs indices) {
  TensorList out;
  for (const Tensor& t : indices) {
    if (!t.defined() || (t.dtype() != DType::kBool && t.dtype() != DType::kUInt8)) {
      out.push_back(t);
      continue;
    }
    const int first = static_cast<int>(out.size());
    for (int i = 0; i < t.dim(); ++i)
      DS_CHECK_AS(IndexError, first + i < x.dim() && t.sizes()[i] == x.sizes()[first + i], "The shape of the mask ",
                  t.sizes(), " at index ", i, " does not match the shape of the indexed tensor ", x.sizes(),
                  " at index ", first + i);
    const TensorList columns = unbind(nonzero(t), 1);
    for (const Tensor& column : columns) out.push_back(column);
  }
  return out;
}

bool any_defined(Inputs list) {
  return std::any_of(list.begin(), list.end(), [](const Tensor& t) { return t.defined(); });
}
}  // namespace

Tensor index(const Tensor& input, Inputs indices) {
  if (indices.size() == 1 && indices[0].defined() && indices[0].dtype() == DType::kBool && input.dim() > 0 &&
      indices[0].sizes() == input.sizes())
    return masked_select(input, indices[0]);
  TensorList all{input};
  for (const Tensor& t : expand_masks(input, indices)) all.push_back(t);
  if (!any_defined(Inputs(all).subspan(1))) return input;
  return apply_list(Index{}, all)[0];
}

namespace {
// One mask over the whole tensor and a value for each of its elements: no positions need to be listed. A recording
// lists them, as how many there are may change.
bool fills_mask(const Tensor& input, Inputs indices, const Tensor& values, bool accumulate) {
  return !accumulate && !mode().recorder && indices.size() == 1 && indices[0].defined() &&
         indices[0].dtype() == DType::kBool && indices[0].sizes() == input.sizes() && values.dtype() == input.dtype() &&
         values.dim() == 1 && values.numel() == kernels::count_nonzero(indices[0].view());
}
}  // namespace

Tensor index_put(const Tensor& input, Inputs indices, const Tensor& values, bool accumulate) {
  if (fills_mask(input, indices, values, accumulate)) return masked_scatter(input, indices[0], values);
  TensorList all{input, values};
  for (const Tensor& t : expand_masks(input, indices)) all.push_back(t);
  return apply_list(IndexPut{accumulate}, all)[0];
}

void index_put_(const Tensor& self, Inputs indices, const Tensor& values, bool accumulate) {
  if (fills_mask(self, indices, values, accumulate)) {
    masked_scatter_(self, indices[0], values);
    return;
  }
  TensorList all{self, values};
  for (const Tensor& t : expand_masks(self, indices)) all.push_back(t);
  const IndexPut op{accumulate};
  dispatch_inplace(op_def<IndexPut>(), &op, all);
}

// --- embedding

struct EmbeddingBackward {
  int64_t rows, padding_idx;
  static constexpr OpInfo info{
      .schema = "_embedding_backward(Tensor grad, Tensor input, int rows, int padding_idx) -> Tensor",
      .doc = "Gradients summed into the rows they were read from, in index order.",
      .saves = Saves::kRest,
      .shown = Shown::kHidden};
  bool operator==(const EmbeddingBackward&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[1].dtype() == DType::kInt64 || in[1].dtype() == DType::kInt32, "embedding: ids must be int64 or int32");
    DS_CHECK(in[0].dim() > 0 && Dims(std::span(in[0].sizes().begin(), in[0].dim() - 1)) == in[1].sizes(),
             "embedding: a gradient of size ", in[0].sizes(), " is not one row for each of the ids ", in[1].sizes());
    return {in[0].dtype(), {rows, in[0].sizes().back()}};
  }
  void eval(Inputs in, Tensor& out) const {
    const Tensor ids = dense(in[1], in[1].dtype());
    kernels::check_indices("embedding", {ids.data_ptr(), ids.dtype(), {ids.numel()}, {1}}, rows, 0, false);
    sum(in[0], ids, out, false);
  }
  // To `out`, or added to it, which then equals adding the tensor of its own.
  void sum(const Tensor& grad, const Tensor& input, const Tensor& out, bool add) const {
    const Tensor g = dense(grad, grad.dtype()), ids = dense(input, input.dtype());
    const int64_t n = ids.numel(), d = out.sizes()[1];
    kernels::embedding_backward(out.view(), {g.data_ptr(), g.dtype(), {n, d}, {d, 1}},
                                {ids.data_ptr(), ids.dtype(), {n}, {1}}, padding_idx, false, add);
  }
  Grads vjp(const Vjp& c) const {
    Tensor g = embedding(c.in[1], c.grad[0], -1);
    if (padding_idx >= 0) g = g * unsqueeze(ne(c.in[1], padding_idx), -1);
    return {g};
  }
};
DS_OP(EmbeddingBackward);

struct Embedding {
  int64_t padding_idx;
  static constexpr OpInfo info{
      .schema = "embedding(Tensor input, Tensor weight, int padding_idx=-1) -> Tensor",
      .doc = "Rows of weight [V, D] for integer ids of any shape; row padding_idx gets no gradient.",
      .saves = Saves::kOthers,
      .shown = Shown::kFunctional};
  bool operator==(const Embedding&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[0].dtype() == DType::kInt64 || in[0].dtype() == DType::kInt32,
             "Expected tensor for argument 'indices' to have one of the "
             "following scalar types: int64, int32; but got ",
             name_of(in[0].dtype()), " instead (while checking arguments for embedding)");
    DS_CHECK(in[1].dim() == 2, "'weight' must be 2-D, got ", in[1].dim(), "-D (embedding)");
    Dims sizes = in[0].sizes();
    sizes.push_back(in[1].sizes()[1]);
    return {in[1].dtype(), sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    const Tensor ids = dense(in[0], in[0].dtype());
    const int64_t n = ids.numel(), d = in[1].sizes()[1];
    const View flat{ids.data_ptr(), ids.dtype(), {n}, {1}};
    if (n > 0 && (ids.data_ptr() != nullptr)) check_ids(flat, in[1].sizes()[0]);
    Tensor weight = in[1];
    if (d > 1 && weight.strides()[1] != 1) {
      weight = Tensor::empty(in[1].sizes(), in[1].dtype());
      kernels::copy(weight.view(), in[1].view());
    }
    if (out.numel() > 0) kernels::embedding({out.data_ptr(), out.dtype(), {n, d}, {d, 1}}, weight.view(), flat);
  }
  static void check_ids(const View& ids, int64_t rows) {
    try {
      kernels::check_indices("embedding", ids, rows, 0, false);
    } catch (const IndexError& e) {
      fail<IndexError>("index out of range in self: ", e.what());
    }
  }
  Grads vjp(const Vjp& c) const {
    const EmbeddingBackward backward{c.in[1].sizes()[0], padding_idx};
    // A weight with another use (a tied head): its gradient is there and only the rows that were read change.
    if (const Tensor sum = c.sum_so_far(1); sum.defined()) {
      const LockRelease unlocked(sum.nbytes() > kReleaseLockBytes);
      backward.sum(c.grad[0], c.in[0], sum, true);
      return {Tensor(), sum};
    }
    return {Tensor(), apply(backward, c.grad[0], c.in[0])};
  }
};
DS_OP(Embedding);
Tensor embedding(const Tensor& input, const Tensor& weight, int64_t padding_idx) {
  return apply(Embedding{padding_idx}, input, weight);
}

}  // namespace deepseek
