#include "python/jit_observe.h"

#include <unordered_set>

#include "python/slots.h"

namespace deepseek::python {

namespace py = pybind11;

namespace {

using CFunction = void (*)();

// The C code of a builtin function or method; null for other objects.
CFunction c_code(PyObject* o) {
  if (PyCFunction_Check(o)) return reinterpret_cast<CFunction>(PyCFunction_GetFunction(o));
  if (PyObject_TypeCheck(o, &PyMethodDescr_Type) || PyObject_TypeCheck(o, &PyClassMethodDescr_Type))
    return reinterpret_cast<CFunction>(reinterpret_cast<PyMethodDescrObject*>(o)->d_method->ml_meth);
  return nullptr;
}

std::unordered_set<CFunction> listed(const char* which) {
  std::unordered_set<CFunction> all;
  for (const py::handle f : py::module_::import("deepseek.jit.guards").attr(which)())
    if (const CFunction code = c_code(f.ptr())) all.insert(code);
  return all;
}

std::string described(PyObject* f) {
  const auto name = py::getattr(f, "__qualname__", py::str("a C function"));
  const auto module = py::getattr(f, "__module__", py::none());
  const bool plain = module.is_none() || py::str(module).cast<std::string>() == "builtins";
  return (plain ? std::string() : py::str(module).cast<std::string>() + ".") + py::str(name).cast<std::string>();
}

// With a name that only the call knows.
bool looks_up_attributes(PyObject* f) {
  static const std::unordered_set<CFunction> all = listed("attribute_functions");
  return all.contains(c_code(f));
}

}  // namespace

bool is_pure(PyObject* f) {
  static const std::unordered_set<CFunction> all = listed("pure_functions");
  return all.contains(c_code(f));
}

Observer::Observer(StateWalk& walk, Recorder* recorder)
    : walk_(walk),
      recorder_(recorder),
      before_(PyThreadState_Get()->c_profilefunc),
      before_arg_(py::reinterpret_borrow<py::object>(PyThreadState_Get()->c_profileobj)),
      self_(py::capsule(this, "deepseek.jit.Observer")) {
  is_pure(self_.ptr());  // makes the lists, with nobody watching
  looks_up_attributes(self_.ptr());
  set_profile_function<&Observer::event>(self_.ptr());
}

Observer::~Observer() {
  const py::error_scope keep;  // the call's own error
  put_profile_function_back(before_, before_arg_.ptr());
}

int Observer::event(PyObject* self, PyFrameObject* frame, int what, PyObject* arg) {
  auto* observer = static_cast<Observer*>(PyCapsule_GetPointer(self, "deepseek.jit.Observer"));
  if ((what == PyTrace_CALL || what == PyTrace_C_CALL) && mode().recorder == observer->recorder_) {
    const RecorderPause pause;  // looking is not part of the call
    try {
      observer->look(frame, what, arg);
    } catch (...) {
      set_error_from_exception();
      PyErr_Clear();
      observer->walk_.refuse("what it calls could not be looked at");
    }
  }
  return observer->before_ ? observer->before_(observer->before_arg_.ptr(), frame, what, arg) : 0;
}

void Observer::look(PyFrameObject* frame, int what, PyObject* arg) {
  if (what == PyTrace_CALL) return walk_.enter(frame);
  const bool any_attribute = looks_up_attributes(arg);
  if (is_pure(arg) && !any_attribute) return;
  const auto code = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  if (walk_.trusts(reinterpret_cast<PyCodeObject*>(code.ptr()))) return;
  if (any_attribute) return walk_.reads_any_attribute();
  walk_.refuse("it calls " + described(arg) + ", which runs only while it is recorded");
}

}  // namespace deepseek::python
