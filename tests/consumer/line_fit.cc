// Fits y = 3 x - 0.5 by gradient descent, with nothing but the installed C++ library.
#include <cmath>
#include <cstdio>

#include "autograd/engine.h"
#include "base/version.h"
#include "core/mode.h"
#include "core/node.h"
#include "ops/ops.h"

namespace ds = deepseek;

namespace {

void descend(const ds::Tensor& parameter, double rate) {
  ds::GradGuard no_grad(false);
  ds::Tensor& grad = ds::grad_meta(parameter).grad;
  ds::add_(parameter, grad * -rate);
  grad = {};
}

}  // namespace

int main() {
  const ds::Tensor x = ds::randn({256, 1});  // [N, 1]
  const ds::Tensor y = x * 3.0 - 0.5;
  const ds::Tensor weight = ds::set_requires_grad(ds::zeros({1, 1}));
  const ds::Tensor bias = ds::set_requires_grad(ds::zeros({1}));

  double first = 0, last = 0;
  for (int step = 0; step < 100; ++step) {
    const ds::Tensor error = ds::linear(x, weight, bias) - y;
    const ds::Tensor loss = ds::mean(error * error);
    last = *loss.data<float>();
    if (step == 0) first = last;
    ds::backward({&loss, 1}, {}, {}, {});
    descend(weight, 0.2);
    descend(bias, 0.2);
  }

  const float slope = *weight.data<float>(), intercept = *bias.data<float>();
  std::printf("deepseek %s: loss %.3g -> %.3g, y = %.4f x + %.4f\n", ds::kVersion, first, last, slope, intercept);
  const bool fitted = std::abs(slope - 3.0F) < 1e-3F && std::abs(intercept + 0.5F) < 1e-3F && last < 1e-5 * first;
  return fitted ? 0 : 1;
}
