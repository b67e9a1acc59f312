// What a walk asks about objects and their types.
#pragma once

#include "python/python.h"

namespace deepseek::python {

// Who code and classes belong to, by their module: deepseek and those whose functions depend on nothing but their
// arguments are trusted.
enum class Owner : uint8_t { kUser, kTrusted, kLibrary };
Owner owner_of(PyObject* module_name);
Owner owner_of(PyTypeObject* type);

// Something of a Python module, imported on first use and never released.
class Known {
 public:
  constexpr Known(const char* module, const char* name) : module_(module), name_(name) {}
  PyObject* get() {
    if (!object_) object_ = from_module(module_, name_).release();
    return object_;
  }
  PyTypeObject* type() { return reinterpret_cast<PyTypeObject*>(get()); }
  bool is_class_of(PyObject* o) { return PyObject_TypeCheck(o, type()); }
  bool is_set_with(PyTypeObject* t) { return PySet_Contains(get(), reinterpret_cast<PyObject*>(t)) == 1; }

 private:
  const char *module_, *name_;
  PyObject* object_ = nullptr;
};
inline constinit Known nn_module{"deepseek.nn", "Module"};
// Types whose objects have no state, and those whose objects are made of their arguments alone.
inline constinit Known stateless_types{"deepseek.jit.guards", "STATELESS"};
inline constinit Known pure_types{"deepseek.jit.guards", "PURE_TYPES"};

// Nothing to look into: most of what a walk meets.
bool is_plain(PyObject* o);
bool is_numpy_constant(PyObject* o);
// A class statement made it: its objects have attributes and slots besides what the first base not so made has.
bool is_made_in_python(PyTypeObject* type);
PyTypeObject* base_in_c(PyTypeObject* type);
bool is_of_deepseek(PyTypeObject* type);
bool is_made_by_deepseek(PyTypeObject* type);  // in C
Object dict_of(PyTypeObject* type);

// Depth of recursion, as Python counts it.
class Depth {
 public:
  Depth() { checked(Py_EnterRecursiveCall(" while looking for what a captured function depends on") ? -1 : 0); }
  ~Depth() { Py_LeaveRecursiveCall(); }
  Depth(const Depth&) = delete;
};

}  // namespace deepseek::python
