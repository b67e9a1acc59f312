#include "ops/pointwise/activation.h"

#include "base/text.h"
#include "ops/pointwise/pointwise.h"

namespace deepseek {

using kernels::Activation;
using kernels::kActivations;

const Activation* find_activation(const char* op, const Str& name) {
  if (name == "none") return nullptr;
  std::vector<std::string> names{"'none'"};
  for (const Activation& a : kActivations) {
    if (name.view() == a.name) return &a;
    names.push_back("'" + std::string(a.name) + "'");
  }
  fail<ValueError>(op, ": activation must be ", either(names), ", got '", name.view(), "'");
}

const Activation* activation_of(const OpDef& def) {
  for (const Activation& a : kActivations)
    if (&pointwise_op(a.op) == &def) return &a;
  return nullptr;
}

Tensor activated(const Activation* a, const Tensor& x) {
  if (!a) return x;
  const BorrowedInputs<1> inputs(x);
  const char no_attributes = 0;
  TensorList out;
  dispatch_op(pointwise_op(a->op), &no_attributes, inputs, out);
  return std::move(out[0]);
}

}  // namespace deepseek
