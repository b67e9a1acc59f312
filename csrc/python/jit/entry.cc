#include "python/jit/entry.h"

#include <algorithm>

#include "jit/recording.h"
#include "python/jit/host.h"
#include "python/jit/observe.h"
#include "python/slots.h"

namespace deepseek::python {

namespace {

// The attributes a tensor's Python object has; null when there are none.
PyObject* attributes_of(const Tensor& t) {
  const auto* object = static_cast<const TensorObject*>(t.cell()->python);
  return object && object->dict && PyDict_GET_SIZE(object->dict) > 0 ? object->dict : nullptr;
}

bool check(const jit::TensorState& s, const Tensor& t, std::string* why) {
  if (s.is_of(t)) return true;
  if (why) *why += s.difference(t);
  return false;
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

void containers_in(PyObject* args, PyObject* kwargs, Containers& found) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i) add_containers(PyTuple_GET_ITEM(args, i), found);
  PyObject *key, *item;
  for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &key, &item);) add_containers(item, found);
}

std::vector<ContainerGuard> guards_of(const Containers& given, const State& state) {
  std::vector<ContainerGuard> guards;
  for (size_t i = 0; i < given.size(); ++i) {
    const bool is_value = PyTuple_Check(given[i]);
    const auto first = std::ranges::find(given, given[i]) - given.begin();
    guards.push_back({is_value ? i : static_cast<size_t>(first),
                      !is_value && state.watches_container(given[i]) ? given[i] : nullptr});
  }
  return guards;
}

// The first tensor on the memory of `t`; their number when there is none.
size_t first_on(const Tensor& t, Inputs tensors) {
  for (size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].storage() == t.storage()) return i;
  return tensors.size();
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

// The garbage collector may begin at any allocation, and what it calls (callbacks, finalizers) has nothing to do with
// the call.
class CollectorPause {
 public:
  CollectorPause() : was_on_(PyGC_Disable()) {}
  ~CollectorPause() {
    if (was_on_) PyGC_Enable();
  }
  CollectorPause(const CollectorPause&) = delete;

 private:
  int was_on_;
};

}  // namespace

void Entry::prepare() {
  if (!passes) return;
  const Object names = std::move(passes);
  const std::vector<jit::Captured> held = graph.captured;  // a dying tensor may run any code, also this call again
  if (verify) jit::verify(graph);
  for (const jit::Pass& p : jit::passes()) {
    if (checked(PySequence_Contains(names.get(), to_python(p.name).get())) == 0) continue;
    p.run(graph);
    if (verify) jit::verify(graph);
  }
  auto kept = graph.captured.begin();  // unused ones were dropped, the others are in the same order
  std::erase_if(captured, [&](const CapturedGuard& g) {
    while (kept != graph.captured.end() && kept->slot < g.slot) ++kept;
    return kept == graph.captured.end() || kept->slot != g.slot;
  });
}

bool Entry::admits(const State& state, PyObject* args_given, PyObject* kwargs_given, TensorList& tensors,
                   Containers& given, std::string* why) {
  if (cleared) return false;
  if (!match(args, args_given, tensors, why) || !match(kwargs, kwargs_given, tensors, why)) return false;
  if (!containers.empty()) {
    containers_in(args_given, kwargs_given, given);
    if (guards_of(given, state) != containers) {
      if (why) *why = "other containers among the arguments are the same one, or one the function can reach";
      return false;
    }
  }
  if (!(modes == ModeGuard())) {
    if (why) *why = "grad mode, inference mode, autocast or the default dtype changed";
    return false;
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::string detail;
    if (check(inputs[i].state, tensors[i], why ? &detail : nullptr)) {
      if (inputs[i].attributes == attributes_of(tensors[i])) continue;
      detail = "it has other attributes";
    }
    if (why) *why = "tensor " + std::to_string(i) + " of the arguments: " + detail;
    return false;
  }
  if (!check_sharing(inputs, tensors)) {
    if (why) *why = "other arguments share memory";
    return false;
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& t = tensors[i];
    const bool same_cell = state.watches(t.cell()) ? t.cell() == inputs[i].reached : !inputs[i].reached;
    const bool same_memory =
        !inputs[i].storage || (t.storage().get() == inputs[i].storage && t.offset() == inputs[i].offset);
    if (same_cell && same_memory) continue;
    if (why) *why = "other arguments are tensors the function reaches itself, or on their memory";
    return false;
  }
  prepare();
  auto c = graph.captured.begin();
  for (const CapturedGuard& g : captured) {
    while (c->slot != g.slot) ++c;
    std::string detail;
    if (g.watched || check(*c->found, c->tensor, why ? &detail : nullptr)) {
      if (c->tensor.storage().get() == g.storage && first_on(c->tensor, tensors) == g.shared_with) continue;
      detail = "it is on other memory, or arguments share that";
    }
    if (why) *why = "a tensor the function captured: " + detail;
    return false;
  }
  const auto grad_of = [&](int32_t slot) {
    const auto of = [](const Tensor& t) { return t.cell()->grad_meta ? t.cell()->grad_meta->grad : Tensor(); };
    for (size_t i = 0; i < tensors.size(); ++i)
      if (graph.inputs[i] == slot) return of(tensors[i]);
    for (const jit::Captured& c : graph.captured)
      if (c.slot == slot) return of(c.tensor);
    return Tensor();
  };
  for (const jit::GradState& s : graph.grads) {
    const Tensor grad = grad_of(s.slot);
    std::string detail;
    if (grad.defined() != s.found.has_value())
      detail = s.found ? "it became None" : "it is no longer None";
    else if (!s.found || check(*s.found, grad, &detail))
      continue;
    if (why) *why = "a .grad: " + detail;
    return false;
  }
  return true;
}

