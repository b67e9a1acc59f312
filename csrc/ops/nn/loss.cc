// Losses. cross_entropy is fused over the class dim; its second derivative goes through the composite of its backward.
#include "kernels/loops/copy.h"
#include "kernels/nn/cross_entropy.h"
#include "kernels/nn/linear_cross_entropy.h"
#include "ops/composite.h"
#include "ops/operands.h"

namespace deepseek {
namespace {

Tensor reduce_loss(const Tensor& loss, const Str& reduction) {
  if (reduction == "mean") return mean(loss);
  if (reduction == "sum") return sum(loss);
  DS_CHECK_AS(ValueError, reduction == "none", reduction.view(), " is not a valid value for reduction");
  return loss;
}

// Of class indices for logits (or logarithms) of the given sizes, [C] or [N, C, ...]. Says what to do with what is
// nearly right.
void check_class_targets(const char* op, const Dims& logits, const Tensor& target, bool or_probabilities = false) {
  DS_CHECK_AS(ValueError, logits.size() > 0, op, ": expected input of 1 or more dimensions, [C] or [N, C, ...], got 0");
  const Dims& got = target.sizes();
  Dims want = logits;
  const int64_t classes = want[want.size() == 1 ? 0 : 1];
  want.erase(want.size() == 1 ? 0 : 1);
  DS_CHECK(is_floating(target.dtype()) || got != logits || got == want || want.empty(), op, ": target ", got,
           " of integers has the input's shape; class indices have shape ", want,
           ". If it is one-hot, pass target.argmax(", logits.size() == 1 ? 0 : 1, ")",
           or_probabilities ? " or target.to(input.dtype)" : "");
  DS_CHECK_AS(ValueError, !want.empty() || target.dim() > 1 || target.numel() == 1, op,
              ": for 1-D input a 1-D target must have size 1, but got target size: ", target.numel());
  DS_CHECK_AS(ValueError, want.empty() || (target.dim() > 0 && got[0] == want[0]), op, ": Expected input batch_size (",
              logits[0], ") to match target batch_size (", got.empty() ? 0 : got[0], "). Class indices have shape ",
              want, ", got ", got);
  const bool column = target.dim() == want.size() + 1 && target.size(target.dim() > 1 ? 1 : 0) == 1;
  DS_CHECK(!column || (want.empty() && target.dim() <= 1), op, ": target of shape ", got,
           " has a dim too many (multi-target not supported): class indices have shape ", want,
           "; pass target.squeeze(", target.dim() > 1 ? 1 : 0, ")");
  DS_CHECK(got == want || (want.empty() && target.dim() == 1), op, ": size mismatch (got input: ", logits,
           ", target: ", got, "). Expected target size ", want, " of class indices",
           or_probabilities && is_floating(target.dtype()) ? " or probabilities of the input's shape" : "");
  const DType t = target.dtype();
  DS_CHECK(t == DType::kInt64 || t == DType::kInt32 || t == DType::kUInt8, op,
           ": expected target dtype to be Long or Byte, but got ", name_of(t), ". Indices of ", classes,
           " classes are integers: pass target.long()",
           or_probabilities && is_floating(t) ? ", or probabilities of the input's shape" : "");
}

void check_class_weight(const Tensor& weight, int64_t classes) {
  DS_CHECK(!weight.defined() || (weight.dim() == 1 && weight.sizes()[0] == classes),
           "weight tensor should be defined either for all ", classes,
           " classes or no classes but got weight tensor of shape: ", weight.defined() ? weight.sizes() : Dims());
}

}  // namespace

// What the rows of one call share. weight is [C] or missing.
struct CrossEntropyRows {
  int64_t ignore_index;
  double label_smoothing;

