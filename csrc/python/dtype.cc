// deepseek.dtype (one object a type), deepseek.Size, Python numbers, and exceptions.
#include "python/call_arguments.h"
#include "python/slots.h"

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
PyObject* dtype_reduce(PyObject* self) { return PyUnicode_FromString(name_of(value_of(self))); }
PyObject* dtype_itemsize(PyObject* self) { return PyLong_FromLongLong(size_of(value_of(self))); }
PyObject* dtype_is_floating(PyObject* self) { return PyBool_FromLong(is_floating(value_of(self))); }
PyObject* dtype_is_complex(PyObject* self) { return PyBool_FromLong(is_complex(value_of(self))); }
PyObject* dtype_is_signed(PyObject* self) {
  return PyBool_FromLong(value_of(self) != DType::kBool && value_of(self) != DType::kUInt8);
}
PyObject* dtype_name(PyObject* self) { return PyUnicode_FromString(name_of(value_of(self))); }

Attribute dtype_attributes[] = {
    attribute<dtype_itemsize>("itemsize", "Bytes an element."),
    attribute<dtype_is_floating>("is_floating_point", "True for floating dtypes."),
    attribute<dtype_is_complex>("is_complex", "True for complex dtypes, of which there are none yet."),
    attribute<dtype_is_signed>("is_signed", "True where negative values exist."),
    attribute<dtype_name>("name", "Name without the package."),
    {},
};
Method dtype_methods[] = {method<dtype_reduce>("__reduce__", nullptr), {}};

PyObject* size_repr(PyObject* self) {
  const auto list = pybind11::reinterpret_steal<pybind11::object>(checked(PySequence_List(self)));
  return PyUnicode_FromFormat("deepseek.Size(%R)", list.ptr());
}
PyObject* size_numel(PyObject* self) {
  Dims d;
  DS_CHECK_AS(TypeError, to_dims(self, d), "Size.numel(): not a size");
  return PyLong_FromLongLong(numel_of(d));
}
Method size_methods[] = {method<size_numel>("numel", "Product of the sizes."), {}};

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
  fail<TypeError>("expected a deepseek.dtype (such as deepseek.float32), got ", type_name(o));
}

PyObject* make_size(const Dims& sizes) {
  auto out = pybind11::reinterpret_steal<pybind11::object>(checked(size_type->tp_alloc(size_type, sizes.size())));
  for (int i = 0; i < sizes.size(); ++i) PyTuple_SET_ITEM(out.ptr(), i, checked(PyLong_FromLongLong(sizes[i])));
  return out.release().ptr();
}

// --- names of types

std::string type_name(PyObject* o) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(o));
  const auto text = [type](const char* attribute) -> std::string {
    const auto found = pybind11::reinterpret_steal<pybind11::object>(PyObject_GetAttrString(type, attribute));
    if (found && PyUnicode_Check(found.ptr()))
      if (const char* s = PyUnicode_AsUTF8(found.ptr())) return s;
    PyErr_Clear();  // a class may set these to anything
    return "";
  };
  const std::string module = text("__module__");
  const bool plain = module.empty() || module == "builtins" || module == "__main__" || module == "deepseek" ||
                     module.starts_with("deepseek.");
  const std::string_view name = Py_TYPE(o)->tp_name;  // with the module, in types that C defines
  return (plain ? "" : module + ".") + std::string(name.substr(name.rfind('.') + 1));
}

std::string wrong_int(PyObject* o) {
  return type_name(o) + (PyLong_Check(o) && !PyBool_Check(o) ? " that does not fit in 64 bits" : "");
}

// --- numbers

bool is_foreign_tensor(PyObject* o) {
  return !is_tensor(o) && PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(o)), "__dlpack__");
}

bool is_number(PyObject* o) {
  if (PyFloat_Check(o) || PyLong_Check(o)) return true;
  if (PyComplex_CheckExact(o)) return true;  // refused by name where it becomes a tensor (Scalar::dtype)
  // NumPy scalars: numbers that are not arrays. Its complex ones answer on their own, as arrays. Other libraries'
  // tensors are none, though those of one element have __index__ and __float__.
  return PyNumber_Check(o) && !PySequence_Check(o) && !is_tensor(o) && !is_foreign_tensor(o) &&
         (Py_TYPE(o)->tp_as_number->nb_float || Py_TYPE(o)->tp_as_number->nb_index) &&
         std::string_view(Py_TYPE(o)->tp_name).find("complex") == std::string_view::npos;
}

namespace {
int64_t int64_of(PyObject* o) {
  int overflow = 0;
  const int64_t v = PyLong_AsLongLongAndOverflow(o, &overflow);
  if (overflow) fail("value cannot be converted to type int64_t without overflow");
  return v;
}

// After a conversion failed: an object's own TypeError says that it is no such number, which the caller puts in its own
// words. Anything else that its code raised goes on.
bool raised_type_error() {
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw PythonError();
  PyErr_Clear();
  return false;
}
}  // namespace

bool is_true(PyObject* o) {
  const int answer = PyObject_IsTrue(o);
  if (answer < 0) throw PythonError();
  return answer == 1;
}

