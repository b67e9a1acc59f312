// Which class an op's results have when its arguments are objects of Tensor's subclasses, as in PyTorch: theirs, unless
// the class says with __torch_function__ that it wants plain tensors (Parameter) or runs the op itself (a hook).
#pragma once

#include "python/python.h"

namespace deepseek::python {

// Those among a call's arguments.
class Subclasses {
 public:
  void see(PyObject* tensor) {
    if (!is_exact_tensor(tensor)) [[unlikely]]
      see_type(Py_TYPE(tensor));
  }
  bool hooked() const { return hooked_; }
  // Of two classes the one derived from the other; TypeError when neither is.
  PyTypeObject* result() const {
    if (unrelated_) [[unlikely]]
      refuse();
    return type_ ? type_ : tensor_type;
  }

 private:
  void see_type(PyTypeObject* type);
  [[noreturn]] void refuse() const;

  PyTypeObject* type_ = nullptr;
  PyTypeObject* unrelated_ = nullptr;
  bool hooked_ = false;
};

inline PyTypeObject* result_class(PyObject* tensor) {
  Subclasses seen;
  seen.see(tensor);
  return seen.result();
}

// Between these ops take objects of subclasses for plain tensors, in this thread.
void disable_subclasses();
void enable_subclasses();

// function(*args, **keywords) by the arguments' __torch_function__.
PyObject* call_hooks(PyObject* function, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames);
// The same of a method of Tensor, such as "__add__", with one argument or two.
PyObject* call_hooks(const char* method, PyObject* self, PyObject* other);

}  // namespace deepseek::python