  kernels::CrossEntropyArgs args(const Tensor& weight) const {
    return {.weight = weight.defined() ? weight.data_ptr() : nullptr,
            .ignore_index = ignore_index,
            .label_smoothing = label_smoothing};
  }
  // The weighted target distribution [N, C]: loss = -sum(T * log_softmax).
  Tensor targets(const Tensor& logits, const Tensor& target, const Tensor& weight) const {
    const int64_t classes = logits.sizes()[1];
    const DType t = computing_type(logits.dtype());
    const Tensor w = weight.defined() ? to_dtype(weight, t) : ones({classes}, t);
    const Tensor onehot = to_dtype(eq(unsqueeze(target, 1), arange(classes)), t);
    const Tensor smooth = onehot * (1 - label_smoothing) + label_smoothing / static_cast<double>(classes);
    return smooth * w * to_dtype(unsqueeze(ne(target, ignore_index), 1), t);
  }
};

struct CrossEntropyBackward {
  int64_t ignore_index;
  double label_smoothing;
  static constexpr OpInfo info{.schema =
                                   "_cross_entropy_backward(Tensor grad, Tensor input, Tensor target, Tensor? weight, "
                                   "Tensor lse, int ignore_index, float label_smoothing) -> Tensor",
                               .doc = "Gradient of the rows' cross-entropy with respect to the logits.",
                               .shown = Shown::kHidden};
  bool operator==(const CrossEntropyBackward&) const = default;
  CrossEntropyRows rows() const { return {ignore_index, label_smoothing}; }
  Meta infer(Inputs in) const {
    DS_CHECK(in[1].dim() == 2 && is_floating(in[1].dtype()), "cross_entropy: logits must be floats [N, C], got ",
             in[1].dtype(), " ", in[1].sizes());
    const Dims rows{in[1].sizes()[0]}, classes{in[1].sizes()[1]};
    DS_CHECK(in[0].sizes() == rows && in[2].sizes() == rows && in[4].sizes() == rows &&
                 (!in[3].defined() || in[3].sizes() == classes),
             "cross_entropy: the gradient of logits ", in[1].sizes(),
             " goes with one gradient, target and sum a row, got ", in[0].sizes(), ", ", in[2].sizes(), " and ",
             in[4].sizes());
    return in[1].meta();
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    const DType t = computing_type(in[1].dtype());
    const Tensor x = dense(in[1], in[1].dtype()), target = dense(in[2], DType::kInt64), lse = dense(in[4], t),
                 g = dense(in[0], t);
    kernels::check_targets(target.view(), in[1].sizes()[1], ignore_index);
    const Tensor w = in[3].defined() ? dense(in[3], t) : Tensor();
    kernels::cross_entropy_backward(out.view(), x.view(), target.view(), rows().args(w), lse.data_ptr(), g.data_ptr(),
                                    1);
  }
  TensorList composite(Inputs in) const {
    const Tensor x = to_dtype(in[1], computing_type(in[1].dtype()));
    const Tensor t = rows().targets(in[1], in[2], in[3]);
    const Tensor slope = softmax(x, 1) * sum(t, Dims{1}, true) - t;
    return {to_dtype(unsqueeze(in[0], 1) * slope, in[1].dtype())};
  }
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(CrossEntropyBackward);

struct CrossEntropy {
  int64_t ignore_index;
  double label_smoothing;
  static constexpr OpInfo info{
      .schema =
          "_cross_entropy(Tensor input, Tensor target, Tensor? weight, int ignore_index, float label_smoothing) -> "
          "(Tensor loss, Tensor lse)",
      .doc = "Cross-entropy of each row of logits [N, C] with class indices [N]; 0 for ignored rows.",
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const CrossEntropy&) const = default;
  CrossEntropyRows rows() const { return {ignore_index, label_smoothing}; }
  std::array<Meta, 2> infer(Inputs in) const {
    DS_CHECK(in[0].dim() == 2 && in[1].dim() == 1 && in[0].sizes()[0] == in[1].sizes()[0],
             "size mismatch (got input: ", in[0].sizes(), ", target: ", in[1].sizes(), ")");
    DS_CHECK_AS(NotImplementedError, is_floating(in[0].dtype()) && !is_float8(in[0].dtype()),
                "\"cross_entropy\" not implemented for '", name_of(in[0].dtype()), "'");
    DS_CHECK(in[1].dtype() == DType::kInt64 || in[1].dtype() == DType::kInt32, "expected scalar type Long but found ",
             name_of(in[1].dtype()), " (class indices)");
    check_class_weight(in[2], in[0].sizes()[1]);
    const Meta m{computing_type(in[0].dtype()), in[1].sizes()};
    return {m, m};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const Tensor target = dense(in[1], DType::kInt64), x = dense(in[0], in[0].dtype());
    kernels::check_targets(target.view(), in[0].sizes()[1], ignore_index);
    const Tensor w = in[2].defined() ? dense(in[2], out[0].dtype()) : Tensor();
    kernels::cross_entropy_forward(x.view(), target.view(), rows().args(w), out[0].data_ptr(), out[1].data_ptr());
  }
  Grads vjp(const Vjp& c) const {
    if (c.grad[1].defined())  // someone differentiates lse
      return vjp_by_composite(*this, c);
    return {apply(CrossEntropyBackward{ignore_index, label_smoothing}, c.grad[0], c.in[0], c.in[1], c.in[2],
                  detach(c.out[1]))};
  }
  TensorList composite(Inputs in) const {
    const Tensor x = to_dtype(in[0], computing_type(in[0].dtype()));
    return {neg(sum(rows().targets(in[0], in[1], in[2]) * log_softmax(x, 1), Dims{1})), logsumexp(x, {1})};
  }
};
DS_OP(CrossEntropy);

namespace {
// [N, C, d1, …] -> [N * d1 …, C]
Tensor class_rows(const Tensor& x) {
  if (x.dim() == 1) return unsqueeze(x, 0);
  if (x.dim() == 2) return x;
  Dims order{0};
  for (int i = 2; i < x.dim(); ++i) order.push_back(i);
  order.push_back(1);
  return reshape(permute(x, order), {-1, x.sizes()[1]});
}

Tensor mean_weight(const Tensor& target, const Tensor& weight, int64_t ignore_index, DType t) {
  const Tensor kept = ne(target, ignore_index);
  if (!weight.defined()) return to_dtype(sum(kept), t);
  const Tensor safe = where(kept, target, scalar(int64_t{0}));
  return sum(index_select(to_dtype(weight, t), 0, safe) * kept);
}
}  // namespace

DS_BODY_CAST(
    kFloat32, CrossEntropyPublic,
    "cross_entropy(Tensor input, Tensor target, Tensor? weight=None, str reduction='mean', int ignore_index=-100, "
    "float label_smoothing=0.0) -> Tensor",
    "-log softmax(input)[target] over classes in dim 1 ([N, C, …] logits; indices, or probabilities of input's shape).",
    false, kFunctional, Str reduction;
    int64_t ignore_index; double label_smoothing;) {
  const Tensor &x = in[0], &target = in[1], &weight = in[2];
  DS_CHECK(x.dim() >= 1, "cross_entropy: input must be at least 1-D");
  DS_CHECK(label_smoothing >= 0 && label_smoothing <= 1,
           "label_smoothing must be between 0.0 and 1.0. Got: ", label_smoothing);
  DS_CHECK_AS(ValueError, reduction == "mean" || reduction == "sum" || reduction == "none", reduction.view(),
              " is not a valid value for reduction");
  if (is_floating(target.dtype()) && target.sizes() == x.sizes()) {
    DS_CHECK(ignore_index < 0, "cross_entropy: ignore_index is not supported for a target of probabilities, got ",
             ignore_index);
    const int64_t classes = x.sizes()[x.dim() == 1 ? 0 : 1];
    const Tensor t = class_rows(target) * (1 - label_smoothing) + label_smoothing / static_cast<double>(classes);
    check_class_weight(weight, classes);
    const Tensor weighted = weight.defined() ? t * weight : t;
    const Tensor loss = neg(sum(weighted * log_softmax(class_rows(x), 1), Dims{1}));
    Dims sizes = x.sizes();
    sizes.erase(x.dim() == 1 ? 0 : 1);
    if (reduction == "mean") return sum(loss) / static_cast<double>(std::max<int64_t>(1, loss.numel()));
    return reduction == "sum" ? sum(loss) : reshape(loss, sizes);
  }
  check_class_targets("cross_entropy", x.sizes(), target, true);
  const Tensor ids = to_dtype(reshape(target, {-1}), DType::kInt64);
  const Tensor loss = apply_n<2>(CrossEntropy{ignore_index, label_smoothing}, class_rows(x), ids, weight)[0];
  const auto reduced = [&] {  // in float32, as a sum may be more than 16 bits hold
    if (reduction == "none") return reshape(loss, x.dim() == 1 ? Dims() : target.sizes());
    return reduction == "sum" ? sum(loss) : sum(loss) / mean_weight(ids, weight, ignore_index, loss.dtype());
  };
  return to_dtype(reduced(), x.dtype());
}

namespace {
// x * factor in x's memory, which a factor of one leaves alone.
Tensor scaled_(const Tensor& x, const Tensor& factor) {
  if (factor.item().to_double() != 1) mul_(x, factor);
  return x;
}
}  // namespace

// The loss of a linear layer's outputs and its gradients, formed while a block of logits exists, so that they are never
// stored whole. `needs`: bit i for the gradient of input i (input, weight, bias); the others are empty.
struct LinearCrossEntropy {
  int64_t ignore_index;
  double label_smoothing;
  bool mean;
  int64_t needs;
  static constexpr OpInfo info{
      .schema =
          "_linear_cross_entropy(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target, int "
          "ignore_index, float label_smoothing, bool mean, int needs) -> (Tensor loss, Tensor grad_input, Tensor "
          "grad_weight, Tensor grad_bias)",
      .doc = "Cross-entropy of input [N, D] @ linear_weight [C, D]^T against class indices [N], with its gradients.",
      .autocast = Autocast::kLower,
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const LinearCrossEntropy&) const = default;
  CrossEntropyRows rows() const { return {ignore_index, label_smoothing}; }
  bool needs_input(int i) const { return needs >> i & 1; }

