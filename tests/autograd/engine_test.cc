#include "autograd/engine.h"

#include <thread>

#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor gradient_of(const Tensor& leaf) { return grad_meta(leaf).grad; }
void run_backward(const Tensor& root, BackwardOptions options = {}) { backward({&root, 1}, {}, {}, options); }

class Calling final : public Hook {
 public:
  explicit Calling(std::function<Tensor(const Tensor&)> f) : f_(std::move(f)) {}
  Tensor call(const Tensor& g) override { return f_(g); }

 private:
  std::function<Tensor(const Tensor&)> f_;
};
Ref<Hook> hook(std::function<Tensor(const Tensor&)> f) { return Ref<Hook>(new Calling(std::move(f))); }

template <class F>
void expect_error(const std::string& message, F&& run) {
  try {
    run();
    ADD_FAILURE() << "no error; expected " << message;
  } catch (const Error& e) {
    EXPECT_THAT(std::string(e.what()), HasSubstr(message));
  }
}

constexpr int kDeep = 150000;

TEST(Engine, ADeepChainRunsAndIsFreedWithoutRecursion) {
  const Tensor x = leaf({}, {1}), one = tensor({}, {1});
  {
    Tensor y = x;
    for (int i = 0; i < kDeep; ++i) y = y + one;
    run_backward(y);
    EXPECT_EQ(gradient_of(x).item(), Scalar(1.0));
    EXPECT_EQ(y.item(), Scalar(kDeep + 1.0));
  }
  Tensor unused = x;  // freed without ever running
  for (int i = 0; i < kDeep; ++i) unused = unused + one;
}

TEST(Engine, ADeepChainForGradOfAnInput) {
  const Tensor x = leaf({}, {1}), other = leaf({}, {1});
  Tensor y = x;
  for (int i = 0; i < kDeep; ++i) y = y + other;
  const TensorList g = grad({&y, 1}, {}, {&x, 1}, {});
  EXPECT_EQ(g[0].item(), Scalar(1.0));
  EXPECT_FALSE(gradient_of(other).defined());
}

TEST(Engine, ALeafCollectsEveryPath) {
  const Tensor x = leaf({}, {3});
  const Tensor y = x * x, z = x + y + y * x;  // x + x^2 + x^3
  run_backward(z);
  EXPECT_EQ(gradient_of(x).item(), Scalar(1.0 + 2 * 3 + 3 * 9));
}

TEST(Engine, DiamondsVisitEachNodeOnce) {
  const Tensor x = leaf({}, {1.0});
  Tensor y = x * 1.0;
  int visits = 0;
  register_hook(y, hook([&](const Tensor&) -> Tensor { return ++visits, Tensor(); }));
  for (int i = 0; i < 40; ++i) y = y + y;  // 2^40 paths
  run_backward(y);
  EXPECT_EQ(gradient_of(x).item(), Scalar(std::ldexp(1.0, 40)));
  EXPECT_EQ(visits, 1);
}

TEST(Engine, BroadcastGradientsAreSummed) {
  const Tensor row = leaf({3}, {1, 2, 3}), column = leaf({2, 1}, {1, 2}), number = leaf({}, {2});
  const Tensor loss = sum(row * column * number);
  run_backward(loss);
  EXPECT_EQ(values_of(gradient_of(row)), (std::vector<double>{6, 6, 6}));
  EXPECT_EQ(values_of(gradient_of(column)), (std::vector<double>{12, 12}));
  EXPECT_EQ(gradient_of(number).item(), Scalar(18.0));
}

TEST(Engine, GradientsHaveTheInputsDType) {
  const Tensor h = set_requires_grad(vector({1, 2}, DType::kBFloat16)), f = leaf({2}, {1, 2}, DType::kFloat32);
  run_backward(sum(h * f));
  EXPECT_EQ(gradient_of(h).dtype(), DType::kBFloat16);
  EXPECT_EQ(gradient_of(f).dtype(), DType::kFloat32);
}

