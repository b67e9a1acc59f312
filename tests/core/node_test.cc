#include "core/node.h"

#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
using ::testing::HasSubstr;

struct CountedNode final : Node {
  static inline int live = 0;
  CountedNode() { ++live; }
  ~CountedNode() override { --live; }
  std::string name() const override { return "CountedNode"; }
  TensorList backward(Inputs, BackwardPass) override { return {}; }
};

struct Doubling final : Hook {
  int calls = 0;
  Tensor call(const Tensor& g) override {
    ++calls;
    return g * 2.0;
  }
};
struct Watching final : Hook {
  int calls = 0;
  Tensor call(const Tensor&) override {
    ++calls;
    return {};
  }
};

TEST(Node, DeepChainsAreFreedWithoutRecursion) {
  {
    Ref<Node> head;
    for (int i = 0; i < 1000000; ++i) {
      Ref<Node> node(new CountedNode);
      node->next.push_back({std::move(head), 0});
      head = std::move(node);
    }
    EXPECT_EQ(CountedNode::live, 1000000);
  }
  EXPECT_EQ(CountedNode::live, 0);
}

TEST(Node, AWideFanFreesEveryNodeOnce) {
  {
    Ref<Node> shared(new CountedNode), head(new CountedNode);
    for (int i = 0; i < 1000; ++i) {
      Ref<Node> middle(new CountedNode);
      middle->next.push_back({shared, 0});
      middle->next.push_back({shared, 0});
      head->next.push_back({std::move(middle), 0});
    }
    shared.reset();
    EXPECT_EQ(CountedNode::live, 1002);
    head.reset();
    EXPECT_EQ(CountedNode::live, 0);
  }
}

TEST(Node, SequenceNumbersRise) {
  const CountedNode a, b;
  EXPECT_LT(a.sequence, b.sequence);
}

TEST(Node, HooksRunOnTheirOutputInOrder) {
  CountedNode node;
  auto *doubling = new Doubling, *other = new Doubling;
  auto* watching = new Watching;
  node.hooks = {
      {1, 0, Ref<Hook>(doubling)}, {2, 1, Ref<Hook>(watching)}, {3, 0, Ref<Hook>(other)}, {4, 5, Ref<Hook>(watching)}};
  TensorList grads{vector({1}), Tensor()};
  node.run_hooks(grads);
  EXPECT_EQ(values_of(grads[0]), std::vector<double>{4});
  EXPECT_EQ(watching->calls, 0);  // its output has no gradient; the last one's output does not exist
}

TEST(GradMeta, WeakCellsForgetTheDead) {
  Ref<WeakCell> weak;
  {
    const Tensor t = vector({1});
    weak = weak_cell(t);
    EXPECT_EQ(weak->cell, t.cell());
    EXPECT_EQ(weak_cell(t).get(), weak.get());
  }
  EXPECT_EQ(weak->cell, nullptr);
}

TEST(Snapshot, KeepsGeometryAndMemory) {
  const Tensor t = transpose(tensor({2, 3}, {1, 2, 3, 4, 5, 6}), 0, 1);
  const Snapshot s(t, true);
  const Tensor back = s.unpack("op");
  EXPECT_TRUE(same_geometry(back, t));
  EXPECT_FALSE(back.is(t));
  EXPECT_FALSE(back.requires_grad());
}

TEST(Snapshot, WithoutDataItKnowsSizesOnly) {
  Tensor back;
  {
    const Tensor t = tensor({2, 3}, {1, 2, 3, 4, 5, 6}, DType::kFloat16);
    back = Snapshot(t, false).unpack("op");
  }
  EXPECT_FALSE(back.has_data());
  EXPECT_EQ(back.sizes(), (Dims{2, 3}));
  EXPECT_EQ(back.dtype(), DType::kFloat16);
  EXPECT_FALSE(Snapshot(Tensor(), true).unpack("op").defined());
  EXPECT_FALSE(Snapshot().unpack("op").defined());
}

TEST(Snapshot, AWrittenTensorIsRefusedByName) {
  const Tensor t = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  const Snapshot s(t, true);
  add_(select(t, 0, 0), scalar(1.0));  // through a view
  try {
    s.unpack("my_op");
    ADD_FAILURE();
  } catch (const Error& e) {
    const std::string what = e.what();
    EXPECT_THAT(
        what, HasSubstr("modified by an inplace operation: [deepseek.float64 [2, 3]], saved by my_op, is at version 1; "
                        "expected version 0 instead"));
  }
}

TEST(Snapshot, AReleasedOneSaysHowToKeepTheGraph) {
  const Tensor t = vector({1});
  Snapshot s(t, true);
  s.release();
  EXPECT_EQ(t.storage()->use_count(), 1u);
  try {
    s.unpack("my_op");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(std::string(e.what()), HasSubstr("backward through the graph a second time"));
    EXPECT_THAT(std::string(e.what()), HasSubstr("my_op"));
  }
}

// As a wrapped number it would be computed on in the default dtype: log(2.0) in float32 under float64 gradients.
TEST(Snapshot, PythonNumbersComeBackAsPlainTensors) {
  const Tensor back = Snapshot(scalar(2.5), true).unpack("op");
  EXPECT_FALSE(back.cell()->wrapped_number);
  EXPECT_EQ(back.dtype(), DType::kFloat64);
  EXPECT_EQ(back.item(), Scalar(2.5));
}

}  // namespace
}  // namespace deepseek