bool to_scalar(PyObject* o, Scalar& out) {
  if (PyBool_Check(o)) {
    out = Scalar(o == Py_True);
  } else if (PyFloat_Check(o)) {
    out = Scalar(PyFloat_AS_DOUBLE(o));
  } else if (PyLong_Check(o)) {
    out = Scalar(int64_of(o));
  } else if (PyComplex_CheckExact(o)) {
    out = Scalar(std::complex<double>(PyComplex_RealAsDouble(o), PyComplex_ImagAsDouble(o)));
  } else if (is_tensor(o)) {
    const Tensor t = unwrap(o);
    if (t.numel() != 1) return false;
    out = t.item();
  } else if (is_number(o)) {
    const char* name = Py_TYPE(o)->tp_name;
    if (std::string_view(name).find("bool") != std::string_view::npos) {
      out = Scalar(is_true(o));
    } else if (PyIndex_Check(o)) {
      const auto i = pybind11::reinterpret_steal<pybind11::object>(checked(PyNumber_Index(o)));
      out = Scalar(int64_of(i.ptr()));
    } else {
      const double v = PyFloat_AsDouble(o);
      if (v == -1 && PyErr_Occurred()) return raised_type_error();
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
  if (is_tensor(o) && (!is_exact(cell_of(o).dtype) || unwrap(o).numel() != 1)) return false;
  const auto i = pybind11::reinterpret_steal<pybind11::object>(PyNumber_Index(o));
  if (!i) return raised_type_error();
  int overflow;
  out = PyLong_AsLongLongAndOverflow(i.ptr(), &overflow);
  return overflow == 0;
}

bool to_dims(PyObject* o, Dims& out) {
  if (!PyTuple_Check(o) && !PyList_Check(o)) return false;
  out = Dims();
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i) {
    int64_t v;
    PyObject* item = PySequence_Fast_GET_ITEM(o, i);
    if (PyBool_Check(item)) return false;
    if (PyLong_CheckExact(item)) {
      if (!to_int(item, v)) return false;
    } else {  // its __index__ may run any code, which may change the list
      const auto held = pybind11::reinterpret_borrow<pybind11::object>(item);
      if (!to_int(item, v)) return false;
    }
    out.push_back(v);
  }
  return true;
}

PyObject* scalar_to_python(const Scalar& s) {
  switch (s.category()) {
    case Category::kBool:
      return PyBool_FromLong(s.to_bool());
    case Category::kInteger:
      return PyLong_FromLongLong(s.to_int());
    case Category::kFloat:
      return PyFloat_FromDouble(s.to_double());
    case Category::kComplex:
      return PyComplex_FromDoubles(s.to_complex().real(), s.to_complex().imag());
  }
  __builtin_unreachable();
}

PyObject* item(const Tensor& t) { return scalar_to_python(t.item()); }

Tensor number_tensor(PyObject* o) {
  Scalar s;
  DS_CHECK_AS(TypeError, to_scalar(o, s), "expected a Tensor or a number, got ", given_for_tensor(o));
  return Tensor::wrapped(s);
}

std::string_view utf8(PyObject* o) {
  Py_ssize_t n;
  const char* s = PyUnicode_AsUTF8AndSize(o, &n);  // null for lone surrogates
  if (!s) throw PythonError();
  return {s, static_cast<size_t>(n)};
}

void check_device(PyObject* o) {
  if (o == Py_None) return;
  const auto text = pybind11::reinterpret_steal<pybind11::object>(checked(PyObject_Str(o)));
  const std::string_view name = utf8(text.ptr());
  DS_CHECK(name == "cpu" || name.starts_with("cpu:"), "device '", name,
           "' is not available: deepseek runs on the CPU only, use device='cpu'");
}

// --- exceptions

void set_error_from_exception() noexcept {
  refuse_capture("a call fails while it is recorded, and another time may not");
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

void report_exception() noexcept {
  const pybind11::error_scope other;
  set_error_from_exception();
  PyErr_WriteUnraisable(nullptr);
}

void bind_dtypes(pybind11::module_& m) {
  dtype_type = new_type("deepseek.dtype", sizeof(DTypeObject), Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                        {slot<Py_tp_repr, dtype_repr>(), slot(dtype_attributes), slot(dtype_methods),
                         slot("The element type of a tensor.")});
  m.add_object("dtype", reinterpret_cast<PyObject*>(dtype_type));
  for (int i = 0; i < kNumDTypes; ++i) {
    auto* o = PyObject_New(DTypeObject, dtype_type);
    if (!o) throw PythonError();
    o->value = static_cast<DType>(i);
    dtype_objects[i] = reinterpret_cast<PyObject*>(o);
    Py_INCREF(dtype_objects[i]);
    m.add_object(name_of(o->value), dtype_objects[i]);
  }
  pybind11::tuple bases = pybind11::make_tuple(pybind11::handle(reinterpret_cast<PyObject*>(&PyTuple_Type)));
  size_type =
      new_type("deepseek.Size", 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
               {slot<Py_tp_repr, size_repr>(), slot(size_methods), slot("The sizes of a tensor: a tuple of ints.")},
               bases.ptr());
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
