// pybind11's functions and types, guarded too. Its dispatcher builds the text of a refusal outside of its own try
// block, and its __new__ has none: an argument's name that is no UTF-8, or copyreg, would end the process.
#include "python/slots.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;
using py::detail::pybind11_meta_call;
using py::detail::pybind11_object_new;

struct Bound : py::cpp_function {
  static PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
    return dispatcher(self, args, static_cast<size_t>(n), names);
  }
  static bool owns(const PyMethodDef& d) { return d.ml_meth == as_method(dispatcher); }
  static void guard(PyMethodDef& d) { d.ml_meth = as_method(Guarded<&Bound::call>::call); }

 private:
  template <class F>
  static PyCFunction as_method(F* f) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
  }
};

void guard_all_in(py::handle names);

void guard(py::handle o) {
  if (PyInstanceMethod_Check(o.ptr())) {
    guard(PyInstanceMethod_GET_FUNCTION(o.ptr()));
  } else if (PyCFunction_Check(o.ptr())) {
    PyMethodDef& d = *reinterpret_cast<PyCFunctionObject*>(o.ptr())->m_ml;
    if (Bound::owns(d)) Bound::guard(d);
  } else if (Py_TYPE(o.ptr()) == &PyStaticMethod_Type) {
    guard(o.attr("__func__"));
  } else if (PyObject_TypeCheck(o.ptr(), &PyProperty_Type)) {
    guard(o.attr("fget"));
    guard(o.attr("fset"));
  } else if ((PyType_Check(o.ptr()) && py::hasattr(o, "_pybind11_conduit_v1_")) || PyModule_Check(o.ptr())) {
    guard_all_in(o.attr("__dict__"));
  }
}

void guard_all_in(py::handle names) {
  for (const auto& [name, value] : py::dict(names.attr("copy")())) guard(value);
}

}  // namespace

void guard_bound_types() {
  auto* object = reinterpret_cast<PyTypeObject*>(py::detail::get_internals().instance_base);
  object->tp_new = &Guarded<&pybind11_object_new>::call;
  py::detail::get_internals().default_metaclass->tp_call = &Guarded<&pybind11_meta_call>::call;
}

void guard_bound_functions(py::module_& m) { guard_all_in(m.attr("__dict__")); }

}  // namespace deepseek::python
