// The only ways from a C++ function to something CPython calls: a slot, a method, an attribute, a capsule's destructor.
// Each goes through Guarded, so no C++ exception leaves through C. pytests/test_binding_sources.py looks for other
// ways.
#pragma once

#include <type_traits>
#include <vector>

#include "python/python.h"
#include "python/text_signature.h"
#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#endif

namespace deepseek::python {

// Guarded<F>::call is F as C may call it: an exception becomes a Python one and the value that announces it, or, where
// none may be raised (a destructor, a visit of the garbage collector), a message.
template <auto F>
struct Guarded;
template <class R, class... A, R (*F)(A...)>
struct Guarded<F> {
  static constexpr bool kMayRaise = !std::is_void_v<R> && !(std::is_same_v<A, visitproc> || ...);
  static R call(A... a) noexcept {
    try {
      return F(a...);
    } catch (...) {
      kMayRaise ? set_error_from_exception() : report_exception();
      if constexpr (std::is_pointer_v<R>)
        return nullptr;
      else if constexpr (!std::is_void_v<R>)
        return static_cast<R>(kMayRaise ? -1 : 0);
    }
  }
};

// --- methods and attributes, in tables that end with {}

class Method : public PyMethodDef {
 public:
  constexpr Method() : PyMethodDef{} {}

 private:
  template <class C>
  Method(const char* name, C* f, int flags, const char* doc)
      : PyMethodDef{name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f)), flags, doc} {}
  template <PyObject* (*F)(PyObject*)>
  friend Method method(const char* name, const char* doc);
  template <PyObject* (*F)(PyObject*, PyObject* const*, Py_ssize_t)>
  friend Method method(const char* name, const char* doc);
  template <PyObject* (*F)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*)>
  friend Method method(const char* name, const char* doc);
  template <PyObject* (*F)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*)>
  friend Method static_method(const char* name, const char* doc);
};
static_assert(sizeof(Method) == sizeof(PyMethodDef));

template <PyObject* (*F)(PyObject*)>
PyObject* without_arguments(PyObject* self, PyObject*) {
  return F(self);
}
// Of the object alone.
template <PyObject* (*F)(PyObject*)>
Method method(const char* name, const char* doc) {
  return {name, &Guarded<&without_arguments<F>>::call, METH_NOARGS, doc};
}
// Of the object and positional arguments.
template <PyObject* (*F)(PyObject*, PyObject* const*, Py_ssize_t)>
Method method(const char* name, const char* doc) {
  return {name, &Guarded<F>::call, METH_FASTCALL, doc};
}
// The names of arguments given by keyword come last.
template <PyObject* (*F)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*)>
Method method(const char* name, const char* doc) {
  return {name, &Guarded<F>::call, METH_FASTCALL | METH_KEYWORDS, doc};
}
template <PyObject* (*F)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*)>
Method static_method(const char* name, const char* doc) {
  return {name, &Guarded<F>::call, METH_FASTCALL | METH_KEYWORDS | METH_STATIC, doc};
}
// A function of the module's.
inline Object new_function(Method& m) { return owned(PyCFunction_New(&m, nullptr)); }
template <size_t N>
void add_functions(PyObject* module, Method (&functions)[N]) {
  for (Method& f : functions) add_to_module(module, f.ml_name, new_function(f));
}
// How many arguments such a function takes, where it takes no names.
inline void check_count(const char* function, Py_ssize_t given, Py_ssize_t wanted) {
  DS_CHECK_AS(TypeError, given == wanted, function, "() takes ", wanted, " arguments, got ", given);
}

class Attribute : public PyGetSetDef {
 public:
  constexpr Attribute() : PyGetSetDef{} {}

 private:
  Attribute(const char* name, getter get, setter set, const char* doc) : PyGetSetDef{name, get, set, doc, nullptr} {}
  template <PyObject* (*Get)(PyObject*)>
  friend Attribute attribute(const char* name, const char* doc);
  template <PyObject* (*Get)(PyObject*), int (*Set)(PyObject*, PyObject*)>
  friend Attribute attribute(const char* name, const char* doc);
};
static_assert(sizeof(Attribute) == sizeof(PyGetSetDef));

