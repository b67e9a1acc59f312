// deepseek.jit for Python: recording a call, and the guards that decide whether a recorded one may be replayed.
#include <sstream>

#include "jit/recording.h"
#include "python/python.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;
using jit::Graph;
using jit::Recording;

// The structure of arguments or of a result: containers, tensors by number, everything else by value.
struct Tree {
  enum Kind : uint8_t { kTensor, kValue, kObject, kTuple, kList, kDict };
  Kind kind = kValue;
  py::object value;  // kValue, kObject; the type of a tuple or list
  std::vector<py::object> keys;
  std::vector<Tree> children;
};

bool is_value(PyObject* o) {
  return o == Py_None || PyBool_Check(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) ||
         is_dtype(o) || PyComplex_CheckExact(o) || o == Py_Ellipsis || PySlice_Check(o);
}

Tree flatten(PyObject* o, TensorList& tensors) {
  Tree t;
  if (is_tensor(o)) {
    t.kind = Tree::kTensor;
    tensors.push_back(unwrap(o));
  } else if (PyTuple_Check(o) || PyList_CheckExact(o)) {
    t.kind = PyTuple_Check(o) ? Tree::kTuple : Tree::kList;
    t.value = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(Py_TYPE(o)));
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
    for (Py_ssize_t i = 0; i < n; ++i) t.children.push_back(flatten(PySequence_Fast_GET_ITEM(o, i), tensors));
  } else if (PyDict_CheckExact(o)) {
    t.kind = Tree::kDict;
    PyObject *key, *item;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item);) {
      t.keys.push_back(py::reinterpret_borrow<py::object>(key));
      t.children.push_back(flatten(item, tensors));
    }
  } else {
    t.kind = is_value(o) ? Tree::kValue : Tree::kObject;
    t.value = py::reinterpret_borrow<py::object>(o);
  }
  return t;
}

bool same_value(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (Py_TYPE(a) != Py_TYPE(b)) return false;
  if (PyFloat_CheckExact(a)) {  // bits: 0.0 is not -0.0, NaN is NaN
    const double x = PyFloat_AS_DOUBLE(a), y = PyFloat_AS_DOUBLE(b);
    return std::memcmp(&x, &y, sizeof x) == 0;
  }
  if (!is_value(a) && !PyTuple_CheckExact(a) && !PyFrozenSet_CheckExact(a) && !PyBytes_CheckExact(a)) return false;
  const int equal = PyObject_RichCompareBool(a, b, Py_EQ);
  if (equal < 0) PyErr_Clear();
  return equal == 1;
}

std::string show(PyObject* o) {
  const py::object text = py::reinterpret_steal<py::object>(PyObject_Repr(o));
  if (!text) {
    PyErr_Clear();
    return Py_TYPE(o)->tp_name;
  }
  auto s = text.cast<std::string>();
  return s.size() > 60 ? s.substr(0, 57) + "..." : s;
}

// Collects the tensors of `o` when it has the structure and values of `t`. `why`, where given, says what differs.
bool match(const Tree& t, PyObject* o, TensorList& tensors, std::string* why) {
  const auto differs = [&](const std::string& text) {
    if (why && why->empty()) *why = text;
    return false;
  };
  switch (t.kind) {
    case Tree::kTensor:
      if (!is_tensor(o)) return differs(std::string("a Tensor became ") + Py_TYPE(o)->tp_name);
      tensors.push_back(unwrap(o));
      return true;
    case Tree::kValue:
      return same_value(t.value.ptr(), o) || differs("the value " + show(t.value.ptr()) + " became " + show(o));
    case Tree::kObject:
      return t.value.ptr() == o || differs(std::string("another object of type ") + Py_TYPE(o)->tp_name);
    case Tree::kTuple:
    case Tree::kList: {
      if (reinterpret_cast<PyObject*>(Py_TYPE(o)) != t.value.ptr())
        return differs(show(t.value.ptr()) + " became " + Py_TYPE(o)->tp_name);
      if (static_cast<size_t>(PySequence_Fast_GET_SIZE(o)) != t.children.size())
        return differs("a sequence of " + std::to_string(t.children.size()) + " items became one of " +
                       std::to_string(PySequence_Fast_GET_SIZE(o)));
      for (size_t i = 0; i < t.children.size(); ++i)
        if (!match(t.children[i], PySequence_Fast_GET_ITEM(o, i), tensors, why)) return false;
      return true;
    }
    case Tree::kDict: {
      if (!PyDict_CheckExact(o) || static_cast<size_t>(PyDict_GET_SIZE(o)) != t.keys.size())
        return differs("a dict has other keys");
      PyObject *key, *item;
      size_t i = 0;
      for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item); ++i)
        if (!same_value(t.keys[i].ptr(), key) || !match(t.children[i], item, tensors, why))
          return differs("a dict has other keys");
      return true;
    }
  }
  return false;
}

