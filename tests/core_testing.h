// Helpers for tests of tensors and ops: tensors from values, ops called by name, tables of cases, derivatives against
// central differences.
#pragma once

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "autograd/engine.h"
#include "core/dispatch/inplace.h"
#include "gmock/gmock.h"
#include "kernels/loops/copy.h"
#include "ops/ops.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::testing {

inline std::vector<double> values_of(const Tensor& t) { return values_of(t.view()); }

inline Tensor tensor(const Dims& sizes, const std::vector<double>& values, DType dtype = DType::kFloat64) {
  const Tensor t = Tensor::empty(sizes, dtype);
  DS_CHECK(static_cast<int64_t>(values.size()) == t.numel(), "test: ", values.size(), " values for size ", sizes);
  std::vector<double> source = values;
  kernels::copy(t.view(), View{source.data(), DType::kFloat64, sizes, contiguous_strides(sizes)});
  return t;
}
inline Tensor vector(const std::vector<double>& values, DType dtype = DType::kFloat64) {
  return tensor({static_cast<int64_t>(values.size())}, values, dtype);
}
inline Tensor longs(const Dims& sizes, const std::vector<double>& values) {
  return tensor(sizes, values, DType::kInt64);
}
inline Tensor flags(const Dims& sizes, const std::vector<double>& values) {
  return tensor(sizes, values, DType::kBool);
}
inline Tensor leaf(const Dims& sizes, const std::vector<double>& values, DType dtype = DType::kFloat64) {
  return set_requires_grad(tensor(sizes, values, dtype));
}
// A float64 leaf of values spread evenly over [low, high] in a shuffled order, so no two are close to each other.
inline Tensor spread(const Dims& sizes, double low = -2, double high = 2, uint32_t seed = 1) {
  const int64_t n = numel_of(sizes);
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i)
    values.push_back(low + (high - low) * (static_cast<double>(i) + 0.37) / static_cast<double>(n));
  std::shuffle(values.begin(), values.end(), std::mt19937(seed));
  return leaf(sizes, values);
}

// --- ops by name, attributes as schema text

using Attributes = std::vector<std::pair<std::string, std::string>>;

inline void set_attribute(ArgType kind, void* field, const std::string& text) {
  if (kind != ArgType::kOptDType || text == "None") return set_default(kind, field, text);
  for (int i = 0; i < kNumDTypes; ++i)
    if (text == name_of(static_cast<DType>(i))) {
      *static_cast<Opt<DType>*>(field) = static_cast<DType>(i);
      return;
    }
  fail("test: no dtype is called ", text);
}

struct BoundOp {
  const OpDef* def;
  alignas(16) char attributes[kMaxOpBytes];
  TensorList in;
};

inline BoundOp bind_op(const std::string& name, const TensorList& in, const Attributes& given) {
  BoundOp bound{find_op(name), {}, in};
  DS_CHECK(bound.def, "test: no op is called ", name);
  bound.def->init(bound.attributes);
  size_t used = 0;
  bool list = false;
  for (const SchemaArg& a : bound.def->schema.args) {
    list |= a.kind == ArgType::kTensorList;
    if (a.kind <= ArgType::kDevice || a.slot < 0) continue;
    const auto found = std::find_if(given.begin(), given.end(), [&](const auto& g) { return g.first == a.name; });
    used += found != given.end();
    DS_CHECK(found != given.end() || a.has_default, "test: ", name, " needs '", a.name, "'");
    set_attribute(a.kind, bound.attributes + bound.def->fields[a.slot].offset,
                  found != given.end() ? found->second : a.default_text);
  }
  DS_CHECK(used == given.size(), "test: an attribute given to ", name, " is not in its schema");
  if (!list) bound.in.resize(bound.def->schema.num_inputs);  // optional tensors left out
  return bound;
}

inline TensorList call_all(const std::string& name, const TensorList& in, const Attributes& given = {}) {
  const BoundOp bound = bind_op(name, in, given);
  TensorList out;
  dispatch_op(*bound.def, bound.attributes, bound.in, out);
  return out;
}
inline Tensor call(const std::string& name, const TensorList& in, const Attributes& given = {}) {
  return call_all(name, in, given)[0];
}
// name_(in[0], ...)
inline void call_inplace(const std::string& name, const TensorList& in, const Attributes& given = {}) {
  const BoundOp bound = bind_op(name, in, given);
  dispatch_inplace(*bound.def, bound.attributes, bound.in);
}

// --- tables

struct ValueCase {
  std::string op;
  TensorList in;
  Attributes attributes;
  Dims sizes;
  std::vector<double> values;
  DType dtype = DType::kFloat64;
  size_t output = 0;
};

