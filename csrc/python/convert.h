// Data in and out: nested Python sequences, NumPy arrays and other libraries' tensors.
#pragma once

#include "python/python.h"

namespace deepseek::python {

// Something whose values lie in an array, NumPy's or another library's; not a class that has the attribute for its
// objects.
bool is_array(PyObject* o);
// A tensor on the memory of a tensor or an array where that can be, else a fresh one.
Tensor as_tensor(PyObject* data, Opt<DType> dtype);
// A tensor on the memory of a NumPy array.
Tensor from_numpy(PyObject* array);
// A NumPy array on the memory of a tensor. `force`: though it requires grad.
PyObject* to_numpy(const Tensor& t, bool force);
// Nested lists of numbers.
PyObject* to_list(const Tensor& t);

void bind_array_source(PyObject* m);

}  // namespace deepseek::python