PyObject* build(const Tree& t, const TensorList& tensors, size_t& next) {
  switch (t.kind) {
    case Tree::kTensor:
      return wrap(tensors[next++]);
    case Tree::kValue:
    case Tree::kObject:
      return py::object(t.value).release().ptr();
    case Tree::kTuple: {
      py::tuple items(t.children.size());
      for (size_t i = 0; i < t.children.size(); ++i)
        items[i] = py::reinterpret_steal<py::object>(build(t.children[i], tensors, next));
      if (reinterpret_cast<PyTypeObject*>(t.value.ptr()) == &PyTuple_Type) return items.release().ptr();
      // A named tuple takes its fields one by one, other subclasses a sequence.
      const bool named = py::hasattr(t.value, "_fields");
      return (named ? t.value(*items) : t.value(items)).release().ptr();
    }
    case Tree::kList: {
      py::list items(t.children.size());
      for (size_t i = 0; i < t.children.size(); ++i)
        items[i] = py::reinterpret_steal<py::object>(build(t.children[i], tensors, next));
      return items.release().ptr();
    }
    case Tree::kDict: {
      py::dict items;
      for (size_t i = 0; i < t.keys.size(); ++i)
        items[t.keys[i]] = py::reinterpret_steal<py::object>(build(t.children[i], tensors, next));
      return items.release().ptr();
    }
  }
  return nullptr;
}

bool holds_object(const Tree& t) {
  if (t.kind == Tree::kObject) return true;
  for (const Tree& c : t.children)
    if (holds_object(c)) return true;
  return false;
}

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

// One captured call.
struct Entry {
  Graph graph;
  Tree args, kwargs, result;
  std::vector<TensorGuard> inputs, captured;
  ModeGuard modes;
};

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

bool admits(const Entry& e, PyObject* args, PyObject* kwargs, TensorList& tensors, std::string* why) {
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
  for (size_t i = 0; i < e.captured.size(); ++i) {
    std::string detail;
    if (check(e.captured[i], e.graph.captured[i].tensor, why ? &detail : nullptr)) continue;
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

// State of the program: tuples (kind, container, key, expected), made by deepseek/jit/guards.py.
enum StateKind { kDictItem, kDictSize, kListSize, kListItem, kCell, kAttribute };

bool holds(PyObject* guard) {
  PyObject* container = PyTuple_GET_ITEM(guard, 1);
  PyObject* key = PyTuple_GET_ITEM(guard, 2);
  PyObject* expected = PyTuple_GET_ITEM(guard, 3);
  switch (PyLong_AsLong(PyTuple_GET_ITEM(guard, 0))) {
    case kDictItem: {
      PyObject* now = PyDict_GetItem(container, key);
      return now && (now == expected || same_value(now, expected));
    }
    case kDictSize:
      return PyDict_GET_SIZE(container) == PyLong_AsSsize_t(expected);
    case kListSize:
      return PyList_GET_SIZE(container) == PyLong_AsSsize_t(expected);
    case kListItem: {
      const Py_ssize_t i = PyLong_AsSsize_t(key);
      if (i >= PyList_GET_SIZE(container)) return false;
      PyObject* now = PyList_GET_ITEM(container, i);
      return now == expected || same_value(now, expected);
    }
    case kAttribute: {
      PyObject* now = PyObject_GetAttr(container, key);
      if (!now) PyErr_Clear();
      const bool same = now && (now == expected || same_value(now, expected));
      Py_XDECREF(now);
      return same;
    }
    case kCell: {
      PyObject* now = PyCell_GET(container);
      return now && (now == expected || same_value(now, expected));
    }
  }
  return false;
}

PyObject* failed_guard(PyObject* guards) {  // borrowed; null when all hold
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(guards); ++i)
    if (!holds(PyList_GET_ITEM(guards, i))) return PyList_GET_ITEM(guards, i);
  return nullptr;
}

// _jit_call(entries, args, kwargs): the result of the first entry that fits, NotImplemented when none does, Ellipsis
// while another call is being recorded. entries: a list of (entry, state guards).
PyObject* jit_call(PyObject*, PyObject* const* a, Py_ssize_t) {
  return guarded([&]() -> PyObject* {
    if (mode().recorder) return Py_NewRef(Py_Ellipsis);
    PyObject* entries = a[0];
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entries); ++i) {
      const py::object pair = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(entries, i));
      const Entry& e = entry_of(PyTuple_GET_ITEM(pair.ptr(), 0));
      TensorList in, out;
      if (!admits(e, a[1], a[2], in, nullptr) || failed_guard(PyTuple_GET_ITEM(pair.ptr(), 1))) continue;
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
PyMethodDef jit_call_def{"_jit_call", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(jit_call)), METH_FASTCALL,
                         "Replay the first recorded call that fits."};

// _jit_record(function, args, kwargs, passes, verify) -> (result, entry or None, why not).
py::tuple record(const py::object& function, const py::tuple& args, const py::dict& kwargs, const py::list& passes,
                 bool verify) {
  auto e = std::make_unique<Entry>();
  TensorList in, out;
  e->args = flatten(args.ptr(), in);
  e->kwargs = flatten(kwargs.ptr(), in);
  for (const Tensor& t : in) e->inputs.push_back(guard_of(t));
  note_sharing(e->inputs, in);
  e->modes = {};
  py::object result;
  std::string why;
  {
    Recording recording(in);
    result = function(*args, **kwargs);
    e->result = flatten(result.ptr(), out);
    why = recording.finish(out);
    if (holds_object(e->result) && why.empty())
      why = "it returns an object that is neither a tensor, a number, a string nor a container of them";
    if (!(e->modes == ModeGuard())) why = "it changes grad mode, inference mode, autocast or the default dtype";
    if (result.is(py::ellipsis()))
      why = "it returns an Ellipsis";  // which means something else to the caller of _jit_call
    e->graph = std::move(recording.graph());
  }
  if (!why.empty()) return py::make_tuple(result, py::none(), why);
  if (verify) jit::verify(e->graph);
  for (const jit::Pass& p : jit::passes()) {
    if (!passes.contains(p.name)) continue;
    p.run(e->graph);
    if (verify) jit::verify(e->graph);
  }
  for (const jit::Captured& c : e->graph.captured) e->captured.push_back(guard_of(c.tensor));
  const py::capsule capsule(e.release(), "deepseek.jit", [](void* p) { delete static_cast<Entry*>(p); });
  return py::make_tuple(result, capsule, "");
}

// Runs a Python function for real on every replay.
class PythonCall final : public jit::HostCall {
 public:
  PythonCall(py::object function, py::object name) : function_(std::move(function)), name_(std::move(name)) {}
  ~PythonCall() override {
    const py::gil_scoped_acquire lock;
    function_ = py::object();
    name_ = py::object();
  }
  std::string name() const override {
    const py::gil_scoped_acquire lock;
    return name_.cast<std::string>();
  }
  TensorList call(Inputs in) override {
    const py::gil_scoped_acquire lock;
    py::list tensors;
    for (const Tensor& t : in) tensors.append(t);
    const py::object result = function_(tensors);
    TensorList out;
    flatten(result.ptr(), out);
    return out;
  }

 private:
  py::object function_, name_;
};

// Puts `tensors` back in the places of those in `structure`.
py::object rebuild(const Tree& t, const py::list& tensors) {
  TensorList list;
  for (const py::handle h : tensors) list.push_back(h.cast<Tensor>());
  size_t next = 0;
  return py::reinterpret_steal<py::object>(checked(build(t, list, next)));
}

}  // namespace

