#include "python/subclass.h"

#include "python/slots.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

enum class Wants : uint8_t { kOwnClass, kPlain, kHook };

thread_local int disabled = 0;  // how many DisableTorchFunctionSubclass are entered

PyObject* plain_results = nullptr;  // the __torch_function__ of classes that want plain tensors

Wants look_up(PyTypeObject* type) {
  const auto attribute = [](PyTypeObject* of) {
    return py::reinterpret_steal<py::object>(
        checked(PyObject_GetAttrString(reinterpret_cast<PyObject*>(of), "__torch_function__")));
  };
  const py::object hook = attribute(type);
  if (hook.ptr() == plain_results) return Wants::kPlain;
  const py::object usual = attribute(tensor_type).attr("__func__");
  return py::getattr(hook, "__func__", py::none()).is(usual) ? Wants::kOwnClass : Wants::kHook;
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
  py::tuple positional(nargs);
  for (Py_ssize_t i = 0; i < nargs; ++i) positional[i] = py::reinterpret_borrow<py::object>(args[i]);
  py::dict keywords;
  for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); ++i)
    keywords[py::handle(PyTuple_GET_ITEM(kwnames, i))] = py::reinterpret_borrow<py::object>(args[nargs + i]);
  const py::object call = py::module_::import("deepseek._tensor.torch_function").attr("call_hooks");
  return call(py::handle(function), positional, keywords).release().ptr();
}

PyObject* call_hooks(const char* method, PyObject* self, PyObject* other) {
  const auto function = py::reinterpret_steal<py::object>(
      checked(PyObject_GetAttrString(reinterpret_cast<PyObject*>(tensor_type), method)));
  PyObject* args[] = {self, other};
  return call_hooks(function.ptr(), args, other ? 2 : 1, nullptr);
}

void bind_subclass(py::module_& m) {
  static Method plain = method<not_implemented>("_disabled_torch_function_impl",
                                                "The __torch_function__ of a class whose ops give plain tensors.");
  plain_results = new_function(plain);
  m.attr("_disabled_torch_function_impl") = py::handle(plain_results);
  struct Disable {};
  py::class_<Disable>(m, "DisableTorchFunctionSubclass",
                      "A context in which ops take objects of subclasses for plain tensors.")
      .def(py::init<>())
      .def("__enter__", [](Disable&) { ++disabled; })
      .def("__exit__", [](Disable&, const py::args&) { disabled -= disabled > 0; });
  m.def(
      "_as_subclass",
      [](const Tensor& t, const py::type& cls) {
        auto* type = reinterpret_cast<PyTypeObject*>(cls.ptr());
        DS_CHECK_AS(TypeError, PyType_IsSubtype(type, tensor_type), "as_subclass(): '", type->tp_name,
                    "' is not a subclass of Tensor");
        refuse_capture("a tensor becomes an object of a subclass");
        return py::reinterpret_steal<py::object>(wrap_as(type, expand(t, t.sizes())));
      },
      "An object of the subclass on t's memory and in t's graph.");
  m.def(
      "_result_class",
      [](const py::object& t) {
        DS_CHECK_AS(TypeError, is_tensor(t.ptr()), "expected a Tensor, got ", type_name(t.ptr()));
        return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(result_class(t.ptr())));
      },
      "The class of what an op on t returns.");
}

}  // namespace deepseek::python