template <PyObject* (*Get)(PyObject*)>
PyObject* get_without_context(PyObject* self, void*) {
  return Get(self);
}
template <int (*Set)(PyObject*, PyObject*)>
int set_without_context(PyObject* self, PyObject* value, void*) {
  return Set(self, value);
}
template <PyObject* (*Get)(PyObject*)>
Attribute attribute(const char* name, const char* doc) {
  return {name, &Guarded<&get_without_context<Get>>::call, nullptr, doc};
}
// Set gets nullptr for `del o.name`.
template <PyObject* (*Get)(PyObject*), int (*Set)(PyObject*, PyObject*)>
Attribute attribute(const char* name, const char* doc) {
  return {name, &Guarded<&get_without_context<Get>>::call, &Guarded<&set_without_context<Set>>::call, doc};
}

// Where a type keeps something CPython looks for, such as "__dictoffset__".
inline PyMemberDef offset_member(const char* name, size_t offset) {
#if PY_VERSION_HEX >= 0x030C0000
  return {name, Py_T_PYSSIZET, static_cast<Py_ssize_t>(offset), Py_READONLY, nullptr};
#else
  return {name, T_PYSSIZET, static_cast<Py_ssize_t>(offset), READONLY, nullptr};
#endif
}

// --- slots

template <int id, int... ids>
inline constexpr bool kIsOneOf = ((id == ids) || ...);

// The C type of a slot, so that a function of another type does not compile.
template <int id>
constexpr auto slot_signature() {
  if constexpr (kIsOneOf<id, Py_tp_dealloc, Py_tp_finalize>)
    return destructor();
  else if constexpr (id == Py_tp_traverse)
    return traverseproc();
  else if constexpr (kIsOneOf<id, Py_tp_clear, Py_nb_bool>)
    return inquiry();
  else if constexpr (id == Py_tp_new)
    return newfunc();
  else if constexpr (kIsOneOf<id, Py_tp_call, Py_nb_power, Py_nb_inplace_power>)
    return ternaryfunc();
  else if constexpr (id == Py_tp_descr_get)
    return descrgetfunc();
  else if constexpr (id == Py_tp_hash)
    return hashfunc();
  else if constexpr (id == Py_tp_richcompare)
    return richcmpfunc();
  else if constexpr (id == Py_mp_length)
    return lenfunc();
  else if constexpr (id == Py_mp_ass_subscript)
    return objobjargproc();
  else if constexpr (kIsOneOf<id, Py_tp_repr, Py_nb_negative, Py_nb_positive, Py_nb_absolute, Py_nb_invert, Py_nb_int,
                              Py_nb_float, Py_nb_index>)
    return unaryfunc();
  else
    return binaryfunc();
}

class Slot {
 public:
  const PyType_Slot& raw() const { return slot_; }

 private:
  explicit Slot(PyType_Slot s) : slot_(s) {}
  template <int id, auto F>
  friend Slot slot();
  friend Slot slot(Method* methods);
  friend Slot slot(Attribute* attributes);
  friend Slot slot(PyMemberDef* members);
  friend Slot slot(const char* doc);
  PyType_Slot slot_;
};

template <int id, auto F>
Slot slot() {
  decltype(slot_signature<id>()) f = &Guarded<F>::call;
  return Slot({id, reinterpret_cast<void*>(f)});
}
inline Slot slot(Method* methods) {
  add_text_signatures(methods);
  return Slot({Py_tp_methods, methods});
}
inline Slot slot(Attribute* attributes) { return Slot({Py_tp_getset, attributes}); }
inline Slot slot(PyMemberDef* members) { return Slot({Py_tp_members, members}); }
inline Slot slot(const char* doc) { return Slot({Py_tp_doc, const_cast<char*>(doc)}); }

// A type; `bases` may be null.
inline PyTypeObject* new_type(const char* name, size_t size, unsigned flags, const std::vector<Slot>& slots,
                              PyObject* bases = nullptr) {
  std::vector<PyType_Slot> raw;
  for (const Slot& s : slots) raw.push_back(s.raw());
  raw.push_back({});
  PyType_Spec spec{name, static_cast<int>(size), 0, flags, raw.data()};
  return reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpecWithBases(&spec, bases)));
}

// --- capsules

template <void (*Destroy)(PyObject*)>
PyObject* new_capsule(void* pointer, const char* name) {
  return checked(PyCapsule_New(pointer, name, &Guarded<Destroy>::call));
}

// --- the profile function of this thread

template <int (*F)(PyObject*, PyFrameObject*, int, PyObject*)>
void set_profile_function(PyObject* argument) {
  PyEval_SetProfile(&Guarded<F>::call, argument);
}
// One that was found there; null for none.
inline void put_profile_function_back(Py_tracefunc f, PyObject* argument) { PyEval_SetProfile(f, argument); }

}  // namespace deepseek::python
