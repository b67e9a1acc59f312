// Losses. cross_entropy is fused over the class dim; its second derivative goes through the composite of its backward.
#include "kernels/copy.h"
#include "kernels/cross_entropy.h"
#include "ops/composite.h"

namespace deepseek {
namespace {

DType loss_type(DType logits) { return logits == DType::kFloat64 ? logits : DType::kFloat32; }

Tensor dense(const Tensor& t, DType dtype) {
  if (t.is_contiguous() && t.dtype() == dtype) return t;
  Tensor out = Tensor::empty(t.sizes(), dtype);
  kernels::copy(out.view(), t.view());
  return out;
}

Tensor reduce_loss(const Tensor& loss, const Str& reduction) {
  if (reduction == "mean") return mean(loss);
  if (reduction == "sum") return sum(loss);
  DS_CHECK_AS(ValueError, reduction == "none", reduction.view(), " is not a valid value for reduction");
  return loss;
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
    const DType t = loss_type(logits.dtype());
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
                               .kind = Kind::kFused,
                               .shown = Shown::kHidden};
  bool operator==(const CrossEntropyBackward&) const = default;
  CrossEntropyRows rows() const { return {ignore_index, label_smoothing}; }
  Meta infer(Inputs in) const { return in[1].meta(); }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    const DType t = loss_type(in[1].dtype());
    const Tensor x = dense(in[1], in[1].dtype()), target = dense(in[2], DType::kInt64), lse = dense(in[4], t),
                 g = dense(in[0], t);
    const Tensor w = in[3].defined() ? dense(in[3], t) : Tensor();
    kernels::cross_entropy_backward(out.view(), x.view(), target.view(), rows().args(w), lse.data_ptr(), g.data_ptr(),
                                    1);
  }
  TensorList composite(Inputs in) const {
    const Tensor x = to_dtype(in[1], loss_type(in[1].dtype()));
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
      .kind = Kind::kFused,
      .autocast = Autocast::kFloat32,
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
    DS_CHECK(!in[2].defined() || (in[2].dim() == 1 && in[2].sizes()[0] == in[0].sizes()[1]),
             "weight tensor should be defined either for all ", in[0].sizes()[1],
             " classes or no classes but got weight tensor of shape: ", in[2].defined() ? in[2].sizes() : Dims());
    const Meta m{loss_type(in[0].dtype()), in[1].sizes()};
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
    const Tensor x = to_dtype(in[0], loss_type(in[0].dtype()));
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

DS_BODY(
    CrossEntropyPublic,
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
  if (is_floating(target.dtype())) {
    DS_CHECK(target.sizes() == x.sizes(), "cross_entropy: probability targets must have input's shape; got ",
             target.sizes(), " and ", x.sizes());
    const int64_t classes = x.sizes()[x.dim() == 1 ? 0 : 1];
    const Tensor t = class_rows(target) * (1 - label_smoothing) + label_smoothing / static_cast<double>(classes);
    const Tensor weighted = weight.defined() ? t * weight : t;
    const Tensor loss = neg(sum(weighted * log_softmax(class_rows(x), 1), Dims{1}));
    Dims sizes = x.sizes();
    sizes.erase(x.dim() == 1 ? 0 : 1);
    if (reduction == "mean") return sum(loss) / static_cast<double>(std::max<int64_t>(1, loss.numel()));
    return reduction == "sum" ? sum(loss) : reshape(loss, sizes);
  }
  Dims want = x.sizes();
  want.erase(x.dim() == 1 ? 0 : 1);
  DS_CHECK_AS(ValueError, target.dim() == want.size() && (want.empty() || target.sizes()[0] == want[0]),
              "Expected input batch_size (", x.dim() > 1 ? x.sizes()[0] : 1, ") to match target batch_size (",
              target.dim() > 0 ? target.sizes()[0] : 1, ").");
  DS_CHECK(target.sizes() == want, "Expected target size ", want, ", got ", target.sizes());
  const Tensor ids = reshape(target, {-1});
  const Tensor loss =
      to_dtype(apply_n<2>(CrossEntropy{ignore_index, label_smoothing}, class_rows(x), ids, weight)[0], x.dtype());
  if (reduction == "sum") return sum(loss);
  if (reduction == "none") return reshape(loss, target.sizes());
  return sum(loss) / mean_weight(ids, weight, ignore_index, loss.dtype());
}

DS_BODY(
    NllLoss,
    "nll_loss(Tensor input, Tensor target, Tensor? weight=None, str reduction='mean', int ignore_index=-100) -> Tensor",
    "-input[target] for log-probabilities [N, C, …].", false, kFunctional, Str reduction;
    int64_t ignore_index;) {
  const Tensor rows = class_rows(in[0]);
  const Tensor ids = reshape(in[1], {-1});
  DS_CHECK_AS(ValueError, rows.sizes()[0] == ids.sizes()[0], "Expected input batch_size (", rows.sizes()[0],
              ") to match target batch_size (", ids.sizes()[0], ").");
  const Tensor kept = ne(ids, ignore_index);
  const Tensor safe = where(kept, ids, scalar(int64_t{0}));
  const Tensor picked = squeeze(gather(rows, 1, unsqueeze(safe, 1)), 1);
  Tensor w = to_dtype(kept, rows.dtype());
  if (in[2].defined()) w = w * index_select(in[2], 0, safe);
  const Tensor loss = neg(where(kept, picked * w, scalar(0.0)));
  if (reduction == "sum") return sum(loss);
  if (reduction == "none") return reshape(loss, in[1].sizes());
  DS_CHECK_AS(ValueError, reduction == "mean", reduction.view(), " is not a valid value for reduction");
  return sum(loss) / sum(w);
}

DS_BODY(MseLoss, "mse_loss(Tensor input, Tensor target, str reduction='mean') -> Tensor", "(input - target)^2.", false,
        kFunctional, Str reduction;) {
  return reduce_loss(square(in[0] - in[1]), reduction);
}

}  // namespace deepseek