namespace {

// What others can do with a result besides reading it must be the same on a replay, which makes plain tensors.
bool is_plain_result(const Tensor& t, Inputs given, const jit::Graph& graph) {
  const auto* object = static_cast<PyObject*>(t.cell()->python);
  if (is_exact_tensor(const_cast<PyObject*>(object)) && !attributes_of(t)) return true;
  const auto is_t = [&](const Tensor& other) { return other.is(t); };
  return std::ranges::any_of(given, is_t) ||
         std::ranges::any_of(graph.captured, [&](const jit::Captured& c) { return c.tensor.is(t); });
}

}  // namespace

std::string Entry::record(State& state, PyObject* function, PyObject* given, PyObject* named, Object& returned) {
  TensorList in, out, after;
  args = flatten(given, in);
  kwargs = flatten(named, in);
  for (const Tensor& t : in) inputs.push_back({jit::TensorState(t), attributes_of(t), 0, 0});

  note_sharing(inputs, in);
  StateWalk walk(state);
  walk.start(function, given, named);
  const auto call = [&] { returned = owned(PyObject_Call(function, given, named)); };
  if (std::string why = walk.refusal(); !why.empty()) {
    call();
    return why;
  }
  jit::Recording recording(in);
  {
    const CollectorPause pause;
    const Observer observer(walk, &recording);
    call();
    if (observer.loaded()) walk.names_loaded();
  }
  Containers known;
  containers_in(given, named, known);
  containers = guards_of(known, state);
  result = flatten(returned.get(), out, &known, [&](PyObject* o) { return state.watches_container(o); });
  const std::string why = recording.finish(out, walk.handles());
  if (returned.is(Py_Ellipsis)) return "it returns an Ellipsis";  // which means something else to _jit_call's caller
  if (!(modes == ModeGuard())) return "it changes grad mode, inference mode, autocast or the default dtype";
  if (!why.empty()) return why;
  if (holds_object(result))
    return "it returns an object that is neither a tensor, a number, a string nor a container of them";
  if (std::string refusal = walk.refusal(); !refusal.empty()) return refusal;
  if (const std::string change = state.change(); !change.empty()) return "it changes the program's state: " + change;
  if (!match(args, given, after, nullptr) || !match(kwargs, named, after, nullptr))
    return "it changes a container it is given";
  for (size_t i = 0; i < in.size(); ++i)
    if (!after[i].is(in[i]) || attributes_of(in[i]) != inputs[i].attributes) return "it changes an argument";
  for (size_t i = 0; i < in.size(); ++i) {
    if (state.watches(in[i].cell())) inputs[i].reached = in[i].cell();
    if (!state.watches_memory(in[i].storage().get())) continue;
    inputs[i].storage = in[i].storage().get();
    inputs[i].offset = in[i].offset();
  }
  graph = std::move(recording.graph());
  for (const Tensor& t : out)
    if (!is_plain_result(t, in, graph)) return "it returns a tensor with attributes, or of a subclass";
  for (const jit::Captured& c : graph.captured)
    if (!c.constant)
      captured.push_back({c.slot, c.tensor.storage().get(), first_on(c.tensor, in), state.watches(c.tensor.cell())});
  return {};
}

// --- references

int Entry::traverse(visitproc visit, void* arg) const {
  for (const Tree* t : {&args, &kwargs, &result})
    if (const int stop = python::traverse(*t, visit, arg)) return stop;
  Py_VISIT(passes.get());
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
  const Object old_passes = std::move(passes);
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
