// Views: results that share the input's memory. `view` is the only shape rule; gradients go back by shape or by
// scatter.
#include "base/reach.h"
#include "core/dispatch/promotion.h"
#include "kernels/index/masked.h"
#include "kernels/loops/copy.h"
#include "ops/composite.h"

namespace deepseek {
namespace {

// The gradient of a view that picks elements: zeros with g written where the view reads (added where it reads twice).
Tensor picked_vjp(const Vjp& c, const ViewSpec& spec, const Dims& in_strides) {
  const Tensor &in = c.in[0], &g = c.grad[0];
  const Reach mine(in.sizes(), in_strides, 0), read(spec.sizes, spec.strides, spec.offset);
  if (read.within(mine) && !may_overlap_itself(spec.sizes, spec.strides) &&
      !may_overlap_itself(in.sizes(), in_strides)) {
    const Tensor whole = restride(zeros(in.sizes(), g.dtype()), in_strides);
    if (!c.sums) return apply(AsStridedScatter{spec.sizes, spec.strides, spec.offset}, whole, g);
    kernels::copy(whole.alias(spec).view(), g.view_as(spec.sizes));  // not recorded: no second copy
    return whole;
  }
  // as_strided may read memory beside the input: room for that too, which is then left out.
  const int64_t first = std::min<int64_t>(read.first, 0), extent = std::max<int64_t>({mine.end, read.end, 1}) - first;
  const Tensor positions =
      reshape(as_strided_rel(arange(extent), {spec.sizes, spec.strides, spec.offset - first}), {-1});
  const Tensor flat = index_add(zeros({extent}, g.dtype()), 0, positions, reshape(g, {-1}));
  return as_strided_rel(flat, {in.sizes(), in_strides, -first});
}

// For ops whose picking depends on sizes only: pretend the input is contiguous.
template <class Op>
Grads contiguous_vjp(const Op& op, const Vjp& c) {
  const Dims strides = contiguous_strides(c.in[0].sizes());
  const ViewSpec spec = op.view(Tensor::meta_only(c.in[0].meta(), strides));
  // Another part of the same tensor came before, as in a loop over its rows: only this part of its gradient grows, and
  // no zeros as large as all of it are made.
  if (c.sums && c.need(0) && !may_overlap_itself(spec.sizes, spec.strides))
    if (const Tensor sum = c.sums->take(c.next[0], true); sum.defined()) {
      const Tensor part = sum.alias(spec), grown = add(part, c.grad[0]);  // first: -0 and -0 stay -0
      c.sums->add_zeros(c.next[0]);
      copy_(part, grown);
      return {sum};
    }
  return {picked_vjp(c, spec, strides)};
}

constexpr OpInfo view_info(const char* schema, const char* doc, Shown shown = Shown::kBoth) {
  return {.schema = schema, .doc = doc, .saves = Saves::kNone, .shown = shown};
}

// Replaces one -1 by what the element count asks for.
Dims inferred_size(const char* op, Dims size, int64_t numel) {
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < size.size(); ++i) {
    if (size[i] == -1) {
      DS_CHECK(unknown < 0, "only one dimension can be inferred");
      unknown = i;
    } else {
      DS_CHECK(size[i] >= 0, "invalid shape dimension ", size[i]);
      DS_CHECK(!__builtin_mul_overflow(known, size[i], &known), "shape ", size, " has too many elements (", op, ")");
    }
  }
  if (unknown >= 0) {
    DS_CHECK(known != 0, "cannot reshape tensor of ", numel, " elements into shape ", size,
             " because the unspecified dimension size -1 can be any value and is ambiguous");
    if (numel % known == 0) size[unknown] = numel / known;
  }
  const bool unresolved = unknown >= 0 && size[unknown] < 0;
  DS_CHECK(!unresolved && numel_of(size) == numel, "shape '", size, "' is invalid for input of size ", numel, " (", op,
           ")");
  return size;
}

// Strides that show `sizes` elements as `target` without a copy; false when the memory order does not allow it.
bool view_strides(const Dims& sizes, const Dims& strides, const Dims& target, Dims& out) {
  out = contiguous_strides(target);
  for (int64_t s : sizes)
    if (s == 0) return true;
  int t = target.size() - 1;
  int64_t chunk_base = sizes.empty() ? 1 : strides.back(), in_chunk = 1, out_chunk = 1;
  for (int d = sizes.size() - 1; d >= 0; --d) {
    in_chunk *= sizes[d];
    const bool ends = d == 0 || (sizes[d - 1] != 1 && strides[d - 1] != wrapping_product(in_chunk, chunk_base));
    if (!ends) continue;
    while (t >= 0 && (out_chunk < in_chunk || target[t] == 1)) {
      out[t] = wrapping_product(out_chunk, chunk_base);
      out_chunk *= target[t--];
    }
    if (out_chunk != in_chunk) return false;
    if (d > 0) {
      chunk_base = strides[d - 1];
      in_chunk = out_chunk = 1;
    }
  }
  return t < 0 || sizes.empty();
}

}  // namespace

