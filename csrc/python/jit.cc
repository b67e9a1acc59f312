// deepseek.jit for Python: recording a call, and the guards that decide whether a recorded one may be replayed.
#include <algorithm>
#include <sstream>

#include "jit/recording.h"
#include "python/jit_state.h"
#include "python/jit_tree.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;
using jit::Graph;
using jit::Recording;

// --- what must be as it was when the call was recorded

struct TensorGuard {
  DType dtype;
  Dims sizes, strides;
  bool requires_grad, leaf, inference;
  size_t same_cell, same_storage;  // the first tensor that is this one, or shares its memory
};

TensorGuard guard_of(const Tensor& t) {
  return {t.dtype(), t.sizes(), t.strides(), t.requires_grad(), t.is_leaf(), t.cell()->inference, 0, 0};
}

bool check(const TensorGuard& g, const Tensor& t, std::string* why) {
  const bool same = t.dtype() == g.dtype && t.sizes() == g.sizes && t.strides() == g.strides &&
                    t.requires_grad() == g.requires_grad && t.is_leaf() == g.leaf && t.cell()->inference == g.inference;
  if (!same && why) {
    std::ostringstream os;
    if (t.dtype() != g.dtype)
      os << "dtype " << name_of(g.dtype) << " became " << name_of(t.dtype());
    else if (!(t.sizes() == g.sizes))
      os << "size " << g.sizes << " became " << t.sizes();
    else if (!(t.strides() == g.strides))
      os << "strides " << g.strides << " became " << t.strides();
    else if (t.requires_grad() != g.requires_grad)
      os << "requires_grad became " << (g.requires_grad ? "False" : "True");
    else
      os << "it " << (t.is_leaf() != g.leaf ? "is_leaf" : "the inference flag") << " changed";
    *why += os.str();
  }
  return same;
}

struct ModeGuard {
  bool grad = mode().grad, inference = mode().inference, autocast = mode().autocast;
  DType autocast_dtype = mode().autocast_dtype, default_type = default_dtype();
  bool operator==(const ModeGuard&) const = default;
};

struct CapturedGuard {
  int32_t slot;
  TensorGuard guard;
};

// One captured call.
struct Entry {
  Graph graph;
  Tree args, kwargs, result;
  std::vector<TensorGuard> inputs;
  std::vector<CapturedGuard> captured;  // in the order of the graph's, without constants, which nobody can change
  ModeGuard modes;
  py::object passes;  // names of those that are still to run; null when the graph is optimised
  bool verify = false;

  // Optimises the graph. Not done for a first call: many captured functions are called once for each of their variants.
  void prepare();
};

void Entry::prepare() {
  if (!passes) return;
  const py::object names = std::move(passes);
  const std::vector<jit::Captured> held = graph.captured;  // a dying tensor may run any code, also this call again
  if (verify) jit::verify(graph);
  for (const jit::Pass& p : jit::passes()) {
    if (!names.contains(p.name)) continue;
    p.run(graph);
    if (verify) jit::verify(graph);
  }
  auto kept = graph.captured.begin();  // unused ones were dropped, the others are in the same order
  std::erase_if(captured, [&](const CapturedGuard& g) {
    while (kept != graph.captured.end() && kept->slot < g.slot) ++kept;
    return kept == graph.captured.end() || kept->slot != g.slot;
  });
}

Entry& entry_of(PyObject* capsule) {
  void* p = PyCapsule_GetPointer(capsule, "deepseek.jit");
  if (!p) throw PythonError();
  return *static_cast<Entry*>(p);
}

void note_sharing(std::vector<TensorGuard>& guards, Inputs tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    guards[i].same_cell = guards[i].same_storage = i;
    for (size_t j = i; j-- > 0;) {
      if (tensors[j].is(tensors[i])) guards[i].same_cell = j;
      if (tensors[j].storage() == tensors[i].storage()) guards[i].same_storage = j;
    }
  }
}

bool check_sharing(const std::vector<TensorGuard>& guards, Inputs tensors) {
  for (size_t i = 1; i < tensors.size(); ++i) {
    size_t cell = i, storage = i;
    for (size_t j = i; j-- > 0;) {
      if (tensors[j].is(tensors[i])) cell = j;
      if (tensors[j].storage() == tensors[i].storage()) storage = j;
    }
    if (cell != guards[i].same_cell || storage != guards[i].same_storage) return false;
  }
  return true;
}

