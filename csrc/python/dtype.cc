// deepseek.dtype (one object a type), deepseek.Size, Python numbers, and exceptions.
#include "python/python.h"

namespace deepseek::python {
namespace {

struct DTypeObject {
  PyObject_HEAD DType value;
};
PyTypeObject* dtype_type = nullptr;
PyTypeObject* size_type = nullptr;
PyObject* dtype_objects[kNumDTypes] = {};
PyObject* load_error = nullptr;

DType value_of(PyObject* o) { return reinterpret_cast<DTypeObject*>(o)->value; }

PyObject* dtype_repr(PyObject* self) { return PyUnicode_FromFormat("deepseek.%s", name_of(value_of(self))); }
PyObject* dtype_reduce(PyObject* self, PyObject*) { return PyUnicode_FromString(name_of(value_of(self))); }
PyObject* dtype_itemsize(PyObject* self, void*) { return PyLong_FromLongLong(size_of(value_of(self))); }
PyObject* dtype_is_floating(PyObject* self, void*) { return PyBool_FromLong(is_floating(value_of(self))); }
PyObject* dtype_is_complex(PyObject*, void*) { Py_RETURN_FALSE; }
PyObject* dtype_is_signed(PyObject* self, void*) {
  return PyBool_FromLong(value_of(self) != DType::kBool && value_of(self) != DType::kUInt8);
}
PyObject* dtype_name(PyObject* self, void*) { return PyUnicode_FromString(name_of(value_of(self))); }

PyGetSetDef dtype_getters[] = {
    {"itemsize", dtype_itemsize, nullptr, "Bytes an element.", nullptr},
    {"is_floating_point", dtype_is_floating, nullptr, "True for floating dtypes.", nullptr},
    {"is_complex", dtype_is_complex, nullptr, "Always False: there are no complex dtypes.", nullptr},
    {"is_signed", dtype_is_signed, nullptr, "True where negative values exist.", nullptr},
    {"name", dtype_name, nullptr, "Name without the package.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyMethodDef dtype_methods[] = {{"__reduce__", dtype_reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyType_Slot dtype_slots[] = {
    {Py_tp_repr, reinterpret_cast<void*>(dtype_repr)},
    {Py_tp_getset, dtype_getters},
    {Py_tp_methods, dtype_methods},
    {Py_tp_doc, const_cast<char*>("The element type of a tensor.")},
    {0, nullptr},
};
PyType_Spec dtype_spec = {"deepseek.dtype", sizeof(DTypeObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, dtype_slots};

PyObject* size_repr(PyObject* self) {
  PyObject* list = PySequence_List(self);
  if (!list) return nullptr;
  PyObject* out = PyUnicode_FromFormat("deepseek.Size(%R)", list);
  Py_DECREF(list);
  return out;
}
PyObject* size_numel(PyObject* self, PyObject*) {
  return guarded([&]() -> PyObject* {
    Dims d;
    DS_CHECK_AS(TypeError, to_dims(self, d), "Size.numel(): not a size");
    return PyLong_FromLongLong(numel_of(d));
  });
}
PyMethodDef size_methods[] = {{"numel", size_numel, METH_NOARGS, "Product of the sizes."},
                              {nullptr, nullptr, 0, nullptr}};
PyType_Slot size_slots[] = {
    {Py_tp_repr, reinterpret_cast<void*>(size_repr)},
    {Py_tp_methods, size_methods},
    {Py_tp_doc, const_cast<char*>("The sizes of a tensor: a tuple of ints.")},
    {0, nullptr},
};
PyType_Spec size_spec = {"deepseek.Size", 0, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, size_slots};

}  // namespace

PyObject* wrap_dtype(DType t) {
  PyObject* o = dtype_objects[static_cast<int>(t)];
  Py_INCREF(o);
  return o;
}
bool is_dtype(PyObject* o) { return Py_TYPE(o) == dtype_type; }
DType unwrap_dtype(PyObject* o) {
  if (is_dtype(o)) return value_of(o);
  if (o == reinterpret_cast<PyObject*>(&PyFloat_Type)) return DType::kFloat64;
  if (o == reinterpret_cast<PyObject*>(&PyBool_Type)) return DType::kBool;
  if (o == reinterpret_cast<PyObject*>(&PyLong_Type)) return DType::kInt64;
  fail<TypeError>("expected a deepseek.dtype (such as deepseek.float32), got ", Py_TYPE(o)->tp_name);
}

PyObject* make_size(const Dims& sizes) {
  PyObject* out = size_type->tp_alloc(size_type, sizes.size());
  if (!out) return nullptr;
  for (int i = 0; i < sizes.size(); ++i) PyTuple_SET_ITEM(out, i, PyLong_FromLongLong(sizes[i]));
  return out;
}

// --- numbers

bool is_number(PyObject* o) {
  if (PyFloat_Check(o) || PyLong_Check(o)) return true;
  // NumPy scalars: numbers that are not arrays.
  return PyNumber_Check(o) && !PySequence_Check(o) && !is_tensor(o) &&
         (Py_TYPE(o)->tp_as_number->nb_float || Py_TYPE(o)->tp_as_number->nb_index);
}

bool to_scalar(PyObject* o, Scalar& out) {
  if (PyBool_Check(o)) {
    out = Scalar(o == Py_True);
  } else if (PyFloat_Check(o)) {
    out = Scalar(PyFloat_AS_DOUBLE(o));
  } else if (PyLong_Check(o)) {
    int overflow = 0;
    const int64_t v = PyLong_AsLongLongAndOverflow(o, &overflow);
    if (overflow) fail("value cannot be converted to type int64_t without overflow");
    out = Scalar(v);
  } else if (is_tensor(o)) {
    const Tensor t = unwrap(o);
    if (t.numel() != 1) return false;
    out = t.item();
  } else if (is_number(o)) {
    const char* name = Py_TYPE(o)->tp_name;
    if (std::string_view(name).find("bool") != std::string_view::npos) {
      out = Scalar(PyObject_IsTrue(o) == 1);
    } else if (PyIndex_Check(o)) {
      PyObject* i = checked(PyNumber_Index(o));
      out = Scalar(static_cast<int64_t>(PyLong_AsLongLong(i)));
      Py_DECREF(i);
    } else {
      const double v = PyFloat_AsDouble(o);
      if (v == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
      }
      out = Scalar(v);
    }
  } else {
    return false;
  }
  return true;
}

bool to_int(PyObject* o, int64_t& out) {
  if (PyLong_CheckExact(o)) {
    int overflow;
    out = PyLong_AsLongLongAndOverflow(o, &overflow);
    return overflow == 0;
  }
  if (PyBool_Check(o) || PyFloat_Check(o) || !PyIndex_Check(o)) {
    if (!PyBool_Check(o)) return false;
    out = o == Py_True;
    return true;
  }
  if (is_tensor(o) && (is_floating(cell_of(o).dtype) || unwrap(o).numel() != 1)) return false;
  PyObject* i = PyNumber_Index(o);
  if (!i) {
    PyErr_Clear();
    return false;
  }
  out = PyLong_AsLongLong(i);
  Py_DECREF(i);
  if (out == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return true;
}

bool to_dims(PyObject* o, Dims& out) {
  if (!PyTuple_Check(o) && !PyList_Check(o)) return false;
  PyObject** items = PySequence_Fast_ITEMS(o);
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
  out = Dims();
  for (Py_ssize_t i = 0; i < n; ++i) {
    int64_t v;
    if (PyBool_Check(items[i]) || !to_int(items[i], v)) return false;
    out.push_back(v);
  }
  return true;
}

PyObject* scalar_to_python(const Scalar& s) {
  if (s.dtype() == DType::kBool) return PyBool_FromLong(s.to_bool());
  if (s.is_float()) return PyFloat_FromDouble(s.to_double());
  return PyLong_FromLongLong(s.to_int());
}

PyObject* item(const Tensor& t) { return scalar_to_python(t.item()); }

Tensor number_tensor(PyObject* o) {
  Scalar s;
  DS_CHECK_AS(TypeError, to_scalar(o, s), "expected a Tensor or a number, got ", Py_TYPE(o)->tp_name);
  return Tensor::wrapped(s);
}

void check_device(PyObject* o) {
  if (o == Py_None) return;
  PyObject* text = checked(PyObject_Str(o));
  const char* s = PyUnicode_AsUTF8(text);
  const std::string name = s ? s : "";
  Py_DECREF(text);
  DS_CHECK(name == "cpu" || name.starts_with("cpu:"), "device '", name,
           "' is not available: deepseek runs on the CPU only, use device='cpu'");
}

// --- exceptions

void set_error_from_exception() noexcept {
  try {
    throw;
  } catch (const PythonError&) {
  } catch (const Interrupted&) {
  } catch (pybind11::error_already_set& e) {
    e.restore();
  } catch (const TypeError& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  } catch (const ValueError& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const IndexError& e) {
    PyErr_SetString(PyExc_IndexError, e.what());
  } catch (const NotImplementedError& e) {
    PyErr_SetString(PyExc_NotImplementedError, e.what());
  } catch (const BufferError& e) {
    PyErr_SetString(PyExc_BufferError, e.what());
  } catch (const OutOfMemoryError& e) {
    PyErr_SetString(PyExc_MemoryError, e.what());
  } catch (const LoadError& e) {
    PyErr_SetString(load_error, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "unknown C++ exception");
  }
}

void bind_dtypes(pybind11::module_& m) {
  dtype_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&dtype_spec)));
  m.add_object("dtype", reinterpret_cast<PyObject*>(dtype_type));
  for (int i = 0; i < kNumDTypes; ++i) {
    auto* o = PyObject_New(DTypeObject, dtype_type);
    o->value = static_cast<DType>(i);
    dtype_objects[i] = reinterpret_cast<PyObject*>(o);
    Py_INCREF(dtype_objects[i]);
    m.add_object(name_of(o->value), dtype_objects[i]);
  }
  pybind11::tuple bases = pybind11::make_tuple(pybind11::handle(reinterpret_cast<PyObject*>(&PyTuple_Type)));
  size_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpecWithBases(&size_spec, bases.ptr())));
  m.add_object("Size", reinterpret_cast<PyObject*>(size_type));
  // RuntimeError is what PyTorch raises for a broken file.
  load_error = checked(PyErr_NewExceptionWithDoc("deepseek.LoadError", "A file that breaks its format's rules.",
                                                 PyExc_RuntimeError, nullptr));
  Py_INCREF(load_error);
  m.add_object("LoadError", load_error);
  pybind11::register_exception_translator([](std::exception_ptr p) {
    if (!p) return;
    try {
      std::rethrow_exception(p);
    } catch (const Error&) {
      set_error_from_exception();
    } catch (const PythonError&) {
    }
  });
}

}  // namespace deepseek::python