inline void expect_values(const std::vector<ValueCase>& cases) {
  size_t row = 0;
  for (const ValueCase& c : cases) {
    SCOPED_TRACE(c.op + ", row " + std::to_string(row++));
    try {
      const Tensor got = call_all(c.op, c.in, c.attributes)[c.output];
      EXPECT_EQ(got.sizes(), c.sizes);
      EXPECT_EQ(got.dtype(), c.dtype);
      expect_near(values_of(got), c.values, size_of(c.dtype) >= 8 ? 1e-12 : 1e-5, c.op);
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

struct ErrorCase {
  std::string op;
  TensorList in;
  Attributes attributes = {};
  std::string message;  // a part of it
};

// Each row raises E itself or a class derived from it.
template <class E = Error>
void expect_errors(const std::vector<ErrorCase>& cases) {
  for (const ErrorCase& c : cases) {
    SCOPED_TRACE(c.op);
    try {
      call_all(c.op, c.in, c.attributes);
      ADD_FAILURE() << "no error; expected '" << c.message << "'";
    } catch (const Error& e) {
      EXPECT_TRUE(dynamic_cast<const E*>(&e)) << "an error of another class";
      EXPECT_THAT(std::string(e.what()), ::testing::HasSubstr(c.message));
    }
  }
}

// --- derivatives

using Function = std::function<Tensor(const TensorList&)>;

inline Tensor fixed_weights(const Tensor& like) {
  std::vector<double> w;
  for (int64_t i = 0; i < like.numel(); ++i) w.push_back(0.3 + 0.17 * static_cast<double>(i % 7));
  return tensor(like.sizes(), w, like.dtype());
}

// d(sum of weights * f)/d(leaves) against central differences, and again for the derivative itself up to `order`.
inline void expect_gradients(const Function& f, const TensorList& leaves, const std::string& what, int order = 2,
                             double tolerance = 2e-6) {
  TensorList wanted;
  for (const Tensor& t : leaves)
    if (t.defined() && t.requires_grad()) wanted.push_back(t);
  const Tensor out = f(leaves);
  const Tensor weights = fixed_weights(out);
  TensorList analytic(wanted.size());
  if (out.requires_grad()) analytic = grad({&out, 1}, {&weights, 1}, wanted, {});
  const auto objective = [&] {
    const std::vector<double> y = values_of(f(leaves)), w = values_of(weights);
    double total = 0;
    for (size_t i = 0; i < y.size(); ++i) total += w[i] * y[i];
    return total;
  };
  for (size_t k = 0; k < wanted.size(); ++k) {
    double* p = wanted[k].data<double>();
    const std::vector<double> got =
        analytic[k].defined() ? values_of(analytic[k]) : std::vector<double>(static_cast<size_t>(wanted[k].numel()));
    ASSERT_EQ(static_cast<int64_t>(got.size()), wanted[k].numel()) << what;
    for (int64_t i = 0; i < wanted[k].numel(); ++i) {
      const double keep = p[i], step = 1e-5 * std::max(1.0, std::abs(keep));
      p[i] = keep + step;
      const double above = objective();
      p[i] = keep - step;
      const double below = objective();
      p[i] = keep;
      expect_near(got[static_cast<size_t>(i)], (above - below) / (2 * step), tolerance,
                  what + " input " + std::to_string(k) + " element " + std::to_string(i));
    }
  }
  if (order < 2) return;
  const Function derivative = [&](const TensorList& at) {
    TensorList inner;
    for (const Tensor& t : at)
      if (t.defined() && t.requires_grad()) inner.push_back(t);
    const Tensor y = f(at);
    Tensor total = zeros({}, DType::kFloat64);
    if (!y.requires_grad()) return total;
    const TensorList g = grad({&y, 1}, {&weights, 1}, inner, {.retain_graph = true, .create_graph = true});
    for (const Tensor& t : g)
      if (t.defined()) total = total + sum(t * fixed_weights(t));
    return total;
  };
  expect_gradients(derivative, leaves, what + " derivative", order - 1, 20 * tolerance);
}

struct GradientCase {
  std::string op;
  TensorList in;
  Attributes attributes = {};
  size_t output = 0;
  int order = 2;
};

inline void expect_gradients(const std::vector<GradientCase>& cases) {
  size_t row = 0;
  for (const GradientCase& c : cases) {
    SCOPED_TRACE(c.op + ", row " + std::to_string(row++));
    try {
      expect_gradients([&](const TensorList& in) { return call_all(c.op, in, c.attributes)[c.output]; }, c.in, c.op,
                       c.order);
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

}  // namespace deepseek::testing