constexpr OpInfo AsStrided_info =
    view_info("_as_strided_rel(Tensor input, int[] size, int[] stride, int? offset=None) -> Tensor",
              "Strided view; the offset counts from the input's own start.", Shown::kHidden);
const OpInfo AsStrided::info = AsStrided_info;

ViewSpec AsStrided::view(const Tensor& in) const {
  DS_CHECK(sizes.size() == strides.size(), "mismatch in length of strides and shape: ", sizes, " and ", strides);
  for (const int64_t s : sizes) DS_CHECK(s >= 0, "as_strided: negative size ", sizes);
  const Reach reach(sizes, strides, offset.value_or(0));
  if (in.has_data()) {
    const int64_t available = static_cast<int64_t>(in.storage()->bytes()) / size_of(in.dtype());
    const bool inside = reach.empty() || (reach.first >= -in.offset() && reach.end <= available - in.offset());
    DS_CHECK(inside, "setStorage: sizes ", sizes, ", strides ", strides, ", ", offset.value_or(0),
             " elements after storage offset ", in.offset(), ", are out of bounds for storage of ", available,
             " elements");
  }
  return {sizes, strides, offset.value_or(0)};
}
Grads AsStrided::vjp(const Vjp& c) const {
  return {picked_vjp(c, {sizes, strides, offset.value_or(0)}, c.in[0].strides())};
}
DS_OP(AsStrided);
Tensor as_strided_rel(const Tensor& input, const ViewSpec& s) {
  return apply(AsStrided{s.sizes, s.strides, s.offset}, input);
}

constexpr OpInfo AsStridedScatter_info{
    .schema = "_as_strided_scatter(Tensor input, Tensor src, int[] size, int[] stride, int offset) -> Tensor",
    .doc = "input (kept in its own memory order) with the strided part replaced by src.",
    .saves = Saves::kNone,
    .shown = Shown::kHidden};
const OpInfo AsStridedScatter::info = AsStridedScatter_info;

Meta AsStridedScatter::infer(Inputs in) const {
  DS_CHECK(sizes.size() == strides.size(), "mismatch in length of strides and shape: ", sizes, " and ", strides);
  numel_of(sizes);
  DS_CHECK(broadcast_sizes("as_strided", in[1].sizes(), sizes) == sizes, "as_strided: a value of size ", in[1].sizes(),
           " does not fill a part of size ", sizes);
  DS_CHECK(Reach(sizes, strides, offset).within(Reach(in[0].sizes(), in[0].strides(), 0)),
           "as_strided: a write beside the memory of its base has no gradient (sizes ", sizes, ", strides ", strides,
           ", offset ", offset, " from a base of ", in[0].sizes(), ")");
  return {in[0].dtype(), in[0].sizes(), in[0].strides()};
}
void AsStridedScatter::eval(Inputs in, Tensor& out) const {
  kernels::copy(out.view(), in[0].view());
  kernels::copy(out.alias({sizes, strides, offset}).view(), in[1].view_as(sizes));
}
Grads AsStridedScatter::vjp(const Vjp& c) const {
  const Tensor g = restride(c.grad[0], c.in[0].strides());
  Grads out(2);
  if (c.need(0)) out[0] = apply(*this, g, zeros(sizes, g.dtype()));
  if (c.need(1)) out[1] = as_strided_rel(g, {sizes, strides, offset});
  return out;
}
DS_OP(AsStridedScatter);