TEST(Engine, SeveralRootsWithAndWithoutGradients) {
  const Tensor x = leaf({2}, {1, 2});
  const TensorList roots{x * x, sum(x)}, seeds{vector({1, 10}), Tensor()};
  backward(roots, seeds, {}, {});
  EXPECT_EQ(values_of(gradient_of(x)), (std::vector<double>{3, 41}));
}

TEST(Engine, ARootThatIsALeaf) {
  const Tensor x = leaf({}, {1});
  run_backward(x);
  EXPECT_EQ(gradient_of(x).item(), Scalar(1.0));
}

TEST(Engine, MoreOutputsThanBitsInAWord) {
  const Tensor x = leaf({100}, std::vector<double>(100, 2));
  const TensorList rows = unbind(x, 0);
  Tensor total = scalar(0.0);
  // Built from the last row on, and ending in a sum whose gradient is the very tensor the next node gets.
  for (size_t i = rows.size(); i-- > 0;) total = total + rows[i] * rows[i] + rows[i] * static_cast<double>(i) + rows[i];
  run_backward(total);
  const std::vector<double> g = values_of(gradient_of(x));
  for (size_t i = 0; i < g.size(); ++i) EXPECT_EQ(g[i], 5.0 + static_cast<double>(i)) << i;
}

// --- grad(inputs)

TEST(Grad, OnlyTheWayToTheInputsIsRun) {
  const Tensor x = leaf({2}, {1, 2}), w = leaf({2}, {3, 4});
  const Tensor middle = x * 2.0, y = sum(middle * exp(w));
  std::vector<std::string> ran;
  register_hook(middle, hook([&](const Tensor&) -> Tensor { return ran.push_back("middle"), Tensor(); }));
  register_hook(x, hook([&](const Tensor&) -> Tensor { return ran.push_back("x"), Tensor(); }));
  const BackwardOptions keep{.retain_graph = true};
  expect_near(values_of(grad({&y, 1}, {}, {&w, 1}, keep)[0]), {2 * std::exp(3), 4 * std::exp(4)}, 1e-14, "w");
  EXPECT_TRUE(ran.empty());
  expect_near(values_of(grad({&y, 1}, {}, {&middle, 1}, keep)[0]), {std::exp(3), std::exp(4)}, 1e-14, "middle");
  EXPECT_THAT(ran, ElementsAre("middle"));  // it stops there
  grad({&y, 1}, {}, {&x, 1}, keep);
  EXPECT_THAT(ran, ElementsAre("middle", "middle", "x"));
  EXPECT_FALSE(gradient_of(x).defined() || gradient_of(w).defined());
}

TEST(Grad, UnreachedInputsAreUndefined) {
  const Tensor x = leaf({}, {1}), other = leaf({}, {1}), y = x * 2.0;
  const TensorList inputs{other, x};
  const TensorList g = grad({&y, 1}, {}, inputs, {});
  EXPECT_FALSE(g[0].defined());
  EXPECT_EQ(g[1].item(), Scalar(2.0));
}

TEST(Grad, ARootAmongTheInputs) {
  const Tensor x = leaf({}, {3}), y = x * x;
  const TensorList inputs{y, x, x};
  const TensorList g = grad({&y, 1}, {}, inputs, {});
  EXPECT_EQ(g[0].item(), Scalar(1.0));
  EXPECT_EQ(g[1].item(), Scalar(6.0));
  EXPECT_EQ(g[2].item(), Scalar(6.0));
}

TEST(Backward, InputsLimitWhatIsAccumulated) {
  const Tensor x = leaf({}, {3}), w = leaf({}, {4}), y = x * w;
  backward({&y, 1}, {}, {&w, 1}, {});
  EXPECT_FALSE(gradient_of(x).defined());
  EXPECT_EQ(gradient_of(w).item(), Scalar(3.0));
  const Tensor z = x * w;  // no leaf, but asked for
  backward({&z, 1}, {}, {&z, 1}, {});
  EXPECT_EQ(gradient_of(z).item(), Scalar(1.0));
}

