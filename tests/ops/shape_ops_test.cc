// ops/shape/shape.cc: joining, repeating, reordering, triangles.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

TEST(ShapeOps, Values) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6}), v = vector({1, 2, 3});
  expect_values({
      {"cat", {x, x}, {}, {4, 3}, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}},
      {"cat", {x, tensor({2, 1}, {7, 8})}, {{"dim", "1"}}, {2, 4}, {1, 2, 3, 7, 4, 5, 6, 8}},
      {"cat", {longs({1}, {1}), vector({0.5}, DType::kFloat32)}, {}, {2}, {1, 0.5}, DType::kFloat32},
      {"stack", {v, v}, {{"dim", "-1"}}, {3, 2}, {1, 1, 2, 2, 3, 3}},
      {"flip", {x}, {{"dims", "[0, 1]"}}, {2, 3}, {6, 5, 4, 3, 2, 1}},
      {"chunk", {v}, {{"chunks", "2"}}, {1}, {3}, DType::kFloat64, 1},
      {"narrow", {x}, {{"dim", "1"}, {"start", "1"}, {"length", "2"}}, {2, 2}, {2, 3, 5, 6}},
      {"flatten", {tensor({1, 2, 3}, {1, 2, 3, 4, 5, 6})}, {{"start_dim", "1"}}, {1, 6}, {1, 2, 3, 4, 5, 6}},
      {"unflatten", {vector({1, 2, 3, 4})}, {{"dim", "0"}, {"sizes", "[2, -1]"}}, {2, 2}, {1, 2, 3, 4}},
      {"broadcast_to", {v}, {{"size", "[2, 3]"}}, {2, 3}, {1, 2, 3, 1, 2, 3}},
      {"t", {x}, {}, {3, 2}, {1, 4, 2, 5, 3, 6}},
      {"movedim", {x}, {{"source", "[0]"}, {"destination", "[1]"}}, {3, 2}, {1, 4, 2, 5, 3, 6}},
      {"roll", {v}, {{"shifts", "[1]"}}, {3}, {3, 1, 2}},
      {"roll", {x}, {{"shifts", "[1, -1]"}, {"dims", "[0, 1]"}}, {2, 3}, {5, 6, 4, 2, 3, 1}},
      {"repeat", {v}, {{"repeats", "[2, 2]"}}, {2, 6}, {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}},
      {"tile", {vector({1, 2})}, {{"dims", "[2]"}}, {4}, {1, 2, 1, 2}},
      {"repeat_interleave", {vector({1, 2})}, {{"repeats", "2"}}, {4}, {1, 1, 2, 2}},
      {"repeat_interleave", {x}, {{"repeats", "2"}, {"dim", "0"}}, {4, 3}, {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6}},
      {"tril", {x}, {}, {2, 3}, {1, 0, 0, 4, 5, 0}},
      {"triu", {x}, {{"diagonal", "1"}}, {2, 3}, {0, 2, 3, 0, 0, 6}},
      {"type_as", {v, longs({1}, {1})}, {}, {3}, {1, 2, 3}, DType::kInt64},
  });
}

TEST(ShapeOps, Gradients) {
  const Tensor x = spread({2, 3}), y = spread({2, 3}, -1, 1, 2);
  expect_gradients({
      {"cat", {x, y, x}, {{"dim", "1"}}},
      {"stack", {x, y}, {{"dim", "1"}}},
      {"flip", {x}, {{"dims", "[1]"}}},
      {"chunk", {x}, {{"chunks", "2"}, {"dim", "1"}}, 1},
      {"roll", {x}, {{"shifts", "[1]"}}},
      {"repeat", {x}, {{"repeats", "[2, 1, 2]"}}},
      {"repeat_interleave", {x}, {{"repeats", "2"}, {"dim", "1"}}},
      {"tril", {x}},
      {"movedim", {x}, {{"source", "[0]"}, {"destination", "[1]"}}},
      {"as_strided", {x}, {{"size", "[2, 2]"}, {"stride", "[1, 2]"}}},
  });
}

TEST(ShapeOps, Errors) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  expect_errors({
      {"cat", {x, tensor({2, 2}, {1, 2, 3, 4})}, {}, "Sizes of tensors must match except in dimension 0"},
      {"cat", {}, {}, "expected a non-empty list"},
      {"stack", {x, vector({1})}, {}, "stack expects each tensor to be equal size"},
      {"chunk", {x}, {{"chunks", "0"}}, "chunk"},
      {"narrow", {x}, {{"dim", "1"}, {"start", "2"}, {"length", "2"}}, "exceeds dimension size"},
      {"unflatten", {x}, {{"dim", "1"}, {"sizes", "[2, 2]"}}, "unflatten"},
      {"t", {tensor({1, 1, 1}, {1})}, {}, "t() expects a tensor with <= 2 dimensions"},
      {"repeat", {x}, {{"repeats", "[2]"}}, "can not be smaller than number of dimensions of tensor"},
  });
}

}  // namespace
}  // namespace deepseek
