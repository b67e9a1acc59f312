#include "python/jit_state.h"

#include "python/jit_tree.h"
#include "python/slots.h"

namespace deepseek::python {

namespace py = pybind11;

// --- comparing

bool State::dict_holds(const Check& c) const {
  if (PyDict_GET_SIZE(c.container) != c.size) return false;
  PyObject *key, *value;
  Py_ssize_t at = 0;
  uint32_t i = 0;
  for (; i < c.count; ++i) {  // nearly always in the same order
    const Item& item = items_[c.begin + i];
    if (!PyDict_Next(c.container, &at, &key, &value) || key != item.key || value != item.value) break;
  }
  for (; i < c.count; ++i) {
    const Item& item = items_[c.begin + i];
    const auto now = py::reinterpret_borrow<py::object>(PyDict_GetItem(c.container, item.key));
    if (!now || !same_value(now.ptr(), item.value)) return false;
  }
  return true;
}

bool State::holds(const Check& c) const {
  switch (c.kind) {
    case Kind::kDict:
      return dict_holds(c);
    case Kind::kSome:
      for (uint32_t i = c.begin; i < c.begin + c.count; ++i) {
        PyObject* now = PyDict_GetItem(c.container, items_[i].key);
        if (now == items_[i].value) continue;
        const auto held = py::reinterpret_borrow<py::object>(now);
        if (!now || !same_value(now, items_[i].value)) return false;
      }
      return true;
    case Kind::kList:
      if (PyList_GET_SIZE(c.container) != c.size) return false;
      for (uint32_t i = 0; i < c.count; ++i) {
        if (i >= static_cast<size_t>(PyList_GET_SIZE(c.container))) return false;  // a comparison may run any code
        PyObject* now = PyList_GET_ITEM(c.container, i);
        if (now == items_[c.begin + i].value) continue;
        const auto held = py::reinterpret_borrow<py::object>(now);
        if (!same_value(now, items_[c.begin + i].value)) return false;
      }
      return true;
    case Kind::kCell: {
      const auto now = py::reinterpret_borrow<py::object>(PyCell_GET(c.container));
      return now && same_value(now.ptr(), items_[c.begin].value);
    }
  }
  return false;
}

bool State::unchanged() const {
  for (const Check& c : checks_)
    if (!holds(c)) return false;
  return !cleared_;
}

// --- messages

namespace {
std::string text_of(PyObject* key) {
  const auto text = py::reinterpret_steal<py::object>(PyObject_Str(key));
  if (!text) PyErr_Clear();
  return text ? text.cast<std::string>() : "?";
}

std::string brief(PyObject* value) {
  if (!value) return "'<missing>'";
  if (!is_tensor(value)) return show(value);
  std::ostringstream os;
  os << "a tensor of size " << cell_of(value).sizes;
  return os.str();
}
}  // namespace

std::string State::words(const Name& n) const {
  const auto parent = [&] { return n.parent < 0 ? std::string() : words(names_[n.parent]); };
  const auto key = [&] { return n.key ? text_of(n.key) : std::to_string(n.index); };
  switch (n.form) {
    case Name::kPlain:
      return key();
    case Name::kArgument:
      return "argument " + key();
    case Name::kItem:
      return parent() + "[" + show(n.key) + "]";
    case Name::kIndex:
      return parent() + "[" + key() + "]";
    case Name::kAttribute:
      return parent() + "." + key();
    case Name::kDefault:
      return "default " + key() + " of " + parent();
    case Name::kGlobal:
      return "global " + key();
    case Name::kClosure:
      return "closure variable " + key();
  }
  return {};
}

std::string State::change(const Check& c) const {
  if (c.kind == Kind::kDict || c.kind == Kind::kList) {
    const Py_ssize_t now = PyObject_Size(c.container);
    if (now != c.size)
      return "the length of " + words(names_[c.name]) + (c.form == Name::kAttribute ? ".__dict__" : "") +
             " changed from " + std::to_string(c.size) + " to " + std::to_string(now);
  }
  for (uint32_t i = 0; i < c.count; ++i) {
    const Item& item = items_[c.begin + i];
    py::object now;
    if (c.kind == Kind::kList)
      now = py::reinterpret_borrow<py::object>(PyList_GetItem(c.container, i));
    else if (c.kind == Kind::kCell)
      now = py::reinterpret_borrow<py::object>(PyCell_GET(c.container));
    else
      now = py::reinterpret_borrow<py::object>(PyDict_GetItem(c.container, item.key));
    if (now && same_value(now.ptr(), item.value)) continue;
    PyErr_Clear();
    return words({c.form, c.name, item.key, i}) + " changed from " + brief(item.value) + " to " + brief(now.ptr());
  }
  return "something it looked at changed and changed back";
}

std::string State::change() const {
  for (const Check& c : checks_)
    if (!holds(c)) return change(c);
  return {};
}

// --- references

int State::traverse(visitproc visit, void* arg) const {
  for (const Check& c : checks_) Py_VISIT(c.container);
  for (const Item& i : items_) {
    Py_VISIT(i.key);
    Py_VISIT(i.value);
  }
  for (const Name& n : names_) Py_VISIT(n.key);
  return 0;
}

void State::clear() {
  cleared_ = true;
  const auto checks = std::move(checks_);  // a destructor may run any code
  const auto items = std::move(items_);
  const auto names = std::move(names_);
  checks_.clear();
  items_.clear();
  names_.clear();
  for (const Check& c : checks) Py_DECREF(c.container);
  for (const Item& i : items) {
    Py_XDECREF(i.key);
    Py_DECREF(i.value);
  }
  for (const Name& n : names) Py_XDECREF(n.key);
}

namespace {

struct StateObject {
  PyObject_HEAD State* state;
};
PyTypeObject* state_type = nullptr;

int state_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return reinterpret_cast<StateObject*>(self)->state->traverse(visit, arg);
}
int state_clear(PyObject* self) {
  reinterpret_cast<StateObject*>(self)->state->clear();
  return 0;
}
void state_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  delete reinterpret_cast<StateObject*>(self)->state;
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

}  // namespace

PyObject* new_state() {
  auto state = std::make_unique<State>();
  auto* o = PyObject_GC_New(StateObject, state_type);
  if (!o) throw PythonError();
  o->state = state.release();
  PyObject_GC_Track(o);
  return reinterpret_cast<PyObject*>(o);
}

State& state_of(PyObject* o) {
  DS_CHECK_AS(TypeError, Py_TYPE(o) == state_type, "expected the state of a recording, got ", Py_TYPE(o)->tp_name);
  return *reinterpret_cast<StateObject*>(o)->state;
}

void bind_jit_state() {
  state_type = new_type(
      "deepseek._C._JitState", sizeof(StateObject),
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
      {slot<Py_tp_traverse, state_traverse>(), slot<Py_tp_clear, state_clear>(), slot<Py_tp_dealloc, state_dealloc>()});
}

}  // namespace deepseek::python