// --- higher derivatives

TEST(Engine, DerivativesOfAnyOrder) {
  const Tensor x = leaf({}, {2});
  Tensor y = pow(x, 5);
  for (double expected : {80.0, 160.0, 240.0, 240.0, 120.0}) {  // 5x^4, 20x^3, 60x^2, 120x, 120
    y = grad({&y, 1}, {}, {&x, 1}, {.retain_graph = true, .create_graph = true})[0];
    expect_near(y.item().to_double(), expected, 1e-12, "derivative");
  }
}

TEST(Engine, CreateGraphMakesAGradientThatHasOne) {
  const Tensor x = leaf({}, {3}), y = x * x * x;
  run_backward(y, {.retain_graph = true, .create_graph = true});
  const Tensor g = gradient_of(x);
  EXPECT_TRUE(g.requires_grad());
  EXPECT_EQ(grad({&g, 1}, {}, {&x, 1}, {})[0].item(), Scalar(18.0));
  grad_meta(x).grad = {};  // the gradient's graph holds x: break the circle
}

TEST(Engine, BackwardRecordsNothingByItself) {
  const Tensor x = leaf({}, {3});
  run_backward(x * x);
  EXPECT_FALSE(gradient_of(x).requires_grad());
  EXPECT_TRUE(mode().grad);
}

// --- nesting, errors, threads

TEST(Engine, BackwardInsideAHook) {
  const Tensor x = leaf({}, {2}), inner = leaf({}, {5});
  const Tensor y = x * 3.0, shared = inner * inner;
  register_hook(y, hook([&](const Tensor& g) -> Tensor {
                  const GradGuard on(true);
                  const Tensor z = inner * 7.0;
                  run_backward(z);
                  return g * grad({&shared, 1}, {}, {&inner, 1}, {})[0];
                }));
  run_backward(y * 1.0);
  EXPECT_EQ(gradient_of(inner).item(), Scalar(7.0));
  EXPECT_EQ(gradient_of(x).item(), Scalar(30.0));
}

TEST(Engine, ANestedRunOverTheSameNodes) {
  const Tensor x = leaf({}, {2});
  const Tensor y = x * x, z = y * y;
  double inner = 0;
  register_hook(y, hook([&](const Tensor& g) -> Tensor {
                  if (inner == 0) {
                    inner = -1;  // the nested run calls this hook again
                    inner = grad({&z, 1}, {}, {&x, 1}, {.retain_graph = true})[0].item().to_double();
                  }
                  return g;
                }));
  run_backward(z, {.retain_graph = true});
  EXPECT_EQ(inner, 32);  // 4 x^3
  EXPECT_EQ(gradient_of(x).item(), Scalar(32.0));
}

TEST(Engine, AnErrorLeavesItUsable) {
  const Tensor x = leaf({}, {2}), y = x * x, z = exp(y);
  const int64_t id = register_hook(y, hook([](const Tensor&) -> Tensor { fail("from a hook"); }));
  for (int i = 0; i < 3; ++i) {
    expect_error("from a hook", [&] { run_backward(z, {.retain_graph = true}); });
    EXPECT_TRUE(mode().grad);
    EXPECT_FALSE(gradient_of(x).defined());
  }
  remove_hook(y, id);
  run_backward(z);
  expect_near(gradient_of(x).item().to_double(), 4 * std::exp(4.0), 1e-12, "after the errors");
}

TEST(Engine, AVersionMismatchNamesTheOpAndLeavesItUsable) {
  const Tensor x = leaf({2}, {1, 2}), y = exp(x), loss = sum(y);
  {
    const GradGuard off(false);
    add_(y, y);
  }
  expect_error("saved by exp, is at version 1; expected version 0",
               [&] { run_backward(loss, {.retain_graph = true}); });
  const Tensor again = leaf({}, {3});
  run_backward(again * again);
  EXPECT_EQ(gradient_of(again).item(), Scalar(6.0));
}

