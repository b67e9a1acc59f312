// Python functions that run for real on every replay, such as an optimizer's step.
#pragma once

#include "jit/graph.h"
#include "python/jit/tree.h"

namespace deepseek::python {

class PythonCall final : public jit::HostCall {
 public:
  PythonCall(PyObject* function, Tree args, Tree kwargs);
  ~PythonCall() override;
  std::string name() const override;
  TensorList call(Inputs in) override;
  int traverse(visitproc visit, void* arg) const;

 private:
  Object function_;
  Tree args_, kwargs_;
  bool autocast_;  // as when it was first called
  DType autocast_dtype_;
};

// _jit_host(function, args, kwargs): calls function(*args, **kwargs) now, unrecorded, and again on every replay.
PyObject* jit_host(PyObject* function, PyObject* args, PyObject* kwargs);

}  // namespace deepseek::python
