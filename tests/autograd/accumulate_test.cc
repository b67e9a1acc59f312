// Gradient sinks of leaves, and the edges views and bases exchange (autograd/accumulate.cc).
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
using ::testing::ElementsAre;

Tensor gradient_of(const Tensor& leaf) { return grad_meta(leaf).grad; }
void run_backward(const Tensor& root, BackwardOptions options = {}) { backward({&root, 1}, {}, {}, options); }

class Calling final : public Hook {
 public:
  explicit Calling(std::function<void(const Tensor&)> f) : f_(std::move(f)) {}
  Tensor call(const Tensor& g) override { return f_(g), Tensor(); }

 private:
  std::function<void(const Tensor&)> f_;
};

TEST(AccumulateGrad, AddsInPlace) {
  const Tensor x = leaf({2}, {1, 2});
  run_backward(sum(x * 2.0));
  const Tensor first = gradient_of(x);
  run_backward(sum(x * 3.0));
  EXPECT_TRUE(gradient_of(x).is(first));  // an optimizer may hold on to it
  EXPECT_EQ(values_of(first), (std::vector<double>{5, 5}));
}

TEST(AccumulateGrad, NeverKeepsMemoryThatSomebodyElseSees) {
  const Tensor x = leaf({2}, {1, 2}), y = leaf({2}, {1, 2}), seed = vector({7, 8});
  const Tensor z = x + y;
  backward({&z, 1}, {&seed, 1}, {}, {});
  EXPECT_NE(gradient_of(x).storage().get(), gradient_of(y).storage().get());
  EXPECT_NE(gradient_of(x).storage().get(), seed.storage().get());
  run_backward(sum(x));
  EXPECT_EQ(values_of(seed), (std::vector<double>{7, 8}));
  EXPECT_EQ(values_of(gradient_of(y)), (std::vector<double>{7, 8}));
}

TEST(AccumulateGrad, TakesMemoryThatNobodyElseHolds) {
  const Tensor x = leaf({2, 2}, {1, 2, 3, 4});
  const void* arrived = nullptr;
  register_hook(x, Ref<Hook>(new Calling([&](const Tensor& g) { arrived = g.storage().get(); })));
  for (const bool view : {false, true}) {
    grad_meta(x).grad = {};
    run_backward(sum((view ? reshape(x, {4}) : x) * 3.0 + 1.0));
    EXPECT_EQ(gradient_of(x).storage().get(), arrived) << view;
    EXPECT_EQ(values_of(gradient_of(x)), (std::vector<double>{3, 3, 3, 3}));
  }
}

TEST(AccumulateGrad, BroadcastSeedsGetRealMemory) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 6});
  run_backward(sum(x));  // the gradient of sum is an expanded number
  EXPECT_TRUE(gradient_of(x).is_contiguous());
  EXPECT_FALSE(may_overlap_itself(gradient_of(x).sizes(), gradient_of(x).strides()));
}

TEST(AccumulateGrad, OneSinkWhileAGraphUsesTheLeaf) {
  const Tensor x = leaf({}, {1});
  {
    const Tensor y = x * 2.0, z = x * 3.0;
    EXPECT_EQ(y.edge().node->next[0].node.get(), z.edge().node->next[0].node.get());
    EXPECT_NE(grad_meta(x).accumulator, nullptr);
  }
  EXPECT_EQ(grad_meta(x).accumulator, nullptr);
}

TEST(AccumulateGrad, TheGraphKeepsTheLeafAlive) {
  Tensor y;
  Ref<WeakCell> weak;
  {
    const Tensor x = leaf({}, {2});
    weak = weak_cell(x);
    y = x * x;
  }
  ASSERT_NE(weak->cell, nullptr);
  run_backward(y);
  y = {};
  EXPECT_EQ(weak->cell, nullptr);
}

TEST(AccumulateGrad, PostHooksSeeTheStoredGradient) {
  const Tensor x = leaf({}, {2});
  std::vector<double> seen;
  register_post_accumulate_hook(x, Ref<Hook>(new Calling([&](const Tensor& t) {
                                  EXPECT_TRUE(t.is(x));
                                  seen.push_back(gradient_of(t).item().to_double());
                                })));
  const Tensor y = x * x;
  run_backward(y * 1.0, {.retain_graph = true});
  run_backward(y * 2.0);
  EXPECT_THAT(seen, ElementsAre(4, 12));
}

TEST(AccumulateGrad, UnderCreateGraphTheSumIsRecorded) {
  const Tensor x = leaf({}, {3});
  for (int i = 0; i < 2; ++i) run_backward(x * x, {.retain_graph = true, .create_graph = true});
  const Tensor g = gradient_of(x);
  EXPECT_EQ(g.item(), Scalar(12.0));
  EXPECT_EQ(grad({&g, 1}, {}, {&x, 1}, {})[0].item(), Scalar(4.0));
  grad_meta(x).grad = {};
}

TEST(Views, AStaleViewAsksItsBaseAgain) {
  const Tensor x = leaf({2, 2}, {1, 2, 3, 4}), y = x * 1.0;
  const Tensor row = select(y, 0, 0);
  const Node* before = row.edge().node.get();
  EXPECT_EQ(row.edge().node.get(), before);  // stable while nothing is written
  call_inplace("mul", {y, scalar(5)});
  EXPECT_NE(row.edge().node.get(), before);
  EXPECT_EQ(row.edge().node->name(), "AsStridedRelBackward0");
  run_backward(sum(row));
  EXPECT_EQ(values_of(gradient_of(x)), (std::vector<double>{5, 5, 0, 0}));
}

TEST(Views, AWriteThroughAViewReachesSiblingsAndBase) {
  const Tensor x = leaf({2, 2}, {1, 2, 3, 4}), y = x * 1.0;
  const Tensor row = select(y, 0, 0), column = select(y, 1, 0);
  call_inplace("mul", {row, scalar(5)});
  EXPECT_EQ(y.edge().node->name(), "AsStridedScatterBackward0");
  run_backward(sum(column) + sum(y));
  EXPECT_EQ(values_of(gradient_of(x)), (std::vector<double>{10, 5, 2, 1}));
}

TEST(Views, AConstantBaseTakesPartAfterARecordedWrite) {
  const Tensor x = leaf({2}, {1, 2}), out = zeros({3, 2}, DType::kFloat64);
  EXPECT_FALSE(out.requires_grad());
  copy_(select(out, 0, 1), x * x);
  EXPECT_TRUE(out.requires_grad());
  run_backward(sum(out * 3.0));
  EXPECT_EQ(values_of(gradient_of(x)), (std::vector<double>{6, 12}));
}

}  // namespace
}  // namespace deepseek
