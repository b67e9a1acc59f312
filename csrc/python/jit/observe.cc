#include "python/jit/observe.h"

#include <unordered_map>
#include <utility>

#include "core/dispatch/recorder.h"
#include "python/slots.h"

namespace deepseek::python {

namespace {

using CFunction = void (*)();

// The C code of a builtin function or method; null for other objects.
CFunction c_code(PyObject* o) {
  if (PyCFunction_Check(o)) return reinterpret_cast<CFunction>(PyCFunction_GetFunction(o));
  if (PyObject_TypeCheck(o, &PyMethodDescr_Type) || PyObject_TypeCheck(o, &PyClassMethodDescr_Type))
    return reinterpret_cast<CFunction>(reinterpret_cast<PyMethodDescrObject*>(o)->d_method->ml_meth);
  return nullptr;
}

enum class Effect : uint8_t {
  kNone,
  kAnyAttribute,  // looks up an attribute by a name that only the call knows
};

// The functions in C that a captured function may call.
const std::unordered_map<CFunction, Effect>& pure_functions() {
  static const std::unordered_map<CFunction, Effect> all = [] {
    std::unordered_map<CFunction, Effect> found;
    const auto listed = [](const char* list) { return call(from_module("deepseek.jit.guards", list).get()); };
    for_each(listed("pure_functions").get(), [&](PyObject* f) {
      if (const CFunction code = c_code(f)) found.emplace(code, Effect::kNone);
    });
    for_each(listed("attribute_functions").get(), [&](PyObject* f) { found[c_code(f)] = Effect::kAnyAttribute; });
    return found;
  }();
  return all;
}

std::string described(PyObject* f) {
  const std::string name = str(get_attribute_or(f, "__qualname__", to_python("a C function").get()).get());
  const Object module = get_attribute_or(f, "__module__", Py_None);
  if (module.is_none() || str(module.get()) == "builtins") return name;
  return str(module.get()) + "." + name;
}

}  // namespace

bool is_pure(PyObject* f) { return pure_functions().contains(c_code(f)); }

thread_local Observer* Observer::active_ = nullptr;

Observer::Observer(StateWalk& walk, Recorder* recorder)
    : walk_(walk),
      recorder_(recorder),
      before_(PyThreadState_Get()->c_profilefunc),
      before_arg_(Object::borrow(PyThreadState_Get()->c_profileobj)),
      outer_(std::exchange(active_, this)) {
  pure_functions();  // makes the list, with nobody watching
  set_profile_function<&Observer::event>(nullptr);
}

Observer::~Observer() {
  const ErrorAside keep;  // the call's own error
  put_profile_function_back(before_, before_arg_.get());
  active_ = outer_;
}

Observer::Pause::Pause() : paused_(active_) {
  if (paused_) put_profile_function_back(paused_->before_, paused_->before_arg_.get());
}

Observer::Pause::~Pause() {
  const ErrorAside keep;
  if (paused_) set_profile_function<&Observer::event>(nullptr);
}

int Observer::event(PyObject*, PyFrameObject* frame, int what, PyObject* arg) {
  Observer& o = *active_;
  if (o.loading_) {
    if (what == PyTrace_RETURN && frame == o.loading_) o.loading_ = nullptr;
  } else if ((what == PyTrace_CALL || what == PyTrace_C_CALL) && mode().recorder == o.recorder_) {
    const RecorderPause pause;  // looking is not part of the call
    try {
      o.look(frame, what, arg);
    } catch (...) {
      set_error_from_exception();
      PyErr_Clear();
      o.walk_.refuse("what it calls could not be looked at");
    }
  }
  return o.before_ ? o.before_(o.before_arg_.get(), frame, what, arg) : 0;
}

void Observer::look(PyFrameObject* frame, int what, PyObject* arg) {
  if (what == PyTrace_CALL) {
    if (walk_.enter(frame)) return;
    loading_ = frame;
    loaded_ = true;
    return;
  }
  const auto& pure = pure_functions();
  const auto found = pure.find(c_code(arg));
  if (found != pure.end() && found->second == Effect::kNone) return;
  const Object code = Object::steal(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  if (StateWalk::trusts(reinterpret_cast<PyCodeObject*>(code.get()))) return;
  if (found != pure.end()) return walk_.reads_any_attribute();
  walk_.refuse("it calls " + described(arg) + ", which runs only while it is recorded");
}

}  // namespace deepseek::python
