// deepseek.jit for Python: recording a call, and replaying the recorded one that fits.
#include "core/recorder.h"
#include "jit/recording.h"
#include "python/jit_entry.h"
#include "python/jit_host.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

void check_count(const char* name, Py_ssize_t given, Py_ssize_t wanted) {
  DS_CHECK_AS(TypeError, given == wanted, name, "() takes ", wanted, " arguments, got ", given);
}

void check_arguments(PyObject* args, PyObject* kwargs) {
  DS_CHECK_AS(TypeError, PyTuple_Check(args) && PyDict_Check(kwargs), "jit: arguments are a tuple and a dict");
}

// Most recently used first. A replay may run any code, which may have taken the entry out of the list.
void to_front(PyObject* entries, PyObject* pair) {
  for (Py_ssize_t i = 1; i < PyList_GET_SIZE(entries); ++i) {
    if (PyList_GET_ITEM(entries, i) != pair) continue;
    if (PyList_SetSlice(entries, i, i + 1, nullptr) < 0 || PyList_Insert(entries, 0, pair) < 0) throw PythonError();
    return;
  }
}

// _jit_call(entries, args, kwargs): the result of the first entry that fits, NotImplemented when none does, Ellipsis
// while another call is being recorded. entries: a list of (entry, state).
PyObject* jit_call(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_call", n, 3);
  if (mode().recorder) return Py_NewRef(Py_Ellipsis);
  PyObject* entries = a[0];
  check_arguments(a[1], a[2]);
  DS_CHECK_AS(TypeError, PyList_Check(entries), "_jit_call(): entries must be a list");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entries); ++i) {
    const py::object pair = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(entries, i));
    DS_CHECK_AS(TypeError, PyTuple_Check(pair.ptr()) && PyTuple_GET_SIZE(pair.ptr()) == 2,
                "_jit_call(): each entry is a pair (recording, state)");
    Entry& e = entry_of(PyTuple_GET_ITEM(pair.ptr(), 0));
    TensorList in, out;
    Containers known;
    const State& state = state_of(PyTuple_GET_ITEM(pair.ptr(), 1));
    if (!e.admits(state, a[1], a[2], in, known, nullptr) || !state.unchanged()) continue;
    if (!jit::replay(e.graph, in, out)) continue;
    to_front(entries, pair.ptr());
    size_t next = 0;
    return build(e.result, out, next, known);
  }
  return Py_NewRef(Py_NotImplemented);
}

// _jit_record(function, args, kwargs, passes, verify) -> (result, (entry, state) or None, why not).
PyObject* jit_record(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_record", n, 5);
  check_arguments(a[1], a[2]);
  auto e = std::make_unique<Entry>();
  const py::object state = py::reinterpret_steal<py::object>(new_state());
  py::object result;
  const std::string why = e->record(state_of(state.ptr()), a[0], a[1], a[2], result);
  if (!why.empty()) return py::make_tuple(result, py::none(), why).release().ptr();
  e->passes = py::reinterpret_borrow<py::object>(a[3]);
  e->verify = a[4] == Py_True;
  if (e->verify) e->prepare();
  const auto entry = py::reinterpret_steal<py::object>(new_entry(std::move(e)));
  return py::make_tuple(result, py::make_tuple(entry, state), py::str()).release().ptr();
}

// _jit_host(function, args, kwargs).
PyObject* host(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_host", n, 3);
  check_arguments(a[1], a[2]);
  return jit_host(a[0], a[1], a[2]);
}

PyObject* jit_recording(PyObject*) { return PyBool_FromLong(mode().recorder != nullptr); }

Method functions[] = {
    method<jit_call>("_jit_call", "Replay the first recorded call that fits."),
    method<jit_record>("_jit_record", "Call a function and write down what it does."),
    method<host>("_jit_host", "Call a function now and on every replay."),
    method<jit_recording>("_jit_recording", "Whether a call is being written down."),
};

}  // namespace

void bind_jit(py::module_& m) {
  bind_jit_state();
  bind_jit_entry();
  for (Method& f : functions) m.add_object(f.ml_name, new_function(f));
  m.def(
      "_jit_refuse",
      [](const std::string& why) {
        if (mode().recorder) mode().recorder->refuse(why);
      },
      py::arg("why"));
  m.def(
      "_jit_text",
      [](const py::object& entry) {
        Entry& e = entry_of(entry.ptr());
        e.prepare();
        return jit::to_text(e.graph);
      },
      py::arg("entry"));
  m.def(
      "_jit_why",
      [](const py::object& entry, const py::object& state, const py::tuple& args, const py::dict& kwargs) {
        TensorList tensors;
        Containers given;
        std::string why;
        Entry& e = entry_of(entry.ptr());
        const bool fits = e.admits(state_of(state.ptr()), args.ptr(), kwargs.ptr(), tensors, given, &why);
        return fits ? std::string() : why;
      },
      py::arg("entry"), py::arg("state"), py::arg("args"), py::arg("kwargs"));
  m.def(
      "_jit_watch",
      [](const py::object& entry, const py::object& died) {
        Entry& e = entry_of(entry.ptr());
        weaken(e.args, died.ptr());
        weaken(e.kwargs, died.ptr());
      },
      py::arg("entry"), py::arg("died"), "Objects among the arguments are not kept alive; says when one has died.");
  m.def(
      "_jit_alive",
      [](const py::object& entry) {
        const Entry& e = entry_of(entry.ptr());
        return alive(e.args) && alive(e.kwargs);
      },
      py::arg("entry"), "Whether those objects are all there.");
  m.def(
      "_jit_change", [](const py::object& state) { return state_of(state.ptr()).difference(); }, py::arg("state"));
  m.def("_jit_passes", [] {
    py::dict d;
    for (const jit::Pass& p : jit::passes()) d[p.name] = p.doc;
    return d;
  });
}

}  // namespace deepseek::python
