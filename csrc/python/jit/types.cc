#include "python/jit/types.h"

namespace deepseek::python {

Owner owner_of(PyObject* module_name) {
  static PyObject* answers = checked(PyDict_New());
  static constinit Known ask{"deepseek.jit.guards", "owner"};
  if (!module_name || !PyUnicode_Check(module_name)) return Owner::kUser;
  PyObject* answer = PyDict_GetItem(answers, module_name);
  if (!answer) {
    checked(PyDict_SetItem(answers, module_name, call(ask.get(), module_name).get()));
    answer = PyDict_GetItem(answers, module_name);
  }
  return static_cast<Owner>(PyLong_AsLong(answer));
}

Owner owner_of(PyTypeObject* type) {
  static PyObject* name = checked(PyUnicode_InternFromString("__module__"));
  const Object module = Object::steal(PyObject_GetAttr(reinterpret_cast<PyObject*>(type), name));
  if (!module) PyErr_Clear();
  // Some types in C have no module.
  return module && PyUnicode_Check(module.get()) ? owner_of(module.get()) : Owner::kLibrary;
}

bool is_plain(PyObject* o) {
  return o == Py_None || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) || PyBool_Check(o) ||
         is_dtype(o) || PyBytes_CheckExact(o) || PyComplex_CheckExact(o) || o == Py_Ellipsis || o == Py_NotImplemented;
}

bool is_numpy_constant(PyObject* o) {
  static constinit Known ask{"deepseek.jit.guards", "is_numpy_constant"};
  return call(ask.get(), o).is(Py_True);
}

bool is_made_in_python(PyTypeObject* type) {
  return type->tp_flags & Py_TPFLAGS_HEAPTYPE && type->tp_dealloc == nn_module.type()->tp_dealloc;
}
PyTypeObject* base_in_c(PyTypeObject* type) {
  while (is_made_in_python(type)) type = type->tp_base;
  return type;
}

bool is_of_deepseek(PyTypeObject* type) {
  const Object module = get_attribute_or(reinterpret_cast<PyObject*>(type), "__module__", Py_None);
  return PyUnicode_Check(module.get()) && utf8(module.get()).starts_with("deepseek");
}

bool is_made_by_deepseek(PyTypeObject* type) { return std::string_view(type->tp_name).starts_with("deepseek."); }

Object dict_of(PyTypeObject* type) {
#if PY_VERSION_HEX >= 0x030C0000
  return Object::steal(PyType_GetDict(type));
#else
  return Object::borrow(type->tp_dict);
#endif
}

}  // namespace deepseek::python
