#include "optim/optimizer.h"

#include <utility>

#include "core/node.h"

namespace deepseek::optim {

void check_not_negative(double value, const char* what) {
  DS_CHECK_AS(ValueError, value >= 0, "Invalid ", what, ": ", value);
}
void check_share(double value, const char* what) {
  DS_CHECK_AS(ValueError, value >= 0 && value < 1, "Invalid ", what, ": ", value,
              ", it must be at least 0 and below 1");
}

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

}  // namespace deepseek::optim
