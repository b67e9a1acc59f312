// deepseek.jit for Python: recording a call, and replaying the recorded one that fits.
#include "jit/recording.h"
#include "python/jit/entry.h"
#include "python/jit/host.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

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
    const Object pair = Object::borrow(PyList_GET_ITEM(entries, i));
    DS_CHECK_AS(TypeError, PyTuple_Check(pair.get()) && PyTuple_GET_SIZE(pair.get()) == 2,
                "_jit_call(): each entry is a pair (recording, state)");
    Entry& e = entry_of(PyTuple_GET_ITEM(pair.get(), 0));
    TensorList in, out;
    Containers known;
    const State& state = state_of(PyTuple_GET_ITEM(pair.get(), 1));
    if (!e.admits(state, a[1], a[2], in, known, nullptr) || !state.unchanged()) continue;
    if (!jit::replay(e.graph, in, out)) continue;
    to_front(entries, pair.get());
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
  const Object state = Object::steal(new_state());
  Object result;
  const std::string why = e->record(state_of(state.get()), a[0], a[1], a[2], result);
  if (!why.empty()) return tuple_of(result.get(), Py_None, to_python(why).get()).release();
  e->passes = Object::borrow(a[3]);
  e->verify = a[4] == Py_True;
  if (e->verify) e->prepare();
  const Object entry = Object::steal(new_entry(std::move(e)));
  const Object recorded = tuple_of(entry.get(), state.get());
  return tuple_of(result.get(), recorded.get(), to_python("").get()).release();
}

// _jit_host(function, args, kwargs).
PyObject* host(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_host", n, 3);
  check_arguments(a[1], a[2]);
  return jit_host(a[0], a[1], a[2]);
}

PyObject* jit_recording(PyObject*) { return PyBool_FromLong(mode().recorder != nullptr); }

// _jit_refuse(why).
PyObject* jit_refuse(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_refuse", n, 1);
  const std::string why = str(a[0]);
  refuse_capture(why.c_str());
  Py_RETURN_NONE;
}

// _jit_text(entry).
PyObject* jit_text(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_text", n, 1);
  Entry& e = entry_of(a[0]);
  e.prepare();
  return to_python(jit::to_text(e.graph)).release();
}

// _jit_why(entry, state, args, kwargs).
PyObject* jit_why(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_why", n, 4);
  check_arguments(a[2], a[3]);
  TensorList tensors;
  Containers given;
  std::string why;
  const bool fits = entry_of(a[0]).admits(state_of(a[1]), a[2], a[3], tensors, given, &why);
  return to_python(fits ? std::string() : why).release();
}

// _jit_watch(entry, died).
PyObject* jit_watch(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_watch", n, 2);
  Entry& e = entry_of(a[0]);
  weaken(e.args, a[1]);
  weaken(e.kwargs, a[1]);
  Py_RETURN_NONE;
}

// _jit_alive(entry).
PyObject* jit_alive(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_alive", n, 1);
  const Entry& e = entry_of(a[0]);
  return PyBool_FromLong(alive(e.args) && alive(e.kwargs));
}

// _jit_change(state).
PyObject* jit_change(PyObject*, PyObject* const* a, Py_ssize_t n) {
  check_count("_jit_change", n, 1);
  return to_python(state_of(a[0]).difference()).release();
}

PyObject* jit_passes(PyObject*) {
  Object passes = owned(PyDict_New());
  for (const jit::Pass& p : jit::passes())
    checked(PyDict_SetItem(passes.get(), to_python(p.name).get(), to_python(p.doc).get()));
  return passes.release();
}

Method functions[] = {
    method<jit_call>("_jit_call", "Replay the first recorded call that fits."),
    method<jit_record>("_jit_record", "Call a function and write down what it does."),
    method<host>("_jit_host", "Call a function now and on every replay."),
    method<jit_recording>("_jit_recording", "Whether a call is being written down."),
    method<jit_refuse>("_jit_refuse", "The call that is being written down cannot be replayed, and why."),
    method<jit_text>("_jit_text", "The graph of a recording."),
    method<jit_why>("_jit_why", "Why a recording does not fit a call; empty where it does."),
    method<jit_watch>("_jit_watch", "Objects among the arguments are not kept alive; says when one has died."),
    method<jit_alive>("_jit_alive", "Whether those objects are all there."),
    method<jit_change>("_jit_change", "What of the state has changed since the call was recorded."),
    method<jit_passes>("_jit_passes", "Names of the passes, and what each does."),
};

}  // namespace

void bind_jit(PyObject* m) {
  bind_jit_state();
  bind_jit_entry();
  add_functions(m, functions);
}

}  // namespace deepseek::python