bool admits(Entry& e, PyObject* args, PyObject* kwargs, TensorList& tensors, std::string* why) {
  if (!match(e.args, args, tensors, why) || !match(e.kwargs, kwargs, tensors, why)) return false;
  if (!(e.modes == ModeGuard())) {
    if (why) *why = "grad mode, inference mode, autocast or the default dtype changed";
    return false;
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::string detail;
    if (check(e.inputs[i], tensors[i], why ? &detail : nullptr)) continue;
    if (why) *why = "tensor " + std::to_string(i) + " of the arguments: " + detail;
    return false;
  }
  if (!check_sharing(e.inputs, tensors)) {
    if (why) *why = "other arguments share memory";
    return false;
  }
  e.prepare();
  auto c = e.graph.captured.begin();
  for (const CapturedGuard& g : e.captured) {
    while (c->slot != g.slot) ++c;
    std::string detail;
    if (check(g.guard, c->tensor, why ? &detail : nullptr)) continue;
    if (why) *why = "a tensor the function captured: " + detail;
    return false;
  }
  const auto grad_present = [&](int32_t slot) {
    const auto defined = [](const Tensor& t) { return t.cell()->grad_meta && t.cell()->grad_meta->grad.defined(); };
    for (size_t i = 0; i < tensors.size(); ++i)
      if (e.graph.inputs[i] == slot) return defined(tensors[i]);
    for (const jit::Captured& c : e.graph.captured)
      if (c.slot == slot) return defined(c.tensor);
    return false;
  };
  for (const jit::GradState& s : e.graph.grads) {
    if (grad_present(s.slot) == s.present) continue;
    if (why) *why = s.present ? "a .grad became None" : "a .grad is no longer None";
    return false;
  }
  return true;
}

void check_count(const char* name, Py_ssize_t given, Py_ssize_t wanted) {
  DS_CHECK_AS(TypeError, given == wanted, name, "() takes ", wanted, " arguments, got ", given);
}

// _jit_call(entries, args, kwargs): the result of the first entry that fits, NotImplemented when none does, Ellipsis
// while another call is being recorded. entries: a list of (entry, state).
PyObject* jit_call(PyObject*, PyObject* const* a, Py_ssize_t n) {
  return guarded([&]() -> PyObject* {
    check_count("_jit_call", n, 3);
    if (mode().recorder) return Py_NewRef(Py_Ellipsis);
    PyObject* entries = a[0];
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entries); ++i) {
      const py::object pair = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(entries, i));
      Entry& e = entry_of(PyTuple_GET_ITEM(pair.ptr(), 0));
      TensorList in, out;
      if (!admits(e, a[1], a[2], in, nullptr) || !state_of(PyTuple_GET_ITEM(pair.ptr(), 1)).unchanged()) continue;
      if (!jit::replay(e.graph, in, out)) continue;
      if (i > 0) {  // most recently used first
        PyList_SetSlice(entries, i, i + 1, nullptr);
        PyList_Insert(entries, 0, pair.ptr());
      }
      size_t next = 0;
      return build(e.result, out, next);
    }
    return Py_NewRef(Py_NotImplemented);
  });
}

// Runs the function and writes down what it does. Returns why that cannot be replayed.
std::string record(Entry& e, State& state, PyObject* function, PyObject* args, PyObject* kwargs, py::object& result) {
  TensorList in, out;
  e.args = flatten(args, in);
  e.kwargs = flatten(kwargs, in);
  for (const Tensor& t : in) e.inputs.push_back(guard_of(t));
  note_sharing(e.inputs, in);
  state.note(function, args, kwargs);
  Recording recording(in);
  result = py::reinterpret_steal<py::object>(checked(PyObject_Call(function, args, kwargs)));
  e.result = flatten(result.ptr(), out);
  const std::string why = recording.finish(out);
  if (result.is(py::ellipsis())) return "it returns an Ellipsis";  // which means something else to _jit_call's caller
  if (!(e.modes == ModeGuard())) return "it changes grad mode, inference mode, autocast or the default dtype";
  if (!why.empty()) return why;
  if (holds_object(e.result))
    return "it returns an object that is neither a tensor, a number, a string nor a container of them";
  if (!state.refusal().empty()) return state.refusal();
  if (const std::string change = state.change(); !change.empty()) return "it changes the program's state: " + change;
  e.graph = std::move(recording.graph());
  for (const jit::Captured& c : e.graph.captured)
    if (!c.constant) e.captured.push_back({c.slot, guard_of(c.tensor)});
  return {};
}

// _jit_record(function, args, kwargs, passes, verify) -> (result, (entry, state) or None, why not).
PyObject* jit_record(PyObject*, PyObject* const* a, Py_ssize_t n) {
  return guarded([&]() -> PyObject* {
    check_count("_jit_record", n, 5);
    auto e = std::make_unique<Entry>();
    const py::object state = py::reinterpret_steal<py::object>(new_state());
    py::object result;
    const std::string why = record(*e, state_of(state.ptr()), a[0], a[1], a[2], result);
    if (!why.empty()) return py::make_tuple(result, py::none(), why).release().ptr();
    e->passes = py::reinterpret_borrow<py::object>(a[3]);
    e->verify = a[4] == Py_True;
    if (e->verify) e->prepare();
    const py::capsule entry(e.release(), "deepseek.jit", [](void* p) { delete static_cast<Entry*>(p); });
    return py::make_tuple(result, py::make_tuple(entry, state), py::str()).release().ptr();
  });
}

