// The arguments of a call from Python, parsed into an op's bytes by its schema.
#pragma once

#include <vector>

#include "python/subclass.h"

namespace deepseek::python {

// Parsed arguments of one overload.
struct Call {
  const OpDef* def;
  TensorList inputs;
  uint64_t borrowed = 0;  // bit i: inputs[i] belongs to the caller's object
  Subclasses subclasses;
  alignas(16) char op[kMaxOpBytes];
  bool requires_grad = false;
  bool list_result = false;
  PyObject* out = nullptr;
  Generator* generator = nullptr;

  Call() = default;
  Call(const Call&) = delete;
  ~Call() { clear_inputs(); }
  void clear_inputs() {
    for (size_t i = 0; borrowed >> i; ++i)
      if (borrowed >> i & 1) inputs[i].forget();
    borrowed = 0;
    inputs.clear();
    subclasses = {};
  }
  void add_input(PyObject* tensor) {
    subclasses.see(tensor);
    if (inputs.size() >= 63) return inputs.push_back(unwrap(tensor));
    borrowed |= uint64_t{1} << inputs.size();
    inputs.push_back(Tensor::borrow(reinterpret_cast<TensorObject*>(tensor)->cell));
  }
};

// What messages call an object given for a tensor: its type, and of other libraries' tensors the way here too.
std::string given_for_tensor(PyObject* o);

// Parses the arguments by the first overload that takes them; TypeError with what each had against them when none does.
// `inplace` matters to the name that such a text has for the op.
void select_overload(const std::vector<const OpDef*>& overloads, bool inplace, PyObject* const* args, Py_ssize_t nargs,
                     PyObject* kwnames, Call& call);

}  // namespace deepseek::python
