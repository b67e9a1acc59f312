// Stochastic gradient descent: the op of a step, and the optimizer for C++.
#include "kernels/optim/sgd.h"

#include <array>

#include "core/mode.h"
#include "ops/ops.h"
#include "optim/optimizer.h"
#include "optim/step.h"

namespace deepseek::optim {
namespace {

struct SgdStep {
  double momentum, dampening, weight_decay;
  bool nesterov, first, maximize;
  static constexpr OpInfo info{
      .schema =
          "_sgd_step(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)?[] momentum_buffers, Tensor(c!)?[] masters, "
          "Tensor|Number lr, Tensor|Number grad_scale, *, float momentum, float dampening, float weight_decay, bool "
          "nesterov, "
          "bool first, bool maximize) -> ()",
      .doc = "One step of SGD on all parameters; in the first, the momentum becomes the gradient.",
      .differentiable = false};
  bool operator==(const SgdStep&) const = default;
  StepForm form() const { return {"sgd_step", {"momentum buffer"}, momentum != 0 ? size_t{1} : 0}; }
  NoResults infer(Inputs in) const { return check_step(form(), in); }
  void eval(Inputs in, std::span<Tensor>) const {
    run_step(form(), in, [this](auto tensors, DType dtype, DType state_dtype, double lr, double grad_scale) {
      kernels::sgd_step(tensors, dtype, state_dtype,
                        {.lr = lr,
                         .momentum = momentum,
                         .dampening = dampening,
                         .weight_decay = weight_decay,
                         .nesterov = nesterov,
                         .first = first,
                         .maximize = maximize,
                         .grad_scale = grad_scale});
    });
  }
};
DS_OP(SgdStep);

}  // namespace

SGD::SGD(std::vector<Tensor> parameters, const SGDOptions& chosen)
    : Optimizer(std::move(parameters)), options(chosen), momentum_(this->parameters().size()) {
  check_not_negative(options.lr, "learning rate");
  check_not_negative(options.momentum, "momentum value");
  check_not_negative(options.weight_decay, "weight_decay value");
  DS_CHECK_AS(ValueError, !options.nesterov || (options.momentum > 0 && options.dampening == 0),
              "Nesterov momentum requires a momentum and zero dampening");
}

void SGD::step() {
  const GradGuard no_grad(false);
  // Parameters that meet their first gradient start their sum with it, the others go on.
  std::array<std::array<TensorList, 4>, 2> calls;
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Tensor& p = parameters()[i];
    if (!p.grad().defined()) continue;
    const bool first = options.momentum != 0 && !momentum_[i].defined();
    if (first) momentum_[i] = zeros_like(p);
    auto& [params, grads, momenta, masters] = calls[first];
    params.push_back(p);
    grads.push_back(p.grad());
    momenta.push_back(momentum_[i]);
    masters.push_back({});
  }
  for (const bool first : {false, true}) {
    if (calls[first][0].empty()) continue;
    apply_list(SgdStep{.momentum = options.momentum,
                       .dampening = options.dampening,
                       .weight_decay = options.weight_decay,
                       .nesterov = options.nesterov,
                       .first = first,
                       .maximize = options.maximize},
               step_inputs(calls[first], options.lr, options.grad_scale));
  }
}

}  // namespace deepseek::optim
