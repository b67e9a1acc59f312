// What binding with pybind11 takes, for the files of this folder alone, which are few: its header costs each of them
// several seconds. pytests/test_layering.py sees to it.
#pragma once

#include <pybind11/pybind11.h>

#include "python/python.h"

namespace pybind11::detail {

// Bound functions may take and return Tensor, and our own references to objects.
template <>
struct type_caster<deepseek::Tensor> {
  PYBIND11_TYPE_CASTER(deepseek::Tensor, const_name("Tensor"));
  bool load(handle src, bool) {
    if (src.is_none()) {
      value = deepseek::Tensor();
      return true;
    }
    if (!deepseek::python::is_tensor(src.ptr())) return false;
    value = deepseek::python::unwrap(src.ptr());
    return true;
  }
  static handle cast(const deepseek::Tensor& t, return_value_policy, handle) { return deepseek::python::wrap(t); }
};

template <>
struct type_caster<deepseek::python::Object> {
  PYBIND11_TYPE_CASTER(deepseek::python::Object, const_name("object"));
  bool load(handle src, bool) {
    value = deepseek::python::Object::borrow(src.ptr());
    return true;
  }
  static handle cast(deepseek::python::Object o, return_value_policy, handle) { return o.release(); }
};

}  // namespace pybind11::detail
