// ops/reduce/reduce.cc: shapes, dtypes, values and derivatives of reductions.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
const double kInf = INFINITY, kNan = NAN;

TEST(ReduceOps, Values) {
  const Tensor x = tensor({2, 3}, {1, -2, 3, 4, 5, -6}), i = longs({2, 2}, {1, 2, 3, 4}), none = tensor({0, 3}, {});
  expect_values({
      {"sum", {x}, {}, {}, {5}},
      {"sum", {x}, {{"dim", "[0]"}}, {3}, {5, 3, -3}},
      {"sum", {x}, {{"dim", "[0, 1]"}, {"keepdim", "True"}}, {1, 1}, {5}},
      {"sum", {x}, {{"dim", "[]"}}, {}, {5}},
      {"sum", {flags({3}, {1, 0, 1})}, {}, {}, {2}, DType::kInt64},
      {"sum", {i}, {{"dtype", "float32"}}, {}, {10}, DType::kFloat32},
      {"sum", {none}, {{"dim", "[0]"}}, {3}, {0, 0, 0}},
      {"mean", {x}, {{"dim", "[-1]"}}, {2}, {2.0 / 3, 1}},
      {"mean", {none}, {}, {}, {kNan}},
      {"prod", {x}, {}, {}, {720}},
      {"prod.dim", {i}, {{"dim", "1"}}, {2}, {2, 12}, DType::kInt64},
      {"amax", {x}, {{"dim", "[1]"}}, {2}, {3, 5}},
      {"amin", {x}, {{"dim", "[0]"}}, {3}, {1, -2, -6}},
      {"max.dim", {x}, {{"dim", "1"}}, {2}, {3, 5}},
      {"max.dim", {x}, {{"dim", "1"}}, {2}, {2, 1}, DType::kInt64, 1},
      {"min.dim", {x}, {{"dim", "0"}, {"keepdim", "True"}}, {1, 3}, {1, -2, -6}},
      {"argmax", {x}, {}, {}, {4}, DType::kInt64},
      {"argmin", {x}, {{"dim", "1"}}, {2}, {1, 2}, DType::kInt64},
      {"max", {vector({1, kNan, 3})}, {}, {}, {kNan}},
      {"all", {x}, {}, {}, {1}, DType::kBool},
      {"any", {flags({2, 2}, {0, 1, 0, 0})}, {{"dim", "[1]"}}, {2}, {1, 0}, DType::kBool},
      {"var", {vector({1, 2, 4})}, {}, {}, {7.0 / 3}},
      {"var", {vector({1, 2, 4})}, {{"correction", "0"}}, {}, {14.0 / 9}},
      {"std", {vector({1, 2, 4})}, {}, {}, {std::sqrt(7.0 / 3)}},
      {"var", {vector({1})}, {}, {}, {kNan}},
      {"var_mean", {vector({1, 2, 6})}, {}, {}, {3}, DType::kFloat64, 1},
      {"norm", {vector({3, -4})}, {}, {}, {5}},
      {"norm", {vector({3, -4})}, {{"p", "1"}}, {}, {7}},
      {"logsumexp", {vector({0, 0, -kInf})}, {{"dim", "[0]"}}, {}, {std::log(2)}},
      {"sum_to_size", {tensor({2, 3}, {1, 2, 3, 4, 5, 6})}, {{"size", "[1, 3]"}}, {1, 3}, {5, 7, 9}},
      {"cumsum", {x}, {{"dim", "1"}}, {2, 3}, {1, -1, 2, 4, 9, 3}},
      {"cumprod", {i}, {{"dim", "0"}}, {2, 2}, {1, 2, 3, 8}, DType::kInt64},
  });
}

TEST(ReduceOps, Gradients) {
  const Tensor x = spread({2, 3, 2});
  for (const char* op : {"sum", "mean", "var", "std", "amax", "amin", "logsumexp", "_vector_norm"})
    for (const char* keepdim : {"False", "True"}) {
      expect_gradients(
          {{op, {x}, {{"dim", "[1]"}, {"keepdim", keepdim}}}, {op, {x}, {{"dim", "[0, 2]"}, {"keepdim", keepdim}}}});
      if (std::string(op) != "logsumexp" && std::string(op) != "amax" && std::string(op) != "amin")
        expect_gradients({{op, {x}}});
    }
  for (const char* op : {"max.dim", "min.dim", "cumsum", "cumprod", "prod.dim", "median.dim", "logcumsumexp"})
    expect_gradients({{op, {x}, {{"dim", "1"}}}});
  for (const char* op : {"max", "min", "prod", "norm", "median"}) expect_gradients({{op, {x}}});
  expect_gradients({{"prod", {leaf({3}, {0, 2, 3})}},
                    {"prod", {leaf({3}, {0, 0, 3})}},
                    {"cumprod", {leaf({3}, {2, 0, 3})}, {{"dim", "0"}}}});
}

TEST(ReduceOps, TiesShareTheGradient) {
  const Tensor x = leaf({4}, {3, 1, 3, 3}), y = amax(x, {0});
  expect_near(values_of(grad({&y, 1}, {}, {&x, 1}, {})[0]), {1.0 / 3, 0, 1.0 / 3, 1.0 / 3}, 1e-15, "ties");
}

TEST(ReduceOps, Errors) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6}), none = tensor({0}, {});
  expect_errors<IndexError>({
      {"sum", {x}, {{"dim", "[2]"}}, "Dimension out of range"},
      {"max.dim", {x}, {{"dim", "-3"}}, "Dimension out of range"},
  });
  expect_errors({
      {"sum", {x}, {{"dim", "[0, 0]"}}, "multiple times"},
      {"mean", {longs({2}, {1, 2})}, {}, "mean"},
      {"max", {none}, {}, "max"},
      {"argmax", {none}, {}, "argmax"},
  });
}

}  // namespace
}  // namespace deepseek
