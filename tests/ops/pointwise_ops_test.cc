// ops/pointwise/pointwise.cc: dtype and shape rules, and the derivative of every entry of
// kernels/pointwise/pointwise.def.
#include <map>

#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

// Where a function is smooth: the range its inputs are drawn from. Everything else uses [-1.5, 1.5].
const std::map<std::string, std::pair<double, double>> kDomains = {
    {"log", {0.3, 3}},
    {"log2", {0.3, 3}},
    {"log10", {0.3, 3}},
    {"log1p", {-0.6, 2}},
    {"sqrt", {0.3, 3}},
    {"rsqrt", {0.3, 3}},
    {"reciprocal", {0.3, 3}},
    {"asin", {-0.8, 0.8}},
    {"acos", {-0.8, 0.8}},
    {"atanh", {-0.8, 0.8}},
    {"acosh", {1.3, 3}},
    {"div", {0.5, 2}},
    {"pow", {0.5, 2}},
    {"floor_divide", {0.55, 1.95}},
    {"remainder", {0.55, 1.95}},
    {"fmod", {0.55, 1.95}},
    {"_div_trunc", {0.55, 1.95}},
    {"_sigmoid_backward", {0.1, 0.9}},
    {"_tanh_backward", {-0.9, 0.9}},
    {"atan2", {0.3, 2}},
    {"hypot", {0.3, 2}},
    {"_softplus", {0.5, 2}},
    {"lerp", {-1, 1.3}},
};

TEST(PointwiseOps, EveryDerivativeTwice) {
  int checked = 0;
  for (const OpDef* def : op_table()) {
    const bool pointwise = def->info->elementwise && def->fields.empty() && !def->info->random;
    if (!pointwise || !def->info->differentiable || def->schema.base.starts_with("_test")) continue;
    const std::string name = def->schema.name;
    if (name == "where" || name == "fill") continue;  // below and in create_ops_test
    const auto domain = kDomains.contains(name) ? kDomains.at(name) : std::pair{-1.5, 1.5};
    TensorList in;
    for (int k = 0; k < def->schema.num_inputs; ++k) {
      in.push_back(
          spread(k == 1 ? Dims{3} : Dims{2, 3}, domain.first + 0.013 * k, domain.second, static_cast<uint32_t>(k + 1)));
      // Parameters of activations are constants.
      if (k > 0 && (name == "_leaky_relu" || name == "_elu" || name == "_softplus" || name == "copysign"))
        in.back() = detach(in.back());
    }
    expect_gradients({{name, in}});
    ++checked;
  }
  EXPECT_GT(checked, 60);
  expect_gradients({{"where", {flags({3}, {1, 0, 1}), spread({2, 3}), spread({}, 0, 1)}}});
}

TEST(PointwiseOps, ResultDTypes) {
  const Tensor i = longs({2}, {1, 2}), b = flags({2}, {1, 0}), h = vector({1, 2}, DType::kFloat16),
               u = vector({1, 2}, DType::kUInt8);
  const struct {
    const char* op;
    TensorList in;
    DType expected;
  } cases[] = {
      {"exp", {i}, DType::kFloat32},          {"exp", {h}, DType::kFloat16},      {"exp", {b}, DType::kFloat32},
      {"div", {i, i}, DType::kFloat32},       {"mul", {i, h}, DType::kFloat16},   {"mul", {u, i}, DType::kInt64},
      {"mul", {b, b}, DType::kBool},          {"lt", {h, i}, DType::kBool},       {"logical_and", {h, i}, DType::kBool},
      {"bitwise_and", {u, i}, DType::kInt64}, {"bitwise_not", {b}, DType::kBool}, {"floor", {i}, DType::kInt64},
      {"where", {b, i, h}, DType::kFloat16},  {"isnan", {i}, DType::kBool},       {"neg", {u}, DType::kUInt8},
  };
  for (const auto& c : cases) EXPECT_EQ(call(c.op, c.in).dtype(), c.expected) << c.op;
}

TEST(PointwiseOps, NarrowIntegersWrap) {
  const Tensor u = vector({200, 0}, DType::kUInt8), s = vector({-128, 100}, DType::kInt8);
  expect_values({
      {"mul", {u, u}, {}, {2}, {64, 0}, DType::kUInt8},
      {"neg", {u}, {}, {2}, {56, 0}, DType::kUInt8},
      {"neg", {s}, {}, {2}, {-128, -100}, DType::kInt8},
      {"abs", {s}, {}, {2}, {-128, 100}, DType::kInt8},
      {"bitwise_not", {flags({2}, {1, 0})}, {}, {2}, {0, 1}, DType::kBool},
      {"mul", {flags({2}, {1, 0}), flags({2}, {1, 1})}, {}, {2}, {1, 0}, DType::kBool},
  });
}

TEST(PointwiseOps, BroadcastingAndEmptyInputs) {
  expect_values({
      {"mul", {tensor({2, 1}, {2, 3}), vector({1, 10})}, {}, {2, 2}, {2, 20, 3, 30}},
      {"exp", {tensor({0, 3}, {})}, {}, {0, 3}, {}},
      {"add", {tensor({0}, {}), scalar(1)}, {}, {0}, {}},
      {"where", {flags({2, 1}, {1, 0}), scalar(1.0), vector({5, 6})}, {}, {2, 2}, {1, 1, 5, 6}},
  });
}

TEST(PointwiseOps, WhatADTypeCannotDo) {
  const Tensor f = vector({1}), b = flags({1}, {1}), i = longs({1}, {1}), f8 = vector({1}, DType::kFloat8E4M3);
  expect_errors({
      {"neg", {b}, {}, "Negation, the `-` operator, on a bool tensor is not supported"},
      {"where", {i, f, f}, {}, "where expected condition to be a boolean tensor"},
      {"add", {vector({1, 2}), vector({1, 2, 3})}, {}, "must match"},
  });
  expect_errors<NotImplementedError>({
      {"bitwise_and", {f, f}, {}, "\"bitwise_and\" not implemented for"},
      {"bitwise_left_shift", {b, b}, {}, "\"bitwise_left_shift\" not implemented for"},
      {"frac", {i}, {}, "\"frac\" not implemented for"},
      {"floor", {b}, {}, "\"floor\" not implemented for"},
      {"exp", {f8}, {}, "float8"},
  });
}

}  // namespace
}  // namespace deepseek
