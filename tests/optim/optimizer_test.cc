// The C++ optimizers against their definition in plain ops, step by step.
#include "optim/optimizer.h"

#include "tests/core_testing.h"

namespace deepseek::optim {
namespace {
using deepseek::testing::leaf;
using deepseek::testing::values_of;
using ::testing::HasSubstr;

// Two leaves and a loss whose gradients differ from step to step; the second is not contiguous.
struct Problem {
  Tensor a = leaf({3}, {1, -2, 3});
  Tensor b = set_requires_grad(detach(transpose(leaf({2, 2}, {0.5, 1, -1, 2}), 0, 1)));
  void backward() const { deepseek::backward(sum(a * a * a) + sum(b * b) + sum(a) * sum(b)); }
  std::vector<Tensor> parameters() const { return {a, b}; }
};

void expect_same(const Tensor& got, const std::vector<double>& want) {
  const std::vector<double> values = values_of(got);
  ASSERT_EQ(values.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(values[i], want[i], 1e-12) << "element " << i;
}

// Runs `optimizer` beside `define(values, gradients, parameter, step)`, which updates the values of one parameter.
template <class F>
void expect_steps(const Problem& problem, Optimizer& optimizer, F&& define) {
  std::vector<std::vector<double>> want{values_of(problem.a), values_of(problem.b)};
  for (int step = 1; step <= 4; ++step) {
    optimizer.zero_grad();
    problem.backward();
    for (size_t p = 0; p < want.size(); ++p) define(want[p], values_of(problem.parameters()[p].grad()), p, step);
    optimizer.step();
    for (size_t p = 0; p < want.size(); ++p) expect_same(problem.parameters()[p], want[p]);
  }
}

TEST(Optimizer, SgdWithMomentumAndDecay) {
  for (const bool nesterov : {false, true}) {
    const Problem problem;
    SGD optimizer(problem.parameters(), {.lr = 0.01, .momentum = 0.9, .weight_decay = 0.1, .nesterov = nesterov});
    std::vector<double> sums[2];
    expect_steps(problem, optimizer, [&](std::vector<double>& w, const std::vector<double>& grad, size_t p, int step) {
      for (size_t i = 0; i < w.size(); ++i) {
        const double g = grad[i] + 0.1 * w[i];
        if (step == 1) sums[p].push_back(g);
        if (step > 1) sums[p][i] = 0.9 * sums[p][i] + g;
        w[i] -= 0.01 * (nesterov ? g + 0.9 * sums[p][i] : sums[p][i]);
      }
    });
  }
}

TEST(Optimizer, AdamWIsItsDefinition) {
  const Problem problem;
  AdamW optimizer(problem.parameters(), {.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.1});
  std::vector<double> m[2] = {std::vector<double>(3), std::vector<double>(4)}, v[2] = {m[0], m[1]};
  expect_steps(problem, optimizer, [&](std::vector<double>& w, const std::vector<double>& g, size_t p, int step) {
    for (size_t i = 0; i < w.size(); ++i) {
      m[p][i] = 0.8 * m[p][i] + 0.2 * g[i];
      v[p][i] = 0.95 * v[p][i] + 0.05 * g[i] * g[i];
      const double mean = m[p][i] / (1 - std::pow(0.8, step)), square = v[p][i] / (1 - std::pow(0.95, step));
      w[i] = w[i] * (1 - 0.02 * 0.1) - 0.02 * mean / (std::sqrt(square) + 1e-8);
    }
  });
}

TEST(Optimizer, AParameterWithoutGradientStays) {
  const Tensor used = leaf({2}, {1, 2}), unused = leaf({2}, {1, 2});
  AdamW adam({used, unused});
  SGD sgd({used, unused}, {.lr = 0.1, .momentum = 0.5});
  backward(sum(used));
  adam.step();
  sgd.step();
  expect_same(unused, {1, 2});
  EXPECT_NE(values_of(used)[0], 1);
}

TEST(Optimizer, ZeroGradDropsTheGradients) {
  const Tensor x = leaf({2}, {1, 2});
  SGD optimizer({x});
  backward(sum(x));
  EXPECT_TRUE(x.grad().defined());
  optimizer.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  optimizer.step();  // nothing to do
  expect_same(x, {1, 2});
}

TEST(Optimizer, OptionsMayChangeBetweenSteps) {
  const Tensor x = leaf({1}, {1});
  SGD optimizer({x}, {.lr = 0.5});
  backward(sum(x));
  optimizer.options.lr = 0.25;
  optimizer.step();
  expect_same(x, {0.75});
}

TEST(Optimizer, AGraphOfTheOldValueIsRefused) {
  const Tensor x = leaf({2}, {1, 2});
  SGD optimizer({x}, {.lr = 0.5});
  const Tensor loss = sum(x * x);
  backward(loss, {.retain_graph = true});
  optimizer.step();
  EXPECT_THROW(backward(loss), Error);  // x was written since
}

TEST(Optimizer, WhatIsRefused) {
  const Tensor x = leaf({2}, {1, 2});
  EXPECT_THROW(SGD(std::vector<Tensor>{}), ValueError);
  EXPECT_THROW(SGD({Tensor()}), TypeError);
  EXPECT_THROW(SGD({x * 2.0}), ValueError);
  EXPECT_THROW(SGD({ones({2})}), ValueError);
  EXPECT_THROW(SGD({x}, {.lr = -1}), ValueError);
  EXPECT_THROW(SGD({x}, {.lr = std::nan("")}), ValueError);
  EXPECT_THROW(SGD({x}, {.nesterov = true}), ValueError);
  EXPECT_THROW(AdamW({x}, {.beta2 = 1}), ValueError);
  EXPECT_THROW(AdamW({x}, {.eps = -1e-8}), ValueError);
}

}  // namespace
}  // namespace deepseek::optim
