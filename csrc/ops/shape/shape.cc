// Joining and rearranging, and the composites built from views.
#include "core/dispatch/promotion.h"
#include "kernels/loops/copy.h"
#include "ops/composite.h"
#include "ops/operands.h"

namespace deepseek {

struct Cat {
  int64_t dim;
  static constexpr OpInfo info{.schema = "cat(Tensor[] tensors, int dim=0) -> Tensor",
                               .doc = "Tensors joined along a dim.",
                               .saves = Saves::kNone,
                               .shown = Shown::kFunction};
  bool operator==(const Cat&) const = default;
  // 1-d empty tensors are skipped, as in PyTorch.
  static bool skipped(const Tensor& t) { return t.dim() == 1 && t.sizes()[0] == 0; }
  static const Tensor& model(Inputs in) {
    DS_CHECK_AS(ValueError, !in.empty(), "cat(): expected a non-empty list of Tensors");
    for (const Tensor& t : in)
      if (!skipped(t)) return t;
    return in[0];
  }
  Meta infer(Inputs in) const {
    const Tensor& first = model(in);
    DS_CHECK(first.dim() > 0, "zero-dimensional tensor (at position 0) cannot be concatenated");
    const int d = wrap_dim("cat", dim, first.dim());
    Dims sizes = first.sizes();
    sizes[d] = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      const Tensor& t = in[i];
      if (skipped(t) && first.dim() != 1) continue;
      DS_CHECK(t.dim() == first.dim(), "Tensors must have same number of dimensions: got ", first.dim(), " and ",
               t.dim());
      for (int k = 0; k < first.dim(); ++k)
        DS_CHECK(k == d || t.sizes()[k] == first.sizes()[k], "Sizes of tensors must match except in dimension ", d,
                 ". Expected size ", first.sizes()[k], " but got size ", t.sizes()[k], " for tensor number ", i,
                 " in the list.");
      sizes[d] += t.sizes()[d];
    }
    return {result_type(in), sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    const int d = wrap_dim("cat", dim, out.dim());
    int64_t at = 0;
    for (const Tensor& t : in) {
      if (t.numel() == 0) continue;
      ViewSpec part{out.sizes(), out.strides(), at * out.strides()[d]};
      part.sizes[d] = t.sizes()[d];
      kernels::copy(out.alias(part).view(), t.view());
      at += t.sizes()[d];
    }
  }
  Grads vjp(const Vjp& c) const {
    Grads out(c.in.size());
    const int d = wrap_dim("cat", dim, c.out[0].dim());
    int64_t at = 0;
    for (size_t i = 0; i < c.in.size(); ++i) {
      const Tensor& t = c.in[i];
      if (skipped(t) && c.out[0].dim() != 1) {
        if (c.need(i)) out[i] = zeros_like(t);
        continue;
      }
      if (c.need(i)) out[i] = narrow(c.grad[0], d, at, t.sizes()[d]);
      at += t.sizes()[d];
    }
    return out;
  }
};
DS_OP(Cat);
Tensor cat(Inputs tensors, int64_t dim) { return apply_list(Cat{dim}, tensors)[0]; }

struct Flip {
  Dims dims;
  static constexpr OpInfo info{.schema = "flip(Tensor input, int[]* dims) -> Tensor",
                               .doc = "The listed dims reversed (a copy).",
                               .saves = Saves::kNone};
  bool operator==(const Flip&) const = default;
  Meta infer(Inputs in) const {
    unsigned seen = 0;
    for (int64_t d : dims) {
      const int w = wrap_dim("flip", d, in[0].dim());
      DS_CHECK(!(seen >> w & 1), "dim ", w, " appears multiple times in the list of dims");
      seen |= 1u << w;
    }
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const {
    View v = in[0].view();
    if (v.numel() == 0) return;
    for (int64_t d : dims) {
      if (in[0].dim() == 0) break;
      const int w = wrap_dim("flip", d, in[0].dim());
      v.data = v.at((v.sizes[w] - 1) * v.strides[w]);
      v.strides[w] = -v.strides[w];
    }
    kernels::copy(out.view(), v);
  }
  Grads vjp(const Vjp& c) const { return {flip(c.grad[0], dims)}; }
};
DS_OP(Flip);
Tensor flip(const Tensor& input, const Dims& dims) { return apply(Flip{dims}, input); }

DS_BODY(Stack, "stack(Tensor[] tensors, int dim=0) -> Tensor", "Tensors of one shape joined along a new dim.", false,
        kFunction, int64_t dim;) {
  DS_CHECK(!in.empty(), "stack expects a non-empty TensorList");
  TensorList parts;
  for (size_t i = 0; i < in.size(); ++i) {
    DS_CHECK(in[i].sizes() == in[0].sizes(), "stack expects each tensor to be equal size, but got ", in[0].sizes(),
             " at entry 0 and ", in[i].sizes(), " at entry ", i);
    parts.push_back(unsqueeze(in[i], dim));
  }
  return cat(parts, wrap_dim("stack", dim, in[0].dim() + 1));
}
Tensor stack(Inputs tensors, int64_t dim) { return Stack{dim}.body(tensors); }

DS_BODY_LIST(Chunk, "chunk(Tensor input, int chunks, int dim=0) -> Tensor[]",
             "At most `chunks` equal pieces along a dim.", false, kBoth, int64_t chunks;
             int64_t dim;) {
  DS_CHECK(in[0].dim() > 0, "chunk expects at least a 1-dimensional tensor");
  DS_CHECK(chunks > 0, "chunk expects `chunks` to be greater than 0, got: ", chunks);
  const int64_t n = in[0].size(dim);
  const int64_t each = (n + chunks - 1) / chunks;
  if (n == 0) {
    TensorList out;
    for (int64_t i = 0; i < chunks; ++i) out.push_back(slice(in[0], dim, 0, 0));
    return out;
  }
  return split(in[0], each, dim);
}

DS_BODY(Narrow, "narrow(Tensor input, int dim, int start, int length) -> Tensor",
        "`length` elements of a dim from `start`.", false, kBoth, int64_t dim;
        int64_t start; int64_t length;) {
  DS_CHECK(in[0].dim() > 0, "narrow() cannot be applied to a 0-dim tensor.");
  const int64_t n = in[0].size(dim);
  DS_CHECK(length >= 0, "narrow(): length must be non-negative.");
  DS_CHECK_AS(IndexError, start >= -n && start <= n, "start out of range (expected to be in range of [", -n, ", ", n,
              "], but got ", start, ")");
  const int64_t from = start < 0 ? start + n : start;
  DS_CHECK(from + length <= n, "start (", from, ") + length (", length, ") exceeds dimension size (", n, ").");
  return slice(in[0], dim, from, from + length);
}
Tensor narrow(const Tensor& input, int64_t dim, int64_t start, int64_t length) {
  return Narrow{dim, start, length}.body({&input, 1});
}

DS_BODY(Flatten, "flatten(Tensor input, int start_dim=0, int end_dim=-1) -> Tensor",
        "Dims start_dim…end_dim merged into one.", false, kBoth, int64_t start_dim;
        int64_t end_dim;) {
  const Tensor& x = in[0];
  const int a = wrap_dim("flatten", start_dim, x.dim()), b = wrap_dim("flatten", end_dim, x.dim());
  DS_CHECK(a <= b, "flatten() has invalid args: start_dim cannot come after end_dim");
  if (x.dim() == 0) return reshape(x, {1});
  Dims sizes;
  const int64_t merged = numel_of(Dims(std::span(x.sizes().begin() + a, static_cast<size_t>(b - a + 1))));
  for (int i = 0; i < x.dim(); ++i) {
    if (i < a || i > b) sizes.push_back(x.sizes()[i]);
    if (i == b) sizes.push_back(merged);
  }
  return reshape(x, sizes);
}
Tensor flatten(const Tensor& input, int64_t start_dim, int64_t end_dim) {
  return Flatten{start_dim, end_dim}.body({&input, 1});
}

DS_BODY(Unflatten, "unflatten(Tensor input, int dim, int[] sizes) -> Tensor",
        "One dim split into several; -1 is inferred.", false, kBoth, int64_t dim;
        Dims sizes;) {
  const Tensor& x = in[0];
  const int d = wrap_dim("unflatten", dim, x.dim());
  DS_CHECK(!sizes.empty(), "unflatten: sizes must be non-empty");
  Dims parts = sizes;
  for (int64_t& s : parts)
    if (s == -1) s = 1;
  const int64_t known = numel_of(parts);
  for (int i = 0; i < parts.size(); ++i)
    if (sizes[i] == -1 && known > 0) parts[i] = x.sizes()[d] / known;
  DS_CHECK(numel_of(parts) == x.sizes()[d], "unflatten: Provided sizes ", sizes,
           " don't multiply up to the size of dim ", d, " (", x.sizes()[d], ") in the input tensor");
  Dims out = x.sizes();
  out.erase(d);
  for (int i = parts.size() - 1; i >= 0; --i) out.insert(d, parts[i]);
  return reshape(x, out);
}

DS_BODY(BroadcastTo, "broadcast_to(Tensor input, int[] size) -> Tensor", "expand, as a function.", false, kBoth,
        Dims size;) {
  return expand(in[0], size);
}
DS_BODY(ExpandAs, "expand_as(Tensor input, Tensor other) -> Tensor", "input expanded to other's size.", false,
        kMethod, ) {
  return expand(in[0], in[1].sizes());
}
DS_BODY(ViewAs, "view_as(Tensor input, Tensor other) -> Tensor", "input viewed with other's size.", false, kMethod, ) {
  return view(in[0], in[1].sizes());
}
DS_BODY(ReshapeAs, "reshape_as(Tensor input, Tensor other) -> Tensor", "input reshaped to other's size.", false,
        kMethod, ) {
  return reshape(in[0], in[1].sizes());
}
DS_BODY(T, "t(Tensor input) -> Tensor", "Transpose of a matrix; 0-d and 1-d tensors as they are.", false, kBoth, ) {
  DS_CHECK(in[0].dim() <= 2, "t() expects a tensor with <= 2 dimensions, but self is ", in[0].dim(), "D");
  return in[0].dim() < 2 ? in[0] : transpose(in[0], 0, 1);
}

DS_BODY(Movedim, "movedim(Tensor input, int[] source, int[] destination) -> Tensor",
        "Dims moved to new places, the others in order.", false, kBoth, Dims source;
        Dims destination;) {
  const int n = in[0].dim();
  DS_CHECK(source.size() == destination.size(), "movedim: Invalid source or destination dims: source (", source,
           " dims) should contain the same number of dims as destination (", destination, " dims)");
  Dims order = Dims::filled(n, -1);
  unsigned used = 0;
  for (int i = 0; i < source.size(); ++i) {
    const int s = wrap_dim("movedim", source[i], n), d = wrap_dim("movedim", destination[i], n);
    DS_CHECK(!(used >> s & 1) && order[d] < 0, "movedim: repeated dim in `source` (", source, ") or `destination` (",
             destination, ")");
    order[d] = s;
    used |= 1u << s;
  }
  int next = 0;
  for (int64_t& o : order) {
    if (o >= 0) continue;
    while (used >> next & 1) ++next;
    o = next++;
  }
  return permute(in[0], order);
}
Tensor movedim(const Tensor& input, const Dims& source, const Dims& destination) {
  return Movedim{source, destination}.body({&input, 1});
}

struct Roll {
  Dims shifts;
  Opt<Dims> dims;
  static constexpr OpInfo info{.schema = "roll(Tensor input, int[] shifts, int[]? dims=None) -> Tensor",
                               .doc = "Elements shifted cyclically along dims (flattened without dims).",
                               .saves = Saves::kNone};
  bool operator==(const Roll&) const = default;
  bool flat() const { return !dims || (*dims).empty(); }
  Meta infer(Inputs in) const {
    DS_CHECK(!shifts.empty(), "`shifts` required");
    const int count = flat() ? 0 : (*dims).size();
    DS_CHECK(shifts.size() == (flat() ? 1 : count), "shifts and dimensions must align. shifts: ", shifts.size(),
             ", dims: ", count);
    for (int i = 0; i < count; ++i) {
      DS_CHECK_AS(IndexError, in[0].dim() > 0, "Dimension specified as ", (*dims)[i], " but tensor has no dimensions");
      wrap_dim("roll", (*dims)[i], in[0].dim());
    }
    return {in[0].dtype(), in[0].sizes()};
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    if (!flat()) return copy_parts(out.view(), in[0].view(), total_shifts(in[0]));
    const Tensor x = dense(in[0], in[0].dtype());
    const auto line = [&](const Tensor& t) { return View{t.data_ptr(), t.dtype(), {t.numel()}, {1}}; };
    copy_parts(line(out), line(x), Dims{wrapped(shifts[0], x.numel())});
  }
  Grads vjp(const Vjp& c) const {
    Dims back = shifts;
    for (int i = 0; i < back.size(); ++i) {
      const int64_t n = flat() ? c.in[0].numel() : c.in[0].size((*dims)[i]);
      back[i] = n == 0 ? 0 : -wrapped(shifts[i], n);
    }
    return {apply(Roll{back, dims}, c.grad[0])};
  }