struct ViewOp {
  Dims size;
  static constexpr OpInfo info = view_info("view(Tensor input, int[]* size) -> Tensor",
                                           "The same memory with another shape; -1 is inferred.", Shown::kMethod);
  bool operator==(const ViewOp&) const = default;
  ViewSpec view(const Tensor& in) const {
    const Dims target = inferred_size("view", size, in.numel());
    Dims strides;
    DS_CHECK(view_strides(in.sizes(), in.strides(), target, strides), "view size ", target,
             " is not compatible with input tensor's size ", in.sizes(), " and stride ", in.strides(),
             " (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead.");
    return {target, strides, 0};
  }
  Grads vjp(const Vjp& c) const { return {reshape(c.grad[0], c.in[0].sizes())}; }
};
DS_OP(ViewOp);
Tensor view(const Tensor& input, const Dims& size) { return apply(ViewOp{size}, input); }

// The same bytes as numbers of another type. Where an element's size changes, so does the last dim's.
struct ViewDType {
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "_view_dtype(Tensor input, dtype? dtype) -> Tensor",
                               .doc = "The same memory read as another dtype; no gradient flows through it.",
                               .saves = Saves::kNone,
                               .differentiable = false,
                               .shown = Shown::kHidden};
  bool operator==(const ViewDType&) const = default;
  ViewSpec view(const Tensor& in) const {
    DS_CHECK_AS(TypeError, dtype, "view(): wants a dtype or a shape, got None");
    const auto from = static_cast<int64_t>(size_of(in.dtype())), to = static_cast<int64_t>(size_of(*dtype));
    ViewSpec v{in.sizes(), in.strides(), 0, *dtype};
    if (from == to) return v;
    const auto check = [&](bool fits, auto&&... what) {
      DS_CHECK(fits, what..., " to view ", name_of(in.dtype()), " as ", name_of(*dtype), " (different element sizes)");
    };
    check(in.dim() > 0, "view(): self.dim() cannot be 0");
    check(in.numel() == 0 || in.sizes().back() == 1 || in.strides().back() == 1,
          "view(): self.stride(-1) must be 1, but got ", in.strides().back(), ",");
    v.strides.back() = 1;
    if (from > to) {
      v.sizes.back() *= from / to;
      for (int i = 0; i + 1 < in.dim(); ++i) v.strides[i] *= from / to;
      return v;
    }
    const int64_t parts = to / from;
    check(in.sizes().back() % parts == 0, "view(): self.size(-1) must be divisible by ", parts, ", but got ",
          in.sizes().back(), ",");
    check(in.offset() % parts == 0, "view(): self.storage_offset() must be divisible by ", parts, ", but got ",
          in.offset(), ",");
    v.sizes.back() /= parts;
    for (int i = 0; i + 1 < in.dim(); ++i) {
      check(in.strides()[i] % parts == 0, "view(): self.stride(", i, ") must be divisible by ", parts, ", but got ",
            in.strides()[i], ",");
      v.strides[i] /= parts;
    }
    return v;
  }
};
DS_OP(ViewDType);
DS_BODY(ViewAsDType, "view.dtype(Tensor input, dtype? dtype) -> Tensor",
        "The same memory read as another dtype; no gradient flows through it.", false, kMethod, Opt<DType> dtype;) {
  if (dtype && *dtype == DType::kBool && in[0].dtype() != DType::kBool && in[0].has_data()) {
    const Tensor bytes = apply(ViewDType{Opt<DType>(DType::kUInt8)}, in[0]);
    if (bytes.numel() > 0) kernels::check_bools("view", bytes.view());
  }
  return apply(ViewDType{dtype}, in[0]);
}

struct Reshape {
  Dims shape;
  static constexpr OpInfo info{
      .schema = "reshape(Tensor input, int[]* shape) -> Tensor",
      .doc = "A view with another shape, or a copy where the memory order does not allow one."};
  bool operator==(const Reshape&) const = default;
  Tensor body(Inputs in) const {
    const Dims target = inferred_size("reshape", shape, in[0].numel());
    if (target == in[0].sizes()) return apply(ViewOp{target}, in[0]);
    Dims strides;
    if (view_strides(in[0].sizes(), in[0].strides(), target, strides)) return view(in[0], target);
    Tensor copied = view(contiguous(in[0]), target);
    if (GradMeta* m = copied.cell()->grad_meta.get()) m->base = {};  // nobody else sees the copy: it is no view
    return copied;
  }
};
DS_OP(Reshape);
Tensor reshape(const Tensor& input, const Dims& size) { return Reshape{size}.body({&input, 1}); }