void bind_jit(py::module_& m) {
  m.attr("_jit_call") = py::reinterpret_steal<py::object>(PyCFunction_New(&jit_call_def, nullptr));
  m.def("_jit_record", record, py::arg("function"), py::arg("args"), py::arg("kwargs"), py::arg("passes"),
        py::arg("verify"));
  m.def("_jit_recording", [] { return mode().recorder != nullptr; });
  m.def(
      "_jit_refuse",
      [](const std::string& why) {
        if (mode().recorder) mode().recorder->refuse(why);
      },
      py::arg("why"));
  m.def(
      "_jit_text", [](const py::object& entry) { return jit::to_text(entry_of(entry.ptr()).graph); }, py::arg("entry"));
  m.def(
      "_jit_why",
      [](const py::object& entry, const py::tuple& args, const py::dict& kwargs) {
        TensorList tensors;
        std::string why;
        return admits(entry_of(entry.ptr()), args.ptr(), kwargs.ptr(), tensors, &why) ? std::string() : why;
      },
      py::arg("entry"), py::arg("args"), py::arg("kwargs"));
  m.def(
      "_jit_failed_guard",
      [](const py::list& guards) -> py::object {
        PyObject* g = failed_guard(guards.ptr());
        return g ? py::reinterpret_borrow<py::object>(g) : py::none();
      },
      py::arg("guards"));
  m.def("_jit_passes", [] {
    py::dict d;
    for (const jit::Pass& p : jit::passes()) d[p.name] = p.doc;
    return d;
  });
  // Calls function(*args, **kwargs) now, unrecorded, and again on every replay.
  m.def(
      "_jit_host",
      [](const py::object& function, const py::tuple& args, const py::dict& kwargs) {
        auto* recording = dynamic_cast<Recording*>(mode().recorder);
        DS_CHECK(recording, "jit: nothing is being recorded");
        TensorList in, out;
        auto call = std::make_shared<Tree>(flatten(py::make_tuple(args, kwargs).ptr(), in));
        py::object result;
        {
          const RecorderPause pause;
          result = function(*args, **kwargs);
        }
        const Tree structure = flatten(result.ptr(), out);
        if (holds_object(structure)) recording->refuse("a function that runs on every replay returns an object");
        const py::object again = py::cpp_function([function, call](const py::list& tensors) {
          const py::tuple both = rebuild(*call, tensors);
          return function(*py::tuple(both[0]), **py::dict(both[1]));
        });
        const py::object name = py::getattr(function, "__qualname__", py::str("a function"));
        recording->record_host(Ref<jit::HostCall>(new PythonCall(again, name)), in, out);
        return result;
      },
      py::arg("function"), py::arg("args"), py::arg("kwargs"));
}

}  // namespace deepseek::python