  std::array<Meta, 4> infer(Inputs in) const {
    const Tensor &x = in[0], &w = in[1], &bias = in[2], &target = in[3];
    DS_CHECK(x.dim() == 2 && w.dim() == 2 && x.sizes()[1] == w.sizes()[1],
             "linear_cross_entropy: input must be [N, D] and linear_weight [C, D], got ", x.sizes(), " and ",
             w.sizes());
    DS_CHECK(x.dtype() == w.dtype(), "linear_cross_entropy: expected input and linear_weight to have the same dtype, ",
             "but got: ", name_of(x.dtype()), " != ", name_of(w.dtype()));
    DS_CHECK_AS(NotImplementedError, is_floating(x.dtype()) && !is_float8(x.dtype()),
                "\"cross_entropy\" not implemented for '", name_of(x.dtype()), "'");
    DS_CHECK(!bias.defined() || (bias.dim() == 1 && bias.sizes()[0] == w.sizes()[0]),
             "linear_cross_entropy: linear_bias must be [", w.sizes()[0], "], got ",
             bias.defined() ? bias.sizes() : Dims());
    check_class_targets("linear_cross_entropy", {x.sizes()[0], w.sizes()[0]}, target);
    const Meta loss{computing_type(x.dtype()), {}}, none{x.dtype(), {0}};
    return {loss, needs_input(0) ? x.meta() : none, needs_input(1) ? w.meta() : none,
            needs_input(2) && bias.defined() ? bias.meta() : none};
  }

