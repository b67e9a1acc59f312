// ops/create/create.cc: creation, fills and copies.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

TEST(CreateOps, Values) {
  const Tensor like = tensor({2, 2}, {1, 2, 3, 4}, DType::kFloat16);
  const auto f32 = DType::kFloat32;
  expect_values({
      {"zeros", {}, {{"size", "[2, 0]"}}, {2, 0}, {}, f32},
      {"ones", {}, {{"size", "[2]"}, {"dtype", "bool"}}, {2}, {1, 1}, DType::kBool},
      {"full", {}, {{"size", "[2]"}, {"fill_value", "7"}}, {2}, {7, 7}, DType::kInt64},
      {"full", {}, {{"size", "[]"}, {"fill_value", "0.5"}}, {}, {0.5}, f32},
      {"zeros_like", {like}, {}, {2, 2}, {0, 0, 0, 0}, DType::kFloat16},
      {"full_like", {like}, {{"fill_value", "3"}, {"dtype", "int32"}}, {2, 2}, {3, 3, 3, 3}, DType::kInt32},
      {"arange", {}, {{"end", "4"}}, {4}, {0, 1, 2, 3}, DType::kInt64},
      {"arange.start", {}, {{"start", "1"}, {"end", "2"}, {"step", "0.25"}}, {4}, {1, 1.25, 1.5, 1.75}, f32},
      {"arange.start", {}, {{"start", "5"}, {"end", "0"}, {"step", "-2"}}, {3}, {5, 3, 1}, DType::kInt64},
      {"linspace",
       {},
       {{"start", "0"}, {"end", "1"}, {"steps", "5"}, {"dtype", "float64"}},
       {5},
       {0, 0.25, 0.5, 0.75, 1}},
      {"linspace", {}, {{"start", "3"}, {"end", "9"}, {"steps", "1"}}, {1}, {3}, f32},
      {"eye", {}, {{"n", "2"}, {"m", "3"}}, {2, 3}, {1, 0, 0, 0, 1, 0}, f32},
      {"fill", {like, scalar(2.5)}, {}, {2, 2}, {2.5, 2.5, 2.5, 2.5}, DType::kFloat16},
      {"_to_dtype", {vector({1.9, -1.9})}, {{"dtype", "int8"}}, {2}, {1, -1}, DType::kInt8},
  });
}

TEST(CreateOps, CopiesKeepTheOrderOfDims) {
  const Tensor x = transpose(tensor({2, 3}, {1, 2, 3, 4, 5, 6}), 0, 1);
  EXPECT_EQ(clone(x).strides(), (Dims{1, 3}));
  EXPECT_EQ(to_dtype(x, DType::kFloat32).strides(), (Dims{1, 3}));
  EXPECT_EQ(contiguous(x).strides(), (Dims{2, 1}));
  EXPECT_EQ(values_of(contiguous(x)), values_of(x));
  EXPECT_NE(clone(x).storage().get(), x.storage().get());
  const Tensor plain = vector({1});
  EXPECT_TRUE(contiguous(plain).is(plain));
  EXPECT_TRUE(to_dtype(plain, DType::kFloat64).is(plain));
}

TEST(CreateOps, Gradients) {
  const Tensor x = spread({2, 3});
  expect_gradients(
      {{"clone", {x}}, {"fill", {x, spread({}, 0, 1)}}, {"zero", {x}}, {"_to_dtype", {x}, {{"dtype", "float64"}}}});
  expect_gradients([](const TensorList& in) { return contiguous(transpose(in[0], 0, 1)); }, {x}, "contiguous");
  const Tensor y = detach(x);
  EXPECT_FALSE(y.requires_grad());
  EXPECT_EQ(y.storage().get(), x.storage().get());
}

TEST(CreateOps, Errors) {
  expect_errors({
      {"zeros", {}, {{"size", "[-1]"}}, "negative"},
      {"arange.start", {}, {{"start", "0"}, {"end", "3"}, {"step", "0"}}, "step must be nonzero"},
      {"arange.start", {}, {{"start", "0"}, {"end", "-3"}, {"step", "1"}}, "inconsistent with step sign"},
      {"linspace", {}, {{"start", "0"}, {"end", "1"}, {"steps", "-1"}}, "number of steps must be non-negative"},
      {"eye", {}, {{"n", "-1"}}, "n must be greater or equal to 0"},
      {"fill", {vector({1}), vector({1})}, {}, "0-dimension value tensor"},
  });
}

}  // namespace
}  // namespace deepseek