TEST(Engine, EveryMistakeHasAnError) {
  const Tensor x = leaf({2}, {1, 2}), y = x * 2.0, c = vector({1, 2}), bad = vector({1, 2, 3});
  expect_error("grad can be implicitly created only for scalar outputs; got shape [2]", [&] { run_backward(y); });
  expect_error("element 0 of tensors does not require grad", [&] { run_backward(sum(c)); });
  expect_error("Mismatch in shape", [&] { backward({&y, 1}, {&bad, 1}, {}, {}); });
  expect_error("One of the differentiated Tensors does not require grad", [&] { grad({&y, 1}, {&c, 1}, {&c, 1}, {}); });
  expect_error("doesn't require gradient", [&] { register_hook(c, hook([](const Tensor& g) { return g; })); });
  expect_error("can't retain_grad", [&] { retain_grad(c); });
  expect_error("cannot be registered on non-leaf",
               [&] { register_post_accumulate_hook(y, hook([](const Tensor& g) { return g; })); });
}

TEST(Engine, AHookMayNotChangeTheShape) {
  const Tensor x = leaf({2}, {1, 2}), y = x * 2.0;
  register_hook(y, hook([](const Tensor&) { return vector({1, 2, 3}); }));
  EXPECT_THROW(run_backward(sum(y)), Error);
}

TEST(Engine, ThreadsRunTheirOwnGraphsAtOnce) {
  std::vector<double> results(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < results.size(); ++t)
    threads.emplace_back([t, &results] {
      for (int repeat = 0; repeat < 20; ++repeat) {
        const Tensor x = leaf({}, {static_cast<double>(t + 1)});
        Tensor y = x;
        for (int i = 0; i < 50; ++i) y = y + x * x;
        run_backward(y);
        results[t] = gradient_of(x).item().to_double();
      }
    });
  for (std::thread& t : threads) t.join();
  for (size_t t = 0; t < results.size(); ++t) EXPECT_EQ(results[t], 1 + 100 * static_cast<double>(t + 1));
}

// --- hooks

TEST(Hooks, ReplaceOrWatch) {
  const Tensor x = leaf({}, {3}), y = x * 2.0;
  std::vector<double> seen;
  register_hook(y, hook([&](const Tensor& g) -> Tensor { return seen.push_back(g.item().to_double()), g * 10.0; }));
  register_hook(y, hook([&](const Tensor& g) -> Tensor { return seen.push_back(g.item().to_double()), Tensor(); }));
  register_hook(x, hook([&](const Tensor& g) -> Tensor { return seen.push_back(g.item().to_double()), g + 1.0; }));
  run_backward(y + y);
  EXPECT_THAT(seen, ElementsAre(2, 20, 40));  // once each, on the whole gradient
  EXPECT_EQ(gradient_of(x).item(), Scalar(41.0));
}

TEST(Hooks, RemovalFromWithinAndWithout) {
  const Tensor x = leaf({}, {3});
  int calls = 0;
  int64_t id = 0;
  id = register_hook(x, hook([&](const Tensor&) -> Tensor { return ++calls, remove_hook(x, id), Tensor(); }));
  for (int i = 0; i < 2; ++i) run_backward(x * 1.0);
  EXPECT_EQ(calls, 1);
}

TEST(Hooks, RetainGradKeepsAResultsGradient) {
  const Tensor x = leaf({}, {3}), y = x * 2.0;
  retain_grad(y);
  retain_grad(y);  // once is enough
  EXPECT_EQ(grad_meta(y).edge.node->hooks.size(), 1u);
  run_backward(y * y);
  EXPECT_EQ(gradient_of(y).item(), Scalar(12.0));
}

TEST(Hooks, RetainGradDoesNotKeepTheTensorAlive) {
  const Tensor x = leaf({}, {3});
  Tensor z;
  {
    const Tensor y = x * 2.0;
    retain_grad(y);
    z = y * 1.0;
  }
  run_backward(z);
  EXPECT_EQ(gradient_of(x).item(), Scalar(2.0));
}

}  // namespace
}  // namespace deepseek
