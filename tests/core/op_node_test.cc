#include "core/op_node.h"

#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
using ::testing::HasSubstr;

TEST(OpNode, NamesFollowPyTorch) {
  const Tensor x = leaf({2, 2}, {1, 2, 3, 4});
  const std::pair<const char*, Tensor> cases[] = {
      {"MulBackward0", x * x},
      {"ExpBackward0", exp(x)},
      {"SumBackward0", sum(x)},
      {"LogSoftmaxBackward0", log_softmax(x, 1)},
      {"IndexSelectBackward0", index_select(x, 0, longs({1}, {0}))},
      {"TransposeBackward0", transpose(x, 0, 1)},
  };
  for (const auto& [name, t] : cases) EXPECT_EQ(t.edge().node->name(), name);
}

TEST(OpNode, EdgesLeadToTheInputs) {
  const Tensor x = leaf({2}, {1, 2}), c = vector({3, 4});
  const Tensor y = x * c;
  const Node& node = *y.edge().node;
  ASSERT_EQ(node.next.size(), 2u);
  EXPECT_EQ(node.next[0].node.get(), x.edge().node.get());
  EXPECT_FALSE(node.next[1].node);
  ASSERT_EQ(node.outputs.size(), 1u);
  EXPECT_EQ(node.outputs[0].sizes, Dims{2});
}

// What a vjp reads stays alive, what it does not read is let go.
TEST(OpNode, SavesOnlyWhatTheDerivativeReads) {
  const auto held = [](const Tensor& t) { return t.storage()->use_count() > 1; };
  const Tensor x = leaf({2}, {1, 2});
  const Tensor a = x * 1.0, b = x * 1.0;
  const Tensor added = a + b;
  EXPECT_FALSE(held(a) || held(b) || held(added));
  const Tensor exponential = exp(a);
  EXPECT_TRUE(held(exponential));
  EXPECT_FALSE(held(a));
  const Tensor constant = vector({1, 2});
  const Tensor product = b * constant;  // d/db reads the constant, nothing reads b
  EXPECT_TRUE(held(constant));
  EXPECT_FALSE(held(b));
  const Tensor sine = sin(b);
  EXPECT_TRUE(held(b));
}

TEST(OpNode, ReleasedValuesAreGone) {
  const Tensor x = leaf({2}, {1, 2}), y = exp(x * 1.0), loss = sum(y);
  EXPECT_EQ(y.storage()->use_count(), 2u);
  backward({&loss, 1}, {}, {}, {});
  EXPECT_EQ(y.storage()->use_count(), 1u);
  try {
    backward({&loss, 1}, {}, {}, {});
    ADD_FAILURE() << "a second backward ran";
  } catch (const Error& e) {
    EXPECT_THAT(std::string(e.what()), HasSubstr("backward through the graph a second time"));
  }
}

TEST(OpNode, ANonDifferentiableOpHasNoNode) {
  const Tensor x = leaf({2}, {1, 2});
  EXPECT_FALSE(lt(x, x).requires_grad());
  EXPECT_FALSE(argmax(x).requires_grad());
  EXPECT_FALSE(isnan(x).requires_grad());
}

TEST(OpNode, IntegerOutputsGetNoGradient) {
  const Tensor x = leaf({3}, {2, 1, 3});
  const TensorList out = call_all("sort", {x});
  EXPECT_TRUE(out[0].requires_grad());
  EXPECT_FALSE(out[1].requires_grad());
}

// A fused op's own vjp against the derivative of the composite that defines it.
TEST(VjpByComposite, AgreesWithTheFusedRule) {
  const Tensor x = spread({3, 5}), w = spread({5}, 0.5, 1.5, 2);
  expect_gradients({{"rms_norm", {x, w}, {{"normalized_shape", "[5]"}}},
                    {"layer_norm", {x, w, spread({5}, -1, 1, 3)}, {{"normalized_shape", "[5]"}}},
                    {"cross_entropy", {x, longs({3}, {4, 0, 2})}}});
}

}  // namespace
}  // namespace deepseek
