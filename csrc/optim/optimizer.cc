#include "optim/optimizer.h"

#include <utility>

#include "core/mode.h"
#include "core/node.h"
#include "ops/ops.h"

namespace deepseek::optim {
namespace {

// Written so that NaN is refused too.
void check_not_negative(double value, const char* what) {
  DS_CHECK_AS(ValueError, value >= 0, "Invalid ", what, ": ", value);
}
void check_share(double value, const char* what) {
  DS_CHECK_AS(ValueError, value >= 0 && value < 1, "Invalid ", what, ": ", value,
              ", it must be at least 0 and below 1");
}

}  // namespace

Optimizer::Optimizer(std::vector<Tensor> parameters) : parameters_(std::move(parameters)) {
  DS_CHECK_AS(ValueError, !parameters_.empty(), "optimizer got an empty parameter list");
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& p = parameters_[i];
    DS_CHECK_AS(TypeError, p.defined(), "optimizer: parameter ", i, " is undefined");
    DS_CHECK_AS(ValueError, p.is_leaf() && p.requires_grad(), "optimizer: parameter ", i,
                " is not a leaf that requires gradients; make it one by set_requires_grad(t)");
  }
}

void Optimizer::zero_grad() const {
  for (const Tensor& p : parameters_) grad_meta(p).grad = {};
}

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
  std::vector<SgdParameter> work;
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Tensor& p = parameters()[i];
    if (!p.grad().defined()) continue;
    const bool first = !momentum_[i].defined();
    if (first && options.momentum != 0) momentum_[i] = zeros_like(p);
    work.push_back({p, p.grad(), options.momentum != 0 ? momentum_[i] : Tensor(), first});
  }
  sgd_step(work, options);
}

AdamW::AdamW(std::vector<Tensor> parameters, const AdamWOptions& chosen)
    : Optimizer(std::move(parameters)), options(chosen) {
  check_not_negative(options.lr, "learning rate");
  check_not_negative(options.eps, "epsilon value");
  check_not_negative(options.weight_decay, "weight_decay value");
  check_share(options.beta1, "beta1");
  check_share(options.beta2, "beta2");
  for (const Tensor& p : this->parameters()) {
    AdamParameter& s = state_.emplace_back();
    s.param = p;
    s.step = 0;
  }
}

void AdamW::step() {
  const GradGuard no_grad(false);
  std::vector<AdamParameter> work;
  for (AdamParameter& s : state_) {
    if (!s.param.grad().defined()) continue;
    if (!s.exp_avg.defined()) {
      s.exp_avg = zeros_like(s.param);
      s.exp_avg_sq = zeros_like(s.param);
      if (options.amsgrad) s.max_exp_avg_sq = zeros_like(s.param);
    }
    ++s.step;
    work.push_back(s);
    work.back().grad = s.param.grad();  // not kept between steps
  }
  adam_step(work, {.lr = options.lr,
                   .beta1 = options.beta1,
                   .beta2 = options.beta2,
                   .eps = options.eps,
                   .weight_decay = options.weight_decay,
                   .decoupled = true,
                   .amsgrad = options.amsgrad,
                   .maximize = options.maximize});
}

}  // namespace deepseek::optim
