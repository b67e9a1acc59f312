// Where pybind11 meets the rest. Exceptions of either kind become Python's, and pybind11's functions and types are
// guarded as the others are. Its dispatcher builds the text of a refusal outside of its own try
// block, and its __new__ has none: an argument's name that is no UTF-8, or copyreg, would end the process.
// That text is put in the words of the other functions, too.
#include <string>

#include "python/bind/bind.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;
using py::detail::pybind11_meta_call;
using py::detail::pybind11_object_new;

PyObject* load_error = nullptr;

void replace_all(std::string& text, std::string_view old, std::string_view fresh) {
  for (size_t at = 0; (at = text.find(old, at)) != std::string::npos; at += fresh.size())
    text.replace(at, old.size(), fresh);
}

// After a call failed: where none of the function's signatures takes these arguments, pybind11 lists signatures in the
// words of its casters and prints the values. "set_num_threads() does not take (str); the signature is
// set_num_threads(int: int) -> None" is what people need.
[[gnu::cold]] void reword_refusal(PyObject* const* args, Py_ssize_t n, PyObject* names) {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  const auto text = py::reinterpret_steal<py::object>(value ? PyObject_Str(value) : nullptr);
  const char* utf8_text = text ? PyUnicode_AsUTF8(text.ptr()) : nullptr;
  const std::string why = utf8_text ? utf8_text : "";
  const size_t name_end = why.find("(): incompatible "), list = why.find(" are supported:\n");
  if (name_end == std::string::npos || list == std::string::npos) {
    PyErr_Clear();
    return PyErr_Restore(type, value, trace);
  }
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  const std::string name = why.substr(0, name_end);
  std::string signatures;
  int count = 0;
  for (size_t at = list; (at = why.find("\n    " + std::to_string(count + 1) + ". ", at)) != std::string::npos;
       ++count) {
    const size_t begin = why.find(". ", at) + 2, end = why.find('\n', begin);
    std::string one = why.substr(begin, end - begin);
    if (one.starts_with('(')) one = name + one;
    signatures += (count ? " or " : "") + one;
    at = end;
  }
  replace_all(signatures, " | typing.SupportsIndex", "");
  replace_all(signatures, "typing.SupportsInt", "int");
  replace_all(signatures, "typing.SupportsFloat", "float");
  replace_all(signatures, "collections.abc.", "");
  replace_all(signatures, "deepseek._C.", "");
  std::string given;
  const Py_ssize_t keywords = names ? PyTuple_GET_SIZE(names) : 0;
  for (Py_ssize_t i = 0; i < n + keywords; ++i) {
    if (i) given += ", ";
    if (i >= n) given += std::string(utf8(PyTuple_GET_ITEM(names, i - n))) + "=";
    int64_t number;  // an int may be refused for its size
    given +=
        PyLong_CheckExact(args[i]) && to_int(args[i], number) ? "int " + std::to_string(number) : wrong_int(args[i]);
  }
  fail<TypeError>(name, "() does not take (", given, "); the signature is ", signatures);
}

struct Bound : py::cpp_function {
  static PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
    PyObject* result = dispatcher(self, args, static_cast<size_t>(n), names);
    if (!result && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError)) [[unlikely]]
      reword_refusal(args, PyVectorcall_NARGS(static_cast<size_t>(n)), names);
    return result;
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

void guard_bound_functions(PyObject* m) { guard_all_in(py::handle(m).attr("__dict__")); }

// --- exceptions

void set_error_from_exception() noexcept {
  refuse_capture("a call fails while it is recorded, and another time may not");
  try {
    throw;
  } catch (const PythonError&) {
  } catch (const Interrupted&) {
  } catch (py::error_already_set& e) {
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
  const ErrorAside other;
  set_error_from_exception();
  PyErr_WriteUnraisable(nullptr);
}

void bind_exceptions(PyObject* m) {
  // RuntimeError is what PyTorch raises for a broken file.
  load_error = checked(PyErr_NewExceptionWithDoc("deepseek.LoadError", "A file that breaks its format's rules.",
                                                 PyExc_RuntimeError, nullptr));
  add_to_module(m, "LoadError", Object::borrow(load_error));
  // What pybind11 does with ours, thrown by a function it has bound.
  py::register_exception_translator([](std::exception_ptr p) {
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
