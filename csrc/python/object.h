// Owned references to Python objects, and what the binding asks of Python: each throws where Python raises. On Python.h
// alone, since pybind11.h costs a file several seconds; it is for the files of bind/.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace deepseek::python {

// Thrown when a Python exception is already set.
struct PythonError {};

inline PyObject* checked(PyObject* o) {
  if (!o) throw PythonError();
  return o;
}
// Of functions that announce an exception by a negative number.
template <std::signed_integral T>
T checked(T status) {
  if (status < 0) throw PythonError();
  return status;
}

// An owned reference, or none.
class Object {
 public:
  Object() = default;
  // Takes over a reference, which may be null.
  static Object steal(PyObject* o) { return Object(o); }
  // Takes one of its own.
  static Object borrow(PyObject* o) { return Object(Py_XNewRef(o)); }
  Object(const Object& o) : o_(Py_XNewRef(o.o_)) {}
  Object(Object&& o) noexcept : o_(std::exchange(o.o_, nullptr)) {}
  // What was held goes last: its end may run any code, which finds the new value.
  Object& operator=(Object o) noexcept {
    std::swap(o_, o.o_);
    return *this;
  }
  ~Object() { Py_XDECREF(o_); }

  PyObject* get() const { return o_; }
  // The reference is the caller's now.
  [[nodiscard]] PyObject* release() { return std::exchange(o_, nullptr); }
  explicit operator bool() const { return o_ != nullptr; }
  bool is(PyObject* o) const { return o_ == o; }
  bool is_none() const { return o_ == Py_None; }

 private:
  explicit Object(PyObject* o) : o_(o) {}
  PyObject* o_ = nullptr;
};

// A new reference, as most functions of Python.h return one; null is an exception.
inline Object owned(PyObject* fresh) { return Object::steal(checked(fresh)); }

inline std::string_view utf8(PyObject* o) {  // of a str, as long as that lives
  Py_ssize_t n;
  const char* s = PyUnicode_AsUTF8AndSize(o, &n);  // null for lone surrogates
  if (!s) throw PythonError();
  return {s, static_cast<size_t>(n)};
}
inline std::string str(PyObject* o) { return std::string(utf8(owned(PyObject_Str(o)).get())); }
inline Object to_python(std::string_view s) {
  return owned(PyUnicode_FromStringAndSize(s.data(), static_cast<Py_ssize_t>(s.size())));
}
inline Object to_python(int64_t v) { return owned(PyLong_FromLongLong(v)); }
inline int64_t int_of(PyObject* o) {
  const int64_t v = PyLong_AsLongLong(o);
  if (v == -1 && PyErr_Occurred()) throw PythonError();
  return v;
}
inline bool is_true(PyObject* o) { return checked(PyObject_IsTrue(o)) == 1; }

inline bool has_attribute(PyObject* o, const char* name) { return PyObject_HasAttrString(o, name) == 1; }
inline Object get_attribute(PyObject* o, const char* name) { return owned(PyObject_GetAttrString(o, name)); }
// `otherwise` where there is none, whatever looking for it raised.
inline Object get_attribute_or(PyObject* o, const char* name, PyObject* otherwise) {
  Object found = Object::steal(PyObject_GetAttrString(o, name));
  if (found) return found;
  PyErr_Clear();
  return Object::borrow(otherwise);
}
inline Object from_module(const char* module, const char* name) {
  return get_attribute(owned(PyImport_ImportModule(module)).get(), name);
}

template <std::same_as<PyObject>... A>
Object call(PyObject* f, A*... args) {
  PyObject* const given[] = {args..., nullptr};
  return owned(PyObject_Vectorcall(f, given, sizeof...(args), nullptr));
}
template <std::same_as<PyObject>... A>
Object call_method(PyObject* o, const char* name, A*... args) {
  return call(get_attribute(o, name).get(), args...);
}
// f(item) for what iterating gives.
template <class F>
void for_each(PyObject* iterable, F f) {
  const Object iterator = owned(PyObject_GetIter(iterable));
  while (const Object item = Object::steal(PyIter_Next(iterator.get()))) f(item.get());
  if (PyErr_Occurred()) throw PythonError();
}
template <std::same_as<PyObject>... A>
Object tuple_of(A*... items) {
  return owned(PyTuple_Pack(sizeof...(items), items...));
}

// The exception on its way is put aside while this lives.
class ErrorAside {
 public:
  ErrorAside() { PyErr_Fetch(&type_, &value_, &trace_); }
  ~ErrorAside() { PyErr_Restore(type_, value_, trace_); }
  ErrorAside(const ErrorAside&) = delete;

 private:
  PyObject *type_, *value_, *trace_;
};

// Holds the interpreter lock, from whichever thread.
class InterpreterLock {
 public:
  InterpreterLock() : state_(PyGILState_Ensure()) {}
  ~InterpreterLock() { PyGILState_Release(state_); }
  InterpreterLock(const InterpreterLock&) = delete;

 private:
  PyGILState_STATE state_;
};

}  // namespace deepseek::python