struct Transpose {
  int64_t dim0, dim1;
  static constexpr OpInfo info =
      view_info("transpose(Tensor input, int dim0, int dim1) -> Tensor", "Two dims swapped.");
  bool operator==(const Transpose&) const = default;
  ViewSpec view(const Tensor& in) const {
    const int a = wrap_dim("transpose", dim0, in.dim()), b = wrap_dim("transpose", dim1, in.dim());
    ViewSpec s{in.sizes(), in.strides(), 0};
    if (in.dim() > 0) {
      std::swap(s.sizes[a], s.sizes[b]);
      std::swap(s.strides[a], s.strides[b]);
    }
    return s;
  }
  Grads vjp(const Vjp& c) const { return {transpose(c.grad[0], dim0, dim1)}; }
};
DS_OP(Transpose);
Tensor transpose(const Tensor& input, int64_t dim0, int64_t dim1) { return apply(Transpose{dim0, dim1}, input); }

struct Permute {
  Dims dims;
  static constexpr OpInfo info = view_info("permute(Tensor input, int[]* dims) -> Tensor", "Dims in a new order.");
  bool operator==(const Permute&) const = default;
  Dims order(int ndim) const {
    DS_CHECK(dims.size() == ndim,
             "permute(): number of dimensions in the tensor input does not match the length of the "
             "desired ordering of dimensions i.e. input.dim() = ",
             ndim, " is not equal to len(dims) = ", dims.size());
    Dims out;
    unsigned seen = 0;
    for (int64_t d : dims) {
      out.push_back(wrap_dim("permute", d, ndim));
      DS_CHECK(!(seen >> out.back() & 1), "permute(): duplicate dims are not allowed.");
      seen |= 1u << out.back();
    }
    return out;
  }
  ViewSpec view(const Tensor& in) const {
    ViewSpec s;
    for (int64_t d : order(in.dim())) {
      s.sizes.push_back(in.sizes()[d]);
      s.strides.push_back(in.strides()[d]);
    }
    return s;
  }
  Grads vjp(const Vjp& c) const {
    const Dims forward = order(c.in[0].dim());
    Dims inverse = forward;
    for (int i = 0; i < forward.size(); ++i) inverse[forward[i]] = i;
    return {permute(c.grad[0], inverse)};
  }
};
DS_OP(Permute);
Tensor permute(const Tensor& input, const Dims& dims) { return apply(Permute{dims}, input); }

struct Expand {
  Dims size;
  static constexpr OpInfo info = view_info("expand(Tensor input, int[]* size) -> Tensor",
                                           "Size-1 dims repeated without copying; -1 keeps a dim.", Shown::kMethod);
  bool operator==(const Expand&) const = default;
  ViewSpec view(const Tensor& in) const {
    const int lead = size.size() - in.dim();
    DS_CHECK(lead >= 0, "expand: the number of sizes provided (", size.size(),
             ") must be greater or equal to the number of dimensions in the tensor (", in.dim(), ")");
    ViewSpec s{size, Dims::filled(size.size(), 0), 0};
    for (int i = 0; i < size.size(); ++i) {
      if (i < lead) {
        DS_CHECK(size[i] >= 0, "The expanded size of the tensor (", size[i],
                 ") isn't allowed in a leading, non-existing dimension ", i);
        continue;
      }
      const int64_t have = in.sizes()[i - lead];
      if (size[i] == -1) s.sizes[i] = have;
      DS_CHECK(s.sizes[i] >= 0, "The expanded size of the tensor (", size[i], ") must not be negative (-1 keeps a dim)",
               ".  Target sizes: ", size, ".  Tensor sizes: ", in.sizes());
      DS_CHECK(s.sizes[i] == have || have == 1, "The expanded size of the tensor (", size[i],
               ") must match the existing size (", have, ") at non-singleton dimension ", i, ".  Target sizes: ", size,
               ".  Tensor sizes: ", in.sizes());
      if (s.sizes[i] == have) s.strides[i] = in.strides()[i - lead];
    }
    // A new dim of size 1 is as unsqueeze would make it, but for 0-d tensors.
    for (int i = lead - 1; i >= 0 && in.dim() > 0; --i)
      if (s.sizes[i] == 1) s.strides[i] = i + 1 < size.size() ? wrapping_product(s.sizes[i + 1], s.strides[i + 1]) : 1;
    return s;
  }
  Grads vjp(const Vjp& c) const { return {c.grad[0]}; }  // the engine sums broadcast dims
};
DS_OP(Expand);
Tensor expand(const Tensor& input, const Dims& size) { return apply(Expand{size}, input); }

