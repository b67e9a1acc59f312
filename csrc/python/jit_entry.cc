#include "python/jit_entry.h"

#include <algorithm>
#include <sstream>

#include "jit/recording.h"
#include "python/jit_host.h"
#include "python/slots.h"

namespace deepseek::python {

namespace py = pybind11;

namespace {

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

}  // namespace

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

bool Entry::admits(PyObject* args_given, PyObject* kwargs_given, TensorList& tensors, std::string* why) {
  if (cleared) return false;
  if (!match(args, args_given, tensors, why) || !match(kwargs, kwargs_given, tensors, why)) return false;
  if (!(modes == ModeGuard())) {
    if (why) *why = "grad mode, inference mode, autocast or the default dtype changed";
    return false;
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::string detail;
    if (check(inputs[i], tensors[i], why ? &detail : nullptr)) continue;
    if (why) *why = "tensor " + std::to_string(i) + " of the arguments: " + detail;
    return false;
  }
  if (!check_sharing(inputs, tensors)) {
    if (why) *why = "other arguments share memory";
    return false;
  }
  prepare();
  auto c = graph.captured.begin();
  for (const CapturedGuard& g : captured) {
    while (c->slot != g.slot) ++c;
    std::string detail;
    if (check(g.guard, c->tensor, why ? &detail : nullptr)) continue;
    if (why) *why = "a tensor the function captured: " + detail;
    return false;
  }
  const auto grad_present = [&](int32_t slot) {
    const auto defined = [](const Tensor& t) { return t.cell()->grad_meta && t.cell()->grad_meta->grad.defined(); };
    for (size_t i = 0; i < tensors.size(); ++i)
      if (graph.inputs[i] == slot) return defined(tensors[i]);
    for (const jit::Captured& c : graph.captured)
      if (c.slot == slot) return defined(c.tensor);
    return false;
  };
  for (const jit::GradState& s : graph.grads) {
    if (grad_present(s.slot) == s.present) continue;
    if (why) *why = s.present ? "a .grad became None" : "a .grad is no longer None";
    return false;
  }
  return true;
}

std::string Entry::record(State& state, PyObject* function, PyObject* given, PyObject* named, py::object& returned) {
  TensorList in, out;
  args = flatten(given, in);
  kwargs = flatten(named, in);
  for (const Tensor& t : in) inputs.push_back(guard_of(t));
  note_sharing(inputs, in);
  state.note(function, given, named);
  jit::Recording recording(in);
  returned = py::reinterpret_steal<py::object>(checked(PyObject_Call(function, given, named)));
  result = flatten(returned.ptr(), out);
  const std::string why = recording.finish(out);
  if (returned.is(py::ellipsis())) return "it returns an Ellipsis";  // which means something else to _jit_call's caller
  if (!(modes == ModeGuard())) return "it changes grad mode, inference mode, autocast or the default dtype";
  if (!why.empty()) return why;
  if (holds_object(result))
    return "it returns an object that is neither a tensor, a number, a string nor a container of them";
  if (!state.refusal().empty()) return state.refusal();
  if (const std::string change = state.change(); !change.empty()) return "it changes the program's state: " + change;
  graph = std::move(recording.graph());
  for (const jit::Captured& c : graph.captured)
    if (!c.constant) captured.push_back({c.slot, guard_of(c.tensor)});
  return {};
}

// --- references

int Entry::traverse(visitproc visit, void* arg) const {
  for (const Tree* t : {&args, &kwargs, &result})
    if (const int stop = python::traverse(*t, visit, arg)) return stop;
  Py_VISIT(passes.ptr());
  for (const jit::GraphNode& n : graph.nodes) {
    const auto* call = dynamic_cast<const PythonCall*>(n.host.get());
    if (!call || call->use_count() > 1) continue;  // somebody else holds it too
    if (const int stop = call->traverse(visit, arg)) return stop;
  }
  return 0;
}

void Entry::clear() {
  cleared = true;
  const jit::Graph old_graph = std::exchange(graph, {});  // a destructor may run any code
  const Tree old_args = std::exchange(args, {}), old_kwargs = std::exchange(kwargs, {});
  const Tree old_result = std::exchange(result, {});
  const py::object old_passes = std::move(passes);
}

namespace {

struct EntryObject {
  PyObject_HEAD Entry* entry;
};
PyTypeObject* entry_type = nullptr;

int entry_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return reinterpret_cast<EntryObject*>(self)->entry->traverse(visit, arg);
}
int entry_clear(PyObject* self) {
  reinterpret_cast<EntryObject*>(self)->entry->clear();
  return 0;
}
void entry_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  delete reinterpret_cast<EntryObject*>(self)->entry;
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

}  // namespace

PyObject* new_entry(std::unique_ptr<Entry> entry) {
  auto* o = PyObject_GC_New(EntryObject, entry_type);
  if (!o) throw PythonError();
  o->entry = entry.release();
  PyObject_GC_Track(o);
  return reinterpret_cast<PyObject*>(o);
}

Entry& entry_of(PyObject* o) {
  DS_CHECK_AS(TypeError, Py_TYPE(o) == entry_type, "expected a recording, got ", Py_TYPE(o)->tp_name);
  return *reinterpret_cast<EntryObject*>(o)->entry;
}

void bind_jit_entry() {
  entry_type = new_type(
      "deepseek._C._JitEntry", sizeof(EntryObject),
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
      {slot<Py_tp_traverse, entry_traverse>(), slot<Py_tp_clear, entry_clear>(), slot<Py_tp_dealloc, entry_dealloc>()});
}

}  // namespace deepseek::python
