// ops/moe/moe.cc against a loop over tokens and their experts.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

struct Layer {
  Tensor x, gate, up, down, ids, weights;
  TensorList inputs() const { return {x, gate, up, down, ids, weights}; }
};

// Five tokens, three experts of which one is never chosen.
Layer layer() {
  return {spread({5, 2}),
          spread({3, 4, 2}, -1, 1, 2),
          spread({3, 4, 2}, -1, 1, 3),
          spread({3, 2, 4}, -1, 1, 4),
          longs({5, 2}, {0, 2, 2, 0, 0, 0, 2, 2, 0, 2}),
          spread({5, 2}, 0.1, 0.9, 5)};
}

TEST(MoeOps, AgainstOneTokenAtATime) {
  const Layer l = layer();
  const std::vector<double> ids = values_of(l.ids);
  TensorList rows;
  for (int64_t t = 0; t < 5; ++t) {
    const Tensor token = select(l.x, 0, t);
    Tensor sum = zeros({2}, DType::kFloat64);
    for (int64_t k = 0; k < 2; ++k) {
      const auto e = static_cast<int64_t>(ids[static_cast<size_t>(t * 2 + k)]);
      const Tensor hidden = silu(matmul(select(l.gate, 0, e), token)) * matmul(select(l.up, 0, e), token);
      sum = sum + matmul(select(l.down, 0, e), hidden) * select(select(l.weights, 0, t), 0, k);
    }
    rows.push_back(sum);
  }
  expect_near(values_of(call("moe", l.inputs())), values_of(stack(rows, 0)), 1e-13, "moe");
}

TEST(MoeOps, Gradients) { expect_gradients({{"moe", layer().inputs(), {}, 0, 1}}); }

TEST(MoeOps, NoTokens) {
  const Layer l = layer();
  const Tensor none = call(
      "moe", {zeros({0, 2}, DType::kFloat64), l.gate, l.up, l.down, longs({0, 2}, {}), zeros({0, 2}, DType::kFloat64)});
  EXPECT_EQ(none.sizes(), (Dims{0, 2}));
}

TEST(MoeOps, Errors) {
  const Layer l = layer();
  expect_errors({
      {"moe", {vector({1, 2}), l.gate, l.up, l.down, l.ids, l.weights}, {}, "input must be [tokens, features]"},
      {"moe", {l.x, l.gate, l.up, l.up, l.ids, l.weights}, {}, "gate and up must be [E, F, D]"},
      {"moe", {l.x, l.gate, l.up, l.down, l.ids, select(l.weights, 1, 0)}, {}, "topk_weights must be [T, K]"},
  });
  expect_errors<IndexError>({{"moe",
                              {l.x, l.gate, l.up, l.down, longs({5, 2}, std::vector<double>(10, 3)), l.weights},
                              {},
                              "expert index 3 is out of range"}});
}

}  // namespace
}  // namespace deepseek