struct Unsqueeze {
  int64_t dim;
  static constexpr OpInfo info =
      view_info("unsqueeze(Tensor input, int dim) -> Tensor", "A dim of size 1 inserted at `dim`.");
  bool operator==(const Unsqueeze&) const = default;
  ViewSpec view(const Tensor& in) const {
    const int d = wrap_dim("unsqueeze", dim, in.dim() + 1);
    ViewSpec s{in.sizes(), in.strides(), 0};
    s.strides.insert(d, d < in.dim() ? wrapping_product(in.sizes()[d], in.strides()[d]) : 1);
    s.sizes.insert(d, 1);
    return s;
  }
  Grads vjp(const Vjp& c) const { return {reshape(c.grad[0], c.in[0].sizes())}; }
};
DS_OP(Unsqueeze);
Tensor unsqueeze(const Tensor& input, int64_t dim) { return apply(Unsqueeze{dim}, input); }

struct Squeeze {
  Opt<Dims> dim;
  static constexpr OpInfo info =
      view_info("squeeze(Tensor input, int[]? dim=None) -> Tensor", "Dims of size 1 removed (all, or those listed).");
  bool operator==(const Squeeze&) const = default;
  ViewSpec view(const Tensor& in) const {
    unsigned chosen = dim ? 0 : ~0u;
    if (dim)
      for (int64_t d : *dim) chosen |= 1u << wrap_dim("squeeze", d, in.dim());
    ViewSpec s;
    for (int i = 0; i < in.dim(); ++i) {
      if (in.sizes()[i] == 1 && (chosen >> i & 1)) continue;
      s.sizes.push_back(in.sizes()[i]);
      s.strides.push_back(in.strides()[i]);
    }
    return s;
  }
  Grads vjp(const Vjp& c) const { return {reshape(c.grad[0], c.in[0].sizes())}; }
};
DS_OP(Squeeze);
Tensor squeeze(const Tensor& input, int64_t dim) { return apply(Squeeze{Dims{dim}}, input); }

struct Select {
  int64_t dim, index;
  static constexpr OpInfo info =
      view_info("select(Tensor input, int dim, int index) -> Tensor", "One index of a dim, which disappears.");
  bool operator==(const Select&) const = default;
  ViewSpec view(const Tensor& in) const {
    DS_CHECK_AS(IndexError, in.dim() > 0, "select() cannot be applied to a 0-dim tensor.");
    const int d = wrap_dim("select", dim, in.dim());
    const int64_t n = in.sizes()[d];
    DS_CHECK_AS(IndexError, index >= -n && index < n, "index ", index, " is out of bounds for dimension ", d,
                " with size ", n);
    ViewSpec s{in.sizes(), in.strides(), wrapping_product(index < 0 ? index + n : index, in.strides()[d])};
    s.sizes.erase(d);
    s.strides.erase(d);
    return s;
  }
  Grads vjp(const Vjp& c) const { return contiguous_vjp(*this, c); }
};
DS_OP(Select);
Tensor select(const Tensor& input, int64_t dim, int64_t index) { return apply(Select{dim, index}, input); }

