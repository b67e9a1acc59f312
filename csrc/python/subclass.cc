#include "python/subclass.h"

#include "python/slots.h"

namespace deepseek::python {
namespace {

enum class Wants : uint8_t { kOwnClass, kPlain, kHook };

thread_local int disabled = 0;  // how many times they are

PyObject* plain_results = nullptr;  // the __torch_function__ of classes that want plain tensors

Wants look_up(PyTypeObject* type) {
  const auto hook_of = [](PyTypeObject* of) {
    return get_attribute(reinterpret_cast<PyObject*>(of), "__torch_function__");
  };
  const Object hook = hook_of(type);
  if (hook.is(plain_results)) return Wants::kPlain;
  const Object usual = get_attribute(hook_of(tensor_type).get(), "__func__");
  return get_attribute_or(hook.get(), "__func__", Py_None).is(usual.get()) ? Wants::kOwnClass : Wants::kHook;
}

// Classes met last, kept alive so that an address means one class. Every layer passes parameters, so this is quick.
Wants wants(PyTypeObject* type) {
  struct Entry {
    PyTypeObject* type;
    Wants wants;
  };
  static Entry entries[64];
  Entry& e = entries[reinterpret_cast<uintptr_t>(type) / 64 % 64];
  if (e.type == type) [[likely]]
    return e.wants;
  const Wants found = look_up(type);
  Py_INCREF(type);
  Py_XDECREF(std::exchange(e.type, type));
  e.wants = found;
  return found;
}

PyObject* not_implemented(PyObject*, PyObject* const*, Py_ssize_t) { Py_RETURN_NOTIMPLEMENTED; }

}  // namespace

void disable_subclasses() { ++disabled; }
void enable_subclasses() { disabled -= disabled > 0; }

void Subclasses::see_type(PyTypeObject* type) {
  if (disabled > 0) return;
  const Wants w = wants(type);
  if (w == Wants::kPlain) return;
  refuse_capture("an op is called on a subclass of Tensor");
  hooked_ |= w == Wants::kHook;
  if (!type_ || PyType_IsSubtype(type, type_))
    type_ = type;
  else if (!PyType_IsSubtype(type_, type))
    unrelated_ = type;
}

void Subclasses::refuse() const {
  fail<TypeError>("an op has arguments of two subclasses of Tensor, '", type_->tp_name, "' and '", unrelated_->tp_name,
                  "', and neither derives from the other; convert one with .as_subclass()");
}

PyObject* call_hooks(PyObject* function, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  const Object positional = owned(PyTuple_New(nargs)), keywords = owned(PyDict_New());
  for (Py_ssize_t i = 0; i < nargs; ++i) PyTuple_SET_ITEM(positional.get(), i, Py_NewRef(args[i]));
  for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); ++i)
    checked(PyDict_SetItem(keywords.get(), PyTuple_GET_ITEM(kwnames, i), args[nargs + i]));
  const Object hooks = from_module("deepseek._tensor.torch_function", "call_hooks");
  return call(hooks.get(), function, positional.get(), keywords.get()).release();
}

PyObject* call_hooks(const char* method, PyObject* self, PyObject* other) {
  const Object function = get_attribute(reinterpret_cast<PyObject*>(tensor_type), method);
  PyObject* args[] = {self, other};
  return call_hooks(function.get(), args, other ? 2 : 1, nullptr);
}

void bind_subclass(PyObject* m) {
  static Method plain = method<not_implemented>("_disabled_torch_function_impl",
                                                "The __torch_function__ of a class whose ops give plain tensors.");
  plain_results = new_function(plain).release();
  add_to_module(m, "_disabled_torch_function_impl", Object::borrow(plain_results));
}

}  // namespace deepseek::python