// Runs a Python function for real on every replay.
class PythonCall final : public jit::HostCall {
 public:
  PythonCall(PyObject* function, Tree args, Tree kwargs)
      : function_(py::reinterpret_borrow<py::object>(function)),
        args_(std::move(args)),
        kwargs_(std::move(kwargs)),
        autocast_(mode().autocast),
        autocast_dtype_(mode().autocast_dtype) {}
  ~PythonCall() override {
    const py::gil_scoped_acquire lock;
    function_ = py::object();
    args_ = kwargs_ = Tree();
  }
  std::string name() const override {
    const py::gil_scoped_acquire lock;
    return py::getattr(function_, "__qualname__", py::str("a function")).cast<std::string>();
  }
  TensorList call(Inputs in) override {
    const py::gil_scoped_acquire lock;
    const AutocastRestore restore;
    mode().autocast = autocast_;
    mode().autocast_dtype = autocast_dtype_;
    const TensorList tensors(in);
    size_t next = 0;
    const auto args = py::reinterpret_steal<py::object>(checked(build(args_, tensors, next)));
    const auto kwargs = py::reinterpret_steal<py::object>(checked(build(kwargs_, tensors, next)));
    const auto result =
        py::reinterpret_steal<py::object>(checked(PyObject_Call(function_.ptr(), args.ptr(), kwargs.ptr())));
    TensorList out;
    flatten(result.ptr(), out);
    return out;
  }

 private:
  class AutocastRestore {
   public:
    AutocastRestore() : on_(mode().autocast), dtype_(mode().autocast_dtype) {}
    ~AutocastRestore() { mode().autocast = on_, mode().autocast_dtype = dtype_; }
    AutocastRestore(const AutocastRestore&) = delete;

   private:
    bool on_;
    DType dtype_;
  };

  py::object function_;
  Tree args_, kwargs_;
  bool autocast_;  // as when it was first called
  DType autocast_dtype_;
};

// Whether a result says more than tensors and None do: only those are passed on when a call is replayed.
bool holds_value(const Tree& t) {
  if (t.kind == Tree::kValue || t.kind == Tree::kObject) return !t.value.is_none();
  return std::ranges::any_of(t.children, holds_value);
}

// _jit_host(function, args, kwargs): calls function(*args, **kwargs) now, unrecorded, and again on every replay.
PyObject* jit_host(PyObject*, PyObject* const* a, Py_ssize_t n) {
  return guarded([&]() -> PyObject* {
    check_count("_jit_host", n, 3);
    auto* recording = dynamic_cast<Recording*>(mode().recorder);
    DS_CHECK(recording, "jit: nothing is being recorded");
    TensorList in, out;
    Tree args = flatten(a[1], in), kwargs = flatten(a[2], in);
    py::object result;
    {
      const RecorderPause pause;
      result = py::reinterpret_steal<py::object>(checked(PyObject_Call(a[0], a[1], a[2])));
    }
    if (holds_value(flatten(result.ptr(), out)))
      recording->refuse("a function that runs on every replay returns something else than tensors and None");
    TensorList after;
    if (!match(args, a[1], after, nullptr) || !match(kwargs, a[2], after, nullptr))
      recording->refuse("a function that runs on every replay changes a container it is given");
    recording->record_host(Ref<jit::HostCall>(new PythonCall(a[0], std::move(args), std::move(kwargs))), in, out);
    return result.release().ptr();
  });
}

PyObject* jit_recording(PyObject*, PyObject*) { return PyBool_FromLong(mode().recorder != nullptr); }

template <class F>
PyCFunction method(F* f) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(f));
}
PyMethodDef methods[] = {
    {"_jit_call", method(jit_call), METH_FASTCALL, "Replay the first recorded call that fits."},
    {"_jit_record", method(jit_record), METH_FASTCALL, "Call a function and write down what it does."},
    {"_jit_host", method(jit_host), METH_FASTCALL, "Call a function now and on every replay."},
    {"_jit_recording", method(jit_recording), METH_NOARGS, "Whether a call is being written down."},
};

}  // namespace

void bind_jit(py::module_& m) {
  bind_jit_state();
  for (PyMethodDef& def : methods)
    m.attr(def.ml_name) = py::reinterpret_steal<py::object>(PyCFunction_New(&def, nullptr));
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
      [](const py::object& entry, const py::tuple& args, const py::dict& kwargs) {
        TensorList tensors;
        std::string why;
        return admits(entry_of(entry.ptr()), args.ptr(), kwargs.ptr(), tensors, &why) ? std::string() : why;
      },
      py::arg("entry"), py::arg("args"), py::arg("kwargs"));
  m.def(
      "_jit_change", [](const py::object& state) { return state_of(state.ptr()).change(); }, py::arg("state"));
  m.def("_jit_passes", [] {
    py::dict d;
    for (const jit::Pass& p : jit::passes()) d[p.name] = p.doc;
    return d;
  });
}

}  // namespace deepseek::python