struct Slice {
  int64_t dim;
  Opt<int64_t> start, end;
  int64_t step;
  static constexpr OpInfo info =
      view_info("_slice(Tensor input, int dim=0, int? start=None, int? end=None, int step=1) -> Tensor",
                "start:end:step of one dim, as Python slices.", Shown::kHidden);
  bool operator==(const Slice&) const = default;
  ViewSpec view(const Tensor& in) const {
    DS_CHECK_AS(IndexError, in.dim() > 0, "slice() cannot be applied to a 0-dim tensor.");
    DS_CHECK_AS(ValueError, step > 0, "step must be greater than zero");
    const int d = wrap_dim("slice", dim, in.dim());
    const int64_t n = in.sizes()[d];
    const auto bound = [n](int64_t v) { return std::clamp<int64_t>(v < 0 ? v + n : v, 0, n); };
    const int64_t from = bound(start.value_or(0)), to = std::max(from, bound(end.value_or(n)));
    ViewSpec s{in.sizes(), in.strides(), wrapping_product(from, in.strides()[d])};
    s.sizes[d] = (to - from) / step + ((to - from) % step != 0);
    s.strides[d] = wrapping_product(s.strides[d], step);
    return s;
  }
  Grads vjp(const Vjp& c) const { return contiguous_vjp(*this, c); }
};
DS_OP(Slice);
Tensor slice(const Tensor& input, int64_t dim, Opt<int64_t> start, Opt<int64_t> end, int64_t step) {
  return apply(Slice{dim, start, end, step}, input);
}

struct Diagonal {
  int64_t offset, dim1, dim2;
  static constexpr OpInfo info = view_info("diagonal(Tensor input, int offset=0, int dim1=0, int dim2=1) -> Tensor",
                                           "The diagonal of two dims, as a new last dim.");
  bool operator==(const Diagonal&) const = default;
  ViewSpec view(const Tensor& in) const {
    const int a = wrap_dim("diagonal", dim1, in.dim()), b = wrap_dim("diagonal", dim2, in.dim());
    DS_CHECK(a != b, "diagonal dimensions cannot be identical ", dim1, ", ", dim2);
    // How many rows or columns the offset leaves; -2**63 has no negative.
    const int64_t down = offset < 0 ? std::min(-std::max(offset, -in.sizes()[a]), in.sizes()[a]) : 0,
                  right = offset > 0 ? std::min(offset, in.sizes()[b]) : 0;
    const int64_t n = std::min(in.sizes()[a] - down, in.sizes()[b] - right);
    ViewSpec s{in.sizes(), in.strides(),
               n == 0 ? 0 : wrapping_product(down, in.strides()[a]) + wrapping_product(right, in.strides()[b])};
    const int64_t stride =
        static_cast<int64_t>(static_cast<uint64_t>(in.strides()[a]) + static_cast<uint64_t>(in.strides()[b]));
    for (int d : {std::max(a, b), std::min(a, b)}) {
      s.sizes.erase(d);
      s.strides.erase(d);
    }
    s.sizes.push_back(n);
    s.strides.push_back(stride);
    return s;
  }
  Grads vjp(const Vjp& c) const { return contiguous_vjp(*this, c); }
};
DS_OP(Diagonal);
Tensor diagonal(const Tensor& input, int64_t offset, int64_t dim1, int64_t dim2) {
  return apply(Diagonal{offset, dim1, dim2}, input);
}

struct Unfold {
  int64_t dimension, size, step;
  static constexpr OpInfo info = view_info("unfold(Tensor input, int dimension, int size, int step) -> Tensor",
                                           "Sliding windows of a dim, as a new last dim.", Shown::kMethod);
  bool operator==(const Unfold&) const = default;
  ViewSpec view(const Tensor& in) const {
    const int d = wrap_dim("unfold", dimension, in.dim());
    const int64_t n = in.dim() == 0 ? 1 : in.sizes()[d];
    DS_CHECK(size >= 0 && size <= n, "maximum size for tensor at dimension ", d, " is ", n, " but size is ", size);
    DS_CHECK(step > 0, "step is ", step, " but must be > 0");
    ViewSpec s{in.sizes(), in.strides(), 0};
    if (in.dim() == 0) return {{size}, {1}, 0};
    s.sizes[d] = (n - size) / step + 1;
    s.strides[d] = wrapping_product(s.strides[d], step);
    s.sizes.push_back(size);
    s.strides.push_back(in.strides()[d]);
    return s;
  }
  Grads vjp(const Vjp& c) const { return contiguous_vjp(*this, c); }
};
DS_OP(Unfold);

}  // namespace deepseek
