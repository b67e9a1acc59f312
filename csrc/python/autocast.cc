// Autocast for Python: the mode, and the regions that casts of weights are kept for.
#include "core/dispatch/autocast.h"

#include "python/slots.h"

namespace deepseek::python {
namespace {

PyObject* autocast_enabled(PyObject*) { return PyBool_FromLong(mode().autocast); }

PyObject* autocast_state(PyObject*) {
  const Object dtype = owned(wrap_dtype(mode().autocast_dtype));
  return tuple_of(mode().autocast ? Py_True : Py_False, dtype.get()).release();
}

void set_mode(PyObject* on, PyObject* dtype) {
  const DType type = unwrap_dtype(dtype);
  mode().autocast = is_true(on);
  mode().autocast_dtype = type;
}

PyObject* set_autocast(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_set_autocast", n, 2);
  set_mode(a[0], a[1]);
  Py_RETURN_NONE;
}

// (on, dtype, cache) -> what was before, for the end of the region.
PyObject* enter_autocast(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_enter_autocast", n, 3);
  const Object dtype = owned(wrap_dtype(mode().autocast_dtype));
  Object before =
      tuple_of(mode().autocast ? Py_True : Py_False, dtype.get(), autocast_cache_enabled() ? Py_True : Py_False);
  set_mode(a[0], a[1]);
  set_autocast_cache_enabled(is_true(a[2]));
  enter_autocast_region();
  return before.release();
}

PyObject* leave_autocast(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_leave_autocast", n, 1);
  DS_CHECK_AS(TypeError, PyTuple_Check(a[0]) && PyTuple_GET_SIZE(a[0]) == 3,
              "_leave_autocast(): expected what _enter_autocast() returned");
  set_mode(PyTuple_GET_ITEM(a[0], 0), PyTuple_GET_ITEM(a[0], 1));
  set_autocast_cache_enabled(is_true(PyTuple_GET_ITEM(a[0], 2)));
  leave_autocast_region();
  Py_RETURN_NONE;
}

PyObject* cache_enabled(PyObject*) { return PyBool_FromLong(autocast_cache_enabled()); }
PyObject* set_cache_enabled(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_set_autocast_cache_enabled", n, 1);
  set_autocast_cache_enabled(is_true(a[0]));
  Py_RETURN_NONE;
}
PyObject* clear_cache(PyObject*) {
  clear_autocast_cache();
  Py_RETURN_NONE;
}
PyObject* cache_size(PyObject*) { return PyLong_FromSize_t(autocast_cache_size()); }

Method autocast_functions[] = {
    method<autocast_enabled>("_autocast_enabled", "Whether autocast is on."),
    method<autocast_state>("_autocast_state", "Whether autocast is on, and its dtype."),
    method<set_autocast>("_set_autocast", "Sets both."),
    method<enter_autocast>("_enter_autocast", "Begins a region: on, dtype, whether casts of weights are kept."),
    method<leave_autocast>("_leave_autocast", "Ends it: what entering it returned."),
    method<cache_enabled>("_autocast_cache_enabled", "Whether casts of weights are kept."),
    method<set_cache_enabled>("_set_autocast_cache_enabled", "Sets it."),
    method<clear_cache>("_clear_autocast_cache", "Drops the casts that are kept."),
    method<cache_size>("_autocast_cache_size", "How many casts of weights are kept now."),
};

}  // namespace

void bind_autocast(PyObject* m) { add_functions(m, autocast_functions); }

}  // namespace deepseek::python