  void eval(Inputs in, std::span<Tensor> out) const {
    const DType t = computing_type(in[0].dtype());
    const Tensor x = dense(in[0], in[0].dtype()), w = dense(in[1], in[1].dtype()), target = dense(in[3], DType::kInt64);
    const Tensor bias = in[2].defined() ? dense(in[2], t) : Tensor();
    const bool bias_grad = needs_input(2) && bias.defined();
    const Tensor bias_sums = !bias_grad || out[3].dtype() == t ? out[3] : Tensor::empty(out[3].sizes(), t);
    const View views[] = {out[1].view(), out[2].view(), bias_sums.view()};
    kernels::linear_cross_entropy({.input = x.view(),
                                   .weight = w.view(),
                                   .bias = bias.defined() ? bias.view() : View{},
                                   .target = target.view(),
                                   .loss = rows().args({}),
                                   .mean = mean},
                                  out[0].data_ptr(), needs_input(0) ? &views[0] : nullptr,
                                  needs_input(1) ? &views[1] : nullptr, bias_grad ? &views[2] : nullptr);
    if (bias_grad && out[3].dtype() != t) kernels::copy(out[3].view(), bias_sums.view());
  }

  Grads vjp(const Vjp& c) const {
    bool formed = true;
    for (int i = 0; i < 3; ++i) formed = formed && !c.grad[i + 1].defined() && (!c.need(i) || needs_input(i));
    if (!formed) return vjp_by_composite(*this, c);
    Grads out(4);
    for (int i = 0; i < 3; ++i)
      if (c.need(i)) out[i] = c.owns(c.out[i + 1]) ? scaled_(c.out[i + 1], c.grad[0]) : c.out[i + 1] * c.grad[0];
    return out;
  }

