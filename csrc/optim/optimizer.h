// Optimizers for C++ programs, over the fused steps that the Python ones use:
//
//   optim::AdamW optimizer({weight, bias}, {.lr = 1e-2});
//   optimizer.zero_grad();
//   backward(loss);
//   optimizer.step();
#pragma once

#include <vector>

#include "core/tensor.h"

namespace deepseek::optim {

class Optimizer {
 public:
  // Leaves that require gradients. A parameter without a gradient is left out of a step.
  explicit Optimizer(std::vector<Tensor> parameters);
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;

  virtual void step() = 0;
  void zero_grad() const;  // drops the gradients
  const std::vector<Tensor>& parameters() const { return parameters_; }

 private:
  std::vector<Tensor> parameters_;
};

struct SGDOptions {
  double lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, maximize = false;
  double grad_scale = 1;  // multiplies every gradient first
};

// Stochastic gradient descent, with momentum.
class SGD final : public Optimizer {
 public:
  explicit SGD(std::vector<Tensor> parameters, const SGDOptions& options = {});
  void step() override;

  SGDOptions options;  // may change between steps, as a schedule does

 private:
  std::vector<Tensor> momentum_;  // of each parameter; undefined before its first step
};

struct AdamWOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-2;
  bool amsgrad = false, maximize = false;
};

// Adam with decoupled weight decay. (Loshchilov and Hutter, 2017)
class AdamW final : public Optimizer {
 public:
  explicit AdamW(std::vector<Tensor> parameters, const AdamWOptions& options = {});
  void step() override;

  AdamWOptions options;  // may change between steps, as a schedule does; not amsgrad, which has state

 private:
  struct State {
    Tensor exp_avg, exp_avg_sq;  // undefined before its parameter's first step
    Tensor max_exp_avg_sq;       // with amsgrad only
    int64_t step = 0;
  };
  std::vector<State> state_;  // of each parameter
};

// ValueError for what is no such number. Written so that NaN is refused too.
void check_not_negative(double value, const char* what);
void check_share(double value, const char* what);  // at least 0 and below 1

}  // namespace deepseek::optim
