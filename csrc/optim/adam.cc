// Adam and AdamW: the op of a step, and the optimizer for C++.
#include "kernels/optim/adam.h"

#include <array>

#include "core/mode.h"
#include "ops/ops.h"
#include "optim/optimizer.h"
#include "optim/step.h"

namespace deepseek::optim {
namespace {

struct AdamStep {
  double beta1, beta2, eps, weight_decay;
  bool decoupled, maximize;
  static constexpr OpInfo info{
      .schema =
          "_adam_step(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
          "Tensor(d!)?[] max_exp_avg_sqs, Tensor(e!)?[] masters, Tensor|Number[] steps, Tensor|Number lr, "
          "Tensor|Number "
          "grad_scale, *, float beta1, float beta2, float eps, float weight_decay, bool decoupled, bool maximize) -> "
          "()",
      .doc =
          "One step of Adam (decoupled: AdamW) on all parameters; with max_exp_avg_sqs of AMSGrad. Step 1 is the "
          "first.",
      .differentiable = false};
  static constexpr StepForm kForm{"adam_step", {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}, 2, true};
  bool operator==(const AdamStep&) const = default;
  NoResults infer(Inputs in) const { return check_step(kForm, in); }
  void eval(Inputs in, std::span<Tensor>) const {
    run_step(kForm, in, [this](auto tensors, DType dtype, DType state_dtype, double lr, double grad_scale) {
      kernels::adam_step(tensors, dtype, state_dtype,
                         {.lr = lr,
                          .beta1 = beta1,
                          .beta2 = beta2,
                          .eps = eps,
                          .weight_decay = weight_decay,
                          .decoupled = decoupled,
                          .maximize = maximize,
                          .grad_scale = grad_scale});
    });
  }
};
DS_OP(AdamStep);

}  // namespace

AdamW::AdamW(std::vector<Tensor> parameters, const AdamWOptions& chosen)
    : Optimizer(std::move(parameters)), options(chosen), state_(this->parameters().size()) {
  check_not_negative(options.lr, "learning rate");
  check_not_negative(options.eps, "epsilon value");
  check_not_negative(options.weight_decay, "weight_decay value");
  check_share(options.beta1, "beta1");
  check_share(options.beta2, "beta2");
}

void AdamW::step() {
  const GradGuard no_grad(false);
  std::array<TensorList, 7> lists;
  auto& [params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, masters, steps] = lists;
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Tensor& p = parameters()[i];
    if (!p.grad().defined()) continue;
    State& s = state_[i];
    if (!s.exp_avg.defined()) {
      s.exp_avg = zeros_like(p);
      s.exp_avg_sq = zeros_like(p);
      if (options.amsgrad) s.max_exp_avg_sq = zeros_like(p);
    }
    params.push_back(p);
    grads.push_back(p.grad());
    exp_avgs.push_back(s.exp_avg);
    exp_avg_sqs.push_back(s.exp_avg_sq);
    max_exp_avg_sqs.push_back(s.max_exp_avg_sq);
    masters.push_back({});
    steps.push_back(Tensor::wrapped(++s.step));
  }
  apply_list(AdamStep{.beta1 = options.beta1,
                      .beta2 = options.beta2,
                      .eps = options.eps,
                      .weight_decay = options.weight_decay,
                      .decoupled = true,
                      .maximize = options.maximize},
             step_inputs(lists, options.lr));
}

}  // namespace deepseek::optim
