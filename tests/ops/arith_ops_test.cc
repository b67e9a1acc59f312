// ops/pointwise/arith.cc: arithmetic with alpha, clamping, masked and parametrised forms.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
const double kInf = INFINITY, kNan = NAN;

TEST(ArithOps, Values) {
  const Tensor a = vector({1, -2, 3}), b = vector({4, 5, -6}), i = longs({3}, {7, -7, 8}), j = longs({3}, {2, 2, -3});
  expect_values({
      {"add", {a, b}, {}, {3}, {5, 3, -3}},
      {"add", {a, b}, {{"alpha", "2"}}, {3}, {9, 8, -9}},
      {"add", {i, j}, {{"alpha", "-1"}}, {3}, {5, -9, 11}, DType::kInt64},
      {"sub", {a, b}, {{"alpha", "0.5"}}, {3}, {-1, -4.5, 6}},
      {"sub", {i, scalar(1.5)}, {}, {3}, {5.5, -8.5, 6.5}, DType::kFloat32},
      {"div", {i, j}, {}, {3}, {3.5, -3.5, -8.0 / 3}, DType::kFloat32},
      {"div.mode", {i, j}, {{"rounding_mode", "'floor'"}}, {3}, {3, -4, -3}, DType::kInt64},
      {"div.mode", {i, j}, {{"rounding_mode", "'trunc'"}}, {3}, {3, -3, -2}, DType::kInt64},
      {"div.mode", {a, b}, {{"rounding_mode", "None"}}, {3}, {0.25, -0.4, -0.5}},
      {"clamp", {a, scalar(-1), scalar(2)}, {}, {3}, {1, -1, 2}},
      {"clamp", {a, scalar(0)}, {}, {3}, {1, 0, 3}},
      {"clamp", {a, Tensor(), scalar(0)}, {}, {3}, {0, -2, 0}},
      {"clamp", {a, b, scalar(2)}, {}, {3}, {2, 2, 2}},
      {"clamp", {vector({kNan, 1}), scalar(0), scalar(2)}, {}, {2}, {kNan, 1}},
      {"masked_fill", {a, flags({3}, {1, 0, 1}), scalar(9)}, {}, {3}, {9, -2, 9}},
      {"masked_fill",
       {tensor({2, 2}, {1, 2, 3, 4}), flags({2}, {0, 1}), scalar(-kInf)},
       {},
       {2, 2},
       {1, -kInf, 3, -kInf}},
      {"addcmul", {a, b, b}, {{"value", "0.5"}}, {3}, {9, 10.5, 21}},
      {"addcdiv", {a, a, b}, {{"value", "2"}}, {3}, {1.5, -2.8, 2}},
      {"nan_to_num",
       {vector({kNan, kInf, -kInf, 1})},
       {},
       {4},
       {0, 1.7976931348623157e308, -1.7976931348623157e308, 1}},
      {"nan_to_num",
       {vector({kNan, kInf, -kInf, 1})},
       {{"nan", "7.0"}, {"posinf", "8.0"}, {"neginf", "9.0"}},
       {4},
       {7, 8, 9, 1}},
      {"leaky_relu", {a}, {{"negative_slope", "0.1"}}, {3}, {1, -0.2, 3}},
      {"elu", {vector({-1, 2})}, {{"alpha", "2.0"}}, {2}, {2 * std::expm1(-1), 2}},
      {"softplus", {vector({-1, 2, 30})}, {}, {3}, {std::log1p(std::exp(-1)), std::log1p(std::exp(2)), 30}},
      {"gelu", {vector({1.0})}, {}, {1}, {0.5 * (1 + std::erf(std::sqrt(0.5)))}},
      {"isclose",
       {vector({1, 1, kNan, kInf}), vector({1 + 1e-9, 1.1, kNan, kInf})},
       {},
       {4},
       {1, 0, 0, 1},
       DType::kBool},
      {"isclose", {vector({kNan}), vector({kNan})}, {{"equal_nan", "True"}}, {1}, {1}, DType::kBool},
  });
}

TEST(ArithOps, Gradients) {
  const Tensor a = spread({2, 3}), b = spread({3}, 1, 3, 2), n = spread({}, 0.5, 1.5, 3);
  expect_gradients({
      {"add", {a, b}, {{"alpha", "2"}}},
      {"sub", {a, n}, {{"alpha", "0.5"}}},
      {"mul", {a, b}},
      {"div", {a, b}},
      {"clamp", {a, scalar(-1.0), scalar(1.0)}},
      {"clamp", {a, Tensor(), b}},
      {"masked_fill", {a, flags({3}, {1, 0, 1}), scalar(1.0)}},
      {"addcmul", {a, b, n}, {{"value", "3"}}},
      {"addcdiv", {a, n, b}, {{"value", "3"}}},
      {"leaky_relu", {a}},
      {"elu", {a}, {{"alpha", "1.5"}}},
      {"softplus", {a}, {{"beta", "2.0"}}},
      {"gelu", {a}},
      {"gelu", {a}, {{"approximate", "'tanh'"}}},
      {"nan_to_num", {a}},
  });
}

TEST(ArithOps, Errors) {
  const Tensor a = vector({1, 2}), b = vector({1, 2, 3}), flag = flags({2}, {0, 1});
  expect_errors({
      {"add", {a, b}, {}, "The size of tensor a (2) must match the size of tensor b (3)"},
      {"sub", {flag, flag}, {}, "bool"},
      {"add", {longs({1}, {1}), longs({1}, {1})}, {{"alpha", "0.5"}}, "alpha"},
      {"div.mode", {a, a}, {{"rounding_mode", "'up'"}}, "rounding_mode"},
      {"clamp", {a}, {}, "At least one of"},
      {"masked_fill", {a, a, scalar(1)}, {}, "mask"},
      {"gelu", {a}, {{"approximate", "'fast'"}}, "approximate"},
  });
}

}  // namespace
}  // namespace deepseek