 private:
  static int64_t wrapped(int64_t shift, int64_t n) { return (shift % n + n) % n; }
  Dims total_shifts(const Tensor& x) const {
    Dims total = Dims::filled(x.dim(), 0);
    for (int i = 0; i < shifts.size(); ++i) {
      const int d = wrap_dim("roll", (*dims)[i], x.dim());
      total[d] = (total[d] + wrapped(shifts[i], x.sizes()[d])) % x.sizes()[d];
    }
    return total;
  }
  // Each dim that is shifted cuts the tensor in two, which change places.
  static void copy_parts(const View& out, const View& in, const Dims& shift, int from = 0) {
    int d = from;
    while (d < out.ndim() && shift[d] == 0) ++d;
    if (d == out.ndim()) return kernels::copy(out, in);
    const int64_t n = out.sizes[d], s = shift[d];
    const auto part = [d](View v, int64_t begin, int64_t count) {
      v.data = v.at(begin * v.strides[d]);
      v.sizes[d] = count;
      return v;
    };
    copy_parts(part(out, 0, s), part(in, n - s, s), shift, d + 1);
    copy_parts(part(out, s, n - s), part(in, 0, n - s), shift, d + 1);
  }
};
DS_OP(Roll);

DS_BODY(Repeat, "repeat(Tensor input, int[]* repeats) -> Tensor", "input tiled `repeats` times along each dim.", false,
        kMethod, Dims repeats;) {
  const Tensor& x = in[0];
  const int lead = repeats.size() - x.dim();
  DS_CHECK(lead >= 0, "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor");
  for (int64_t r : repeats) DS_CHECK(r >= 0, "Trying to create tensor with negative dimension: repeats ", repeats);
  Dims sizes = Dims::filled(lead, 1);
  for (int64_t s : x.sizes()) sizes.push_back(s);
  Tensor y = reshape(x, sizes);
  for (int d = 0; d < repeats.size(); ++d) {
    if (repeats[d] == 1) continue;
    int64_t before = 1, rest = 1;
    for (int i = 0; i < d; ++i) before *= sizes[i];
    for (int i = d; i < sizes.size(); ++i) rest *= sizes[i];
    DS_CHECK(!__builtin_mul_overflow(sizes[d], repeats[d], &sizes[d]), "repeat(): ", x.sizes(), " repeated ", repeats,
             " times overflows int64");
    y = reshape(contiguous(expand(reshape(y, {before, 1, rest}), {before, repeats[d], rest})), sizes);
  }
  return y.storage() == x.storage() ? clone(y) : y;
}

DS_BODY(Tile, "tile(Tensor input, int[]* dims) -> Tensor", "repeat, with missing leading repeats taken as 1.", false,
        kBoth, Dims dims;) {
  Dims full = dims;
  while (full.size() < in[0].dim()) full.insert(0, 1);
  return Repeat{full}.body(in);
}

namespace {
void check_output_size(const Opt<int64_t>& asked, int64_t size) {
  DS_CHECK(!asked || *asked == size, "repeat_interleave: Invalid output_size, expected ", size, " but got ", *asked);
}
}  // namespace
DS_BODY(RepeatInterleave,
        "repeat_interleave(Tensor input, int repeats, int? dim=None, *, int? output_size=None) -> Tensor",
        "Every element repeated in place (a copy).", false, kBoth, int64_t repeats;
        Opt<int64_t> dim; Opt<int64_t> output_size;) {
  DS_CHECK(repeats >= 0, "Repeats must be non-negative");
  const Tensor x = dim ? in[0] : flatten(in[0], 0, -1);
  const int d = dim ? wrap_dim("repeat_interleave", *dim, x.dim()) : 0;
  if (x.dim() == 0) return RepeatInterleave{repeats, Opt<int64_t>(0), output_size}.body(TensorList{reshape(x, {1})});
  Dims spread = x.sizes(), out = x.sizes();
  spread.insert(d + 1, repeats);
  out[d] *= repeats;
  check_output_size(output_size, out[d]);
  const Tensor y = reshape(expand(unsqueeze(x, d + 1), spread), out);
  return y.storage() == in[0].storage() ? clone(y) : y;
}

DS_BODY(RepeatInterleaveTensor,
        "repeat_interleave.Tensor(Tensor input, Tensor repeats, int? dim=None, *, int? output_size=None) -> Tensor",
        "Element i repeated repeats[i] times.", false, kBoth, Opt<int64_t> dim;
        Opt<int64_t> output_size;) {
  const Tensor x = dim ? in[0] : flatten(in[0], 0, -1);
  const int d = dim ? wrap_dim("repeat_interleave", *dim, x.dim()) : 0;
  DS_CHECK(in[1].dim() <= 1 && is_integral(in[1].dtype()), "repeats must be 0-dim or 1-dim integer tensor");
  const Tensor counts = contiguous(
      to_dtype(expand(reshape(in[1], {-1}), {in[1].numel() == 1 ? x.size(d) : in[1].numel()}), DType::kInt64));
  DS_CHECK(counts.numel() == x.size(d),
           "repeats must have the same size as input along dim, but got repeats.size(0) = ", counts.numel(),
           " and input.size(", d, ") = ", x.size(d));
  int64_t total = 0;
  for (int64_t i = 0; i < counts.numel(); ++i) {
    DS_CHECK(counts.data<int64_t>()[i] >= 0, "repeats can not be negative");
    total += counts.data<int64_t>()[i];
  }
  check_output_size(output_size, total);
  Tensor index = Tensor::empty({total}, DType::kInt64);
  int64_t at = 0;
  for (int64_t i = 0; i < counts.numel(); ++i)
    for (int64_t r = 0; r < counts.data<int64_t>()[i]; ++r) index.data<int64_t>()[at++] = i;
  return index_select(x, d, index);
}

namespace {
Meta band_meta(const char* op, Inputs in) {
  DS_CHECK(in[0].dim() >= 2, op, ": input tensor must have at least 2 dimensions");
  return {in[0].dtype(), in[0].sizes()};
}
}  // namespace

struct Tril {
  int64_t diagonal;
  static constexpr OpInfo info{.schema = "tril(Tensor input, int diagonal=0) -> Tensor",
                               .doc = "The lower triangle; zeros above `diagonal`.",
                               .saves = Saves::kNone,
                               .inplace = true,
                               .writes_part = true};
  bool operator==(const Tril&) const = default;
  Meta infer(Inputs in) const { return band_meta("tril", in); }
  void eval(Inputs in, Tensor& out) const {
    const int64_t most = diagonal == INT64_MAX ? diagonal : diagonal + 1;
    kernels::copy_band(out.view(), in[0].view(), INT64_MIN, most);
  }
  Grads vjp(const Vjp& c) const { return {apply(*this, c.grad[0])}; }
};
DS_OP(Tril);

struct Triu {
  int64_t diagonal;
  static constexpr OpInfo info{.schema = "triu(Tensor input, int diagonal=0) -> Tensor",
                               .doc = "The upper triangle; zeros below `diagonal`.",
                               .saves = Saves::kNone,
                               .inplace = true,
                               .writes_part = true};
  bool operator==(const Triu&) const = default;
  Meta infer(Inputs in) const { return band_meta("triu", in); }
  void eval(Inputs in, Tensor& out) const { kernels::copy_band(out.view(), in[0].view(), diagonal, INT64_MAX); }
  Grads vjp(const Vjp& c) const { return {apply(*this, c.grad[0])}; }
};
DS_OP(Triu);

DS_BODY(AsStridedPublic, "as_strided(Tensor input, int[] size, int[] stride, int? storage_offset=None) -> Tensor",
        "View with given sizes, strides and storage offset, all in elements.", false, kBoth, Dims size;
        Dims stride; Opt<int64_t> storage_offset;) {
  return as_strided_rel(in[0], {size, stride, storage_offset ? *storage_offset - in[0].offset() : 0});
}

DS_BODY(ToDtypeOp, "type_as(Tensor input, Tensor other) -> Tensor", "input converted to other's dtype.", false,
        kMethod, ) {
  return to_dtype(in[0], in[1].dtype());
}

}  // namespace deepseek
