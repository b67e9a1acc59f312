// Autocast for Python: the mode, and the regions that casts of weights are kept for.
#include "core/autocast.h"

#include "python/slots.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

PyObject* autocast_enabled(PyObject*) { return PyBool_FromLong(mode().autocast); }

py::tuple autocast_state() {
  return py::make_tuple(mode().autocast, py::reinterpret_steal<py::object>(wrap_dtype(mode().autocast_dtype)));
}

void set_autocast(bool on, const py::object& dtype) {
  mode().autocast_dtype = unwrap_dtype(dtype.ptr());
  mode().autocast = on;
}

// What was before, for the end of the region.
py::tuple enter_autocast(bool on, const py::object& dtype, bool cache) {
  const py::tuple before = py::make_tuple(mode().autocast, autocast_state()[1], autocast_cache_enabled());
  set_autocast(on, dtype);
  set_autocast_cache_enabled(cache);
  enter_autocast_region();
  return before;
}

void leave_autocast(const py::tuple& before) {
  set_autocast(before[0].cast<bool>(), before[1]);
  set_autocast_cache_enabled(before[2].cast<bool>());
  leave_autocast_region();
}

}  // namespace

void bind_autocast(py::module_& m) {
  // Not by pybind11: losses ask on every call.
  static Method enabled = method<autocast_enabled>("_autocast_enabled", "Whether autocast is on.");
  m.add_object(enabled.ml_name, new_function(enabled));
  m.def("_autocast_state", autocast_state);
  m.def("_set_autocast", set_autocast);
  m.def("_enter_autocast", enter_autocast);
  m.def("_leave_autocast", leave_autocast);
  m.def("_autocast_cache_enabled", autocast_cache_enabled);
  m.def("_set_autocast_cache_enabled", set_autocast_cache_enabled);
  m.def("_clear_autocast_cache", clear_autocast_cache);
  m.def("_autocast_cache_size", autocast_cache_size, "How many casts of weights are kept now.");
}

}  // namespace deepseek::python