  TensorList composite(Inputs in) const {
    const DType t = computing_type(in[0].dtype());
    const Tensor x = to_dtype(in[0], t), w = to_dtype(in[1], t);
    Tensor logits = matmul(x, transpose(w, 0, 1));
    if (in[2].defined()) logits = logits + to_dtype(in[2], t);
    const Tensor wanted = rows().targets(logits, in[3], {});
    const Tensor total = mean ? to_dtype(sum(ne(in[3], ignore_index)), t) : ones({}, t);
    const Tensor loss = neg(sum(wanted * log_softmax(logits, 1))) / total;
    const Tensor slope = (softmax(logits, 1) * sum(wanted, Dims{1}, true) - wanted) / total;
    const auto formed = [&](int i, const Tensor& grad) {
      return needs_input(i) && in[i].defined() ? to_dtype(grad, in[i].dtype()) : zeros({0}, in[0].dtype());
    };
    return {loss, formed(0, matmul(slope, w)), formed(1, matmul(transpose(slope, 0, 1), x)),
            formed(2, sum(slope, Dims{0}, false))};
  }
};
DS_OP(LinearCrossEntropy);

DS_BODY(LinearCrossEntropyPublic,
        "linear_cross_entropy(Tensor input, Tensor linear_weight, Tensor target, *, Tensor? linear_bias=None, Tensor? "
        "weight=None, str reduction='mean', int? ignore_index=None, float label_smoothing=0.0) -> Tensor",
        "cross_entropy(linear(input, linear_weight, linear_bias), target), without storing the logits: input [N, D], "
        "linear_weight [C, D], class indices [N]. With class weights, probabilities, reduction='none' or more dims of "
        "linear_weight the logits are stored.",
        false, kFunctional, Str reduction;
        Opt<int64_t> ignore_index; double label_smoothing;) {
  const Tensor &x = in[0], &w = in[1], &target = in[2], &bias = in[3], &class_weight = in[4];
  // The product in autocast's dtype, the loss in float32.
  const auto in_result_type = [&](const Tensor& loss) { return mode().autocast ? loss : to_dtype(loss, x.dtype()); };
  const int64_t ignored = ignore_index.value_or(-100);
  DS_CHECK(w.dim() >= 2 && (x.dim() == 1 || x.dim() == 2),
           "linear_cross_entropy: input must be [D] or [N, D] and linear_weight [C, ..., D], got ", x.sizes(), " and ",
           w.sizes());
  DS_CHECK(w.dim() == 2 || x.dim() == 2, "linear_cross_entropy: linear_weight of shape ", w.sizes(),
           " asks for a batched input, [N, ", w.size(-1), "], got ", x.sizes());
  DS_CHECK(!ignore_index || !is_floating(target.dtype()),
           "linear_cross_entropy: ignore_index cannot be given with a target of probabilities; got ", ignored);
  DS_CHECK(label_smoothing >= 0 && label_smoothing <= 1,
           "label_smoothing must be between 0.0 and 1.0. Got: ", label_smoothing);
  if (w.dim() == 2 && !is_floating(target.dtype()) && !class_weight.defined() && reduction != "none") {
    DS_CHECK_AS(ValueError, reduction == "mean" || reduction == "sum", reduction.view(),
                " is not a valid value for reduction");
    int64_t needs = 0;
    if (mode().records())
      for (const auto& [i, t] : {std::pair{0, &x}, {1, &w}, {2, &bias}})
        needs |= static_cast<int64_t>(t->defined() && t->requires_grad()) << i;
    const bool single = x.dim() == 1;
    const TensorList out =
        apply_list(LinearCrossEntropy{ignored, label_smoothing, reduction == "mean", needs},
                   std::array{single ? unsqueeze(x, 0) : x, w, bias, single ? reshape(target, {1}) : target});
    return in_result_type(out[0]);
  }
  const auto cast = [](DType t) { return mode().autocast && t != DType::kFloat64 ? mode().autocast_dtype : t; };
  DS_CHECK(cast(x.dtype()) == cast(w.dtype()), "linear_cross_entropy: expected input and linear_weight to have the ",
           "same dtype, but got: ", name_of(x.dtype()), " != ", name_of(w.dtype()));
  // Logits of 16-bit inputs are float32 here as they are in the blocks above.
  const DType t = is_floating(x.dtype()) ? computing_type(x.dtype()) : x.dtype();
  const auto wide = [t](const Tensor& a) { return a.defined() && is_floating(a.dtype()) ? to_dtype(a, t) : a; };
  Tensor logits =
      linear(wide(x), wide(reshape(w, {-1, w.size(-1)})), bias.defined() ? wide(reshape(bias, {-1})) : bias);
  if (w.dim() > 2) {
    Dims sizes(std::span(w.sizes().begin(), w.dim() - 1));
    sizes.insert(0, x.sizes()[0]);
    logits = reshape(logits, sizes);
  }
  return in_result_type(
      apply(CrossEntropyPublic{reduction, ignored, label_smoothing}, logits, wide(target), wide(class_weight)));
}

DS_BODY_CAST(
    kFloat32, NllLoss,
    "nll_loss(Tensor input, Tensor target, Tensor? weight=None, str reduction='mean', int ignore_index=-100) -> Tensor",
    "-input[target] for log-probabilities [N, C, …].", false, kFunctional, Str reduction;
    int64_t ignore_index;) {
  check_class_targets("nll_loss", in[0].sizes(), in[1]);
  const Tensor rows = class_rows(in[0]);
  check_class_weight(in[2], rows.size(1));
  const Tensor ids = to_dtype(reshape(in[1], {-1}), DType::kInt64);
  kernels::check_targets(dense(ids, DType::kInt64).view(), rows.size(1), ignore_index);
  const Tensor kept = ne(ids, ignore_index);
  const Tensor safe = where(kept, ids, scalar(int64_t{0}));
  const DType t = is_reduced_float(rows.dtype()) ? DType::kFloat32 : rows.dtype();
  const Tensor picked = to_dtype(squeeze(gather(rows, 1, unsqueeze(safe, 1)), 1), t);
  Tensor w = to_dtype(kept, t);
  if (in[2].defined()) w = w * index_select(in[2], 0, safe);
  const Tensor loss = neg(where(kept, picked * w, scalar(0.0)));
  const auto reduced = [&] {
    if (reduction == "sum") return sum(loss);
    if (reduction == "none") return reshape(loss, in[0].dim() == 1 ? Dims() : in[1].sizes());
    DS_CHECK_AS(ValueError, reduction == "mean", reduction.view(), " is not a valid value for reduction");
    return sum(loss) / sum(w);
  };
  return to_dtype(reduced(), rows.dtype());
}

DS_BODY_CAST(kFloat32, MseLoss, "mse_loss(Tensor input, Tensor target, str reduction='mean') -> Tensor",
             "(input - target)^2.", false, kFunctional, Str reduction;) {
  return reduce_loss(square(in[0] - in[1]), reduction);
}

Tensor cross_entropy(const Tensor& x, const Tensor& target) {
  return apply(CrossEntropyPublic{"mean", -100, 0.0}, x, target, Tensor());
}
Tensor mse_loss(const Tensor& x, const Tensor& target) { return apply(MseLoss{"mean"}, x, target); }

}  // namespace deepseek
