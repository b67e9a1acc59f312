// ops/nn/rows.cc, ops/matmul/matmul.cc and ops/nn/rope.cc: softmax, norms, products, rotary embeddings.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
const double kInf = INFINITY;

TEST(RowOps, Values) {
  const double e = std::exp(1.0), third = std::sqrt(14.0 / 3 + 1e-5);
  const Tensor x = vector({1, 2, 3});
  expect_values({
      {"softmax", {vector({0, 1})}, {{"dim", "0"}}, {2}, {1 / (1 + e), e / (1 + e)}},
      {"softmax", {tensor({2, 2}, {5, -kInf, 5, 5})}, {{"dim", "-1"}}, {2, 2}, {1, 0, 0.5, 0.5}},
      {"log_softmax", {vector({0, 0})}, {{"dim", "0"}}, {2}, {-std::log(2), -std::log(2)}},
      {"layer_norm", {x}, {{"normalized_shape", "[3]"}, {"eps", "0.0"}}, {3}, {-std::sqrt(1.5), 0, std::sqrt(1.5)}},
      {"layer_norm",
       {x, vector({1, 2, 2}), vector({0, 1, 0})},
       {{"normalized_shape", "[3]"}, {"eps", "0.0"}},
       {3},
       {-std::sqrt(1.5), 1, 2 * std::sqrt(1.5)}},
      {"rms_norm", {x}, {{"normalized_shape", "[3]"}, {"eps", "1e-05"}}, {3}, {1 / third, 2 / third, 3 / third}},
  });
}

TEST(RowOps, Gradients) {
  const Tensor x = spread({2, 3, 4}), w = spread({4}, 0.5, 1.5, 2), b = spread({4}, -1, 1, 3);
  for (const char* dim : {"0", "1", "2"})
    expect_gradients({{"softmax", {x}, {{"dim", dim}}}, {"log_softmax", {x}, {{"dim", dim}}}});
  expect_gradients({
      {"layer_norm", {x, w, b}, {{"normalized_shape", "[4]"}}},
      {"layer_norm", {x}, {{"normalized_shape", "[3, 4]"}}},
      {"rms_norm", {x, w}, {{"normalized_shape", "[4]"}}},
      {"rms_norm", {x}, {{"normalized_shape", "[3, 4]"}}},
  });
}

TEST(MatmulOps, Values) {
  const Tensor a = tensor({2, 3}, {1, 2, 3, 4, 5, 6}), b = tensor({3, 2}, {1, 0, 0, 1, 1, 1}), v = vector({1, 2, 3});
  expect_values({
      {"matmul", {a, b}, {}, {2, 2}, {4, 5, 10, 11}},
      {"matmul", {a, v}, {}, {2}, {14, 32}},
      {"matmul", {v, b}, {}, {2}, {4, 5}},
      {"matmul", {v, v}, {}, {}, {14}},
      {"matmul", {expand(a, {2, 2, 3}), unsqueeze(b, 0)}, {}, {2, 2, 2}, {4, 5, 10, 11, 4, 5, 10, 11}},
      {"matmul", {tensor({2, 0}, {}), tensor({0, 2}, {})}, {}, {2, 2}, {0, 0, 0, 0}},
      {"matmul", {longs({1, 2}, {3, 4}), longs({2, 1}, {5, 6})}, {}, {1, 1}, {39}, DType::kInt64},
      {"linear", {a, tensor({1, 3}, {1, 1, 1}), vector({10})}, {}, {2, 1}, {16, 25}},
      {"addmm", {vector({1, 2}), a, b}, {{"beta", "2"}, {"alpha", "3"}}, {2, 2}, {14, 19, 32, 37}},
      {"outer", {vector({1, 2}), v}, {}, {2, 3}, {1, 2, 3, 2, 4, 6}},
      {"dot", {v, v}, {}, {}, {14}},
      {"mv", {a, v}, {}, {2}, {14, 32}},
  });
}

TEST(MatmulOps, Gradients) {
  const Tensor a = spread({2, 3}), b = spread({3, 2}, -1, 1, 2), batch = spread({2, 2, 3}, -1, 1, 3),
               v = spread({3}, -1, 1, 4);
  expect_gradients({
      {"matmul", {a, b}},
      {"matmul", {a, v}},
      {"matmul", {v, b}},
      {"matmul", {v, v}},
      {"matmul", {batch, b}},
      {"matmul", {spread({2, 1, 2, 3}, -1, 1, 5), spread({2, 3, 1}, -1, 1, 6)}},
      {"linear", {batch, a, spread({2}, -1, 1, 7)}},
      {"bmm", {batch, spread({2, 3, 1}, -1, 1, 8)}},
      {"addmm", {spread({2}, -1, 1, 9), a, b}, {{"beta", "2"}, {"alpha", "3"}}},
      {"outer", {v, spread({2}, -1, 1, 10)}},
  });
}

TEST(RopeOps, RotatesPairs) {
  const Tensor x = tensor({1, 4}, {1, 2, 3, 4}), cos = tensor({1, 2}, {0, 1}), sin = tensor({1, 2}, {1, 0});
  expect_values({
      {"rope", {x, cos, sin}, {}, {1, 4}, {-3, 2, 1, 4}},
      {"rope", {x, cos, sin}, {{"interleaved", "True"}}, {1, 4}, {-2, 1, 3, 4}},
  });
  for (const char* interleaved : {"False", "True"})
    expect_gradients({{"rope",
                       {spread({2, 3, 4}), detach(spread({3, 2})), detach(spread({3, 2}, -1, 1, 2))},
                       {{"interleaved", interleaved}}}});
}

TEST(RowOps, Errors) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  expect_errors({
      {"softmax", {x}, {{"dim", "2"}}, "Dimension out of range"},
      {"softmax", {longs({1}, {1})}, {{"dim", "0"}}, "softmax"},
      {"layer_norm", {x}, {{"normalized_shape", "[2]"}}, "normalized_shape"},
      {"layer_norm", {x, vector({1, 2})}, {{"normalized_shape", "[3]"}}, "weight"},
      {"rms_norm", {x}, {{"normalized_shape", "[2]"}}, "normalized_shape"},
      {"matmul", {x, x}, {}, "mat1 and mat2 shapes cannot be multiplied"},
      {"matmul", {x, scalar(1)}, {}, "at least 1D"},
      {"matmul", {x, tensor({3, 1}, {1, 2, 3}, DType::kFloat32)}, {}, "same dtype"},
      {"rope", {x, tensor({2, 1}, {1, 1}), tensor({2, 1}, {1, 1})}, {}, "rope"},
  });
}

}  // namespace
}  // namespace deepseek
