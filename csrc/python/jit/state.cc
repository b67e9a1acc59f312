#include "python/jit/state.h"

#include <algorithm>

#include "python/jit/tree.h"
#include "python/slots.h"

namespace deepseek::python {

// --- comparing

namespace {

// A comparison may run any code.
bool same(PyObject* now, PyObject* then) {
  if (now == then) return true;
  if (!now || !then) return false;
  const Object held = Object::borrow(now);
  return same_value(now, then);
}

// A function without attributes is one with none.
PyObject* attributes_of(PyFunctionObject* f) {
  return f->func_dict && PyDict_GET_SIZE(f->func_dict) > 0 ? f->func_dict : nullptr;
}

PyObject* attributes_of_tensor(PyObject* tensor) {
  PyObject* attributes = reinterpret_cast<TensorObject*>(tensor)->dict;
  return attributes && PyDict_GET_SIZE(attributes) > 0 ? attributes : nullptr;
}

}  // namespace

bool State::dict_holds(const Check& c) const {
  if (PyDict_GET_SIZE(c.container) != c.size) return false;
  PyObject *key, *value;
  Py_ssize_t at = 0;
  for (uint32_t i = 0; i < c.count; ++i) {
    const Item& item = items_[c.begin + i];
    if (!PyDict_Next(c.container, &at, &key, &value)) return false;
    if (key == item.key && value == item.value) continue;  // nearly always
    const Object held = Object::borrow(value);
    if (!same(key, item.key) || !same(held.get(), item.value)) return false;
  }
  return true;
}

// What the items of a check are at present; null where there is nothing.
std::vector<Object> State::items_now(const Check& c) const {
  std::vector<Object> now;
  const auto add = [&](PyObject* borrowed) { now.push_back(Object::borrow(borrowed)); };
  switch (c.kind) {
    case Kind::kDict:
    case Kind::kSome:
      for (uint32_t i = 0; i < c.count; ++i) add(PyDict_GetItem(c.container, items_[c.begin + i].key));
      break;
    case Kind::kList:
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(c.container); ++i) add(PyList_GET_ITEM(c.container, i));
      break;
    case Kind::kIterable: {
      // The container's own way of iterating: a subclass may have another.
      auto* type = reinterpret_cast<PyTypeObject*>(items_[c.begin].value);
      const Object iterator = owned(type->tp_iter(c.container));
      add(items_[c.begin].value);
      while (PyObject* item = PyIter_Next(iterator.get())) now.push_back(Object::steal(item));
      break;
    }
    case Kind::kCell:
      add(PyCell_GET(c.container));
      break;
    case Kind::kObject: {
      add(reinterpret_cast<PyObject*>(Py_TYPE(c.container)));
      now.push_back(Object::steal(PyObject_GenericGetDict(c.container, nullptr)));
      break;
    }
    case Kind::kSlots:
      for (uint32_t i = 0; i < c.count; ++i) {
        PyObject* descriptor = items_[c.begin + i].key;
        auto* type = reinterpret_cast<PyObject*>(Py_TYPE(c.container));
        now.push_back(Object::steal(Py_TYPE(descriptor)->tp_descr_get(descriptor, c.container, type)));
        PyErr_Clear();
      }
      break;
    case Kind::kFunction: {
      auto* f = reinterpret_cast<PyFunctionObject*>(c.container);
      for (PyObject* o : {f->func_code, f->func_defaults, f->func_kwdefaults, attributes_of(f)}) add(o);
      break;
    }
    case Kind::kBases:
      add(reinterpret_cast<PyTypeObject*>(c.container)->tp_mro);
      break;
  }
  PyErr_Clear();
  return now;
}

bool State::items_hold(const Check& c, const std::vector<Object>& now) const {
  if (now.size() != c.count) return false;
  for (uint32_t i = 0; i < c.count; ++i)
    if (!same(now[i].get(), items_[c.begin + i].value)) return false;
  return true;
}

bool State::holds(const Check& c) const {
  switch (c.kind) {  // the frequent ones without a list
    case Kind::kDict:
      return dict_holds(c);
    case Kind::kSome:
      for (uint32_t i = c.begin; i < c.begin + c.count; ++i)
        if (!same(PyDict_GetItem(c.container, items_[i].key), items_[i].value)) return false;
      return true;
    case Kind::kList:
      for (uint32_t i = 0; i < c.count; ++i) {
        if (PyList_GET_SIZE(c.container) != static_cast<Py_ssize_t>(c.count)) return false;
        if (!same(PyList_GET_ITEM(c.container, i), items_[c.begin + i].value)) return false;
      }
      return PyList_GET_SIZE(c.container) == c.size;
    case Kind::kCell:
      return same(PyCell_GET(c.container), items_[c.begin].value);
    case Kind::kObject: {
      if (reinterpret_cast<PyObject*>(Py_TYPE(c.container)) != items_[c.begin].value) return false;
      if (!items_[c.begin + 1].value) return true;
      PyObject* attributes = PyObject_GenericGetDict(c.container, nullptr);
      if (!attributes) return PyErr_Clear(), false;
      Py_DECREF(attributes);
      return attributes == items_[c.begin + 1].value;
    }
    case Kind::kFunction: {
      auto* f = reinterpret_cast<PyFunctionObject*>(c.container);
      const Item* then = &items_[c.begin];
      return f->func_code == then[0].value && f->func_defaults == then[1].value &&
             f->func_kwdefaults == then[2].value && attributes_of(f) == then[3].value;
    }
    case Kind::kBases:
      return reinterpret_cast<PyTypeObject*>(c.container)->tp_mro == items_[c.begin].value;
    case Kind::kIterable:  // the first item is the type that iterates
      if (PyObject_Size(c.container) + 1 != static_cast<Py_ssize_t>(c.count)) return PyErr_Clear(), false;
      if (c.count == 1) return true;
      [[fallthrough]];
    case Kind::kSlots:
      return items_hold(c, items_now(c));
  }
  return false;
}

bool State::TensorCheck::holds() const {
  const Cell& cell = cell_of(tensor);
  return cell.storage.get() == storage && cell.offset == offset && attributes_of_tensor(tensor) == attributes &&
         state.is_of(Borrowed(tensor));
}

bool State::unchanged() const {
  for (const Check& c : checks_)
    if (!holds(c)) return false;
  for (const TensorCheck& t : tensors_)
    if (!t.holds()) return false;
  return !cleared_;
}

bool State::watches_memory(const Storage* storage) const {
  return std::ranges::any_of(tensors_,
                             [&](const TensorCheck& t) { return cell_of(t.tensor).storage.get() == storage; });
}

// --- messages

namespace {
std::string text_of(PyObject* key) {
  const Object text = Object::steal(PyObject_Str(key));
  if (!text) PyErr_Clear();
  return text ? std::string(utf8(text.get())) : "?";
}

std::string brief(PyObject* value) {
  if (!value) return "'<missing>'";
  if (!is_tensor(value)) return show(value);
  return deepseek::text_of({"a tensor of size ", cell_of(value).sizes});
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
  const auto container = [&] { return c.name < 0 ? "a container" : words(names_[c.name]); };
  if (c.kind == Kind::kDict || c.kind == Kind::kList) {
    const Py_ssize_t now = PyObject_Size(c.container);
    if (now != c.size)
      return "the length of " + container() + (c.form == Name::kAttribute ? ".__dict__" : "") + " changed from " +
             std::to_string(c.size) + " to " + std::to_string(now);
  }
  const std::vector<Object> now = items_now(c);
  const char* const parts[] = {"__code__", "__defaults__", "__kwdefaults__", "__dict__"};
  for (uint32_t i = 0; i < c.count; ++i) {
    const Item& item = items_[c.begin + i];
    PyObject* present = i < now.size() ? now[i].get() : nullptr;
    if (same(present, item.value)) continue;
    if (c.kind == Kind::kFunction) return container() + "." + parts[i] + " changed";
    if (c.kind == Kind::kObject) return container() + (i == 0 ? ".__class__" : ".__dict__") + " changed";
    if (c.kind == Kind::kBases) return "the bases of " + container() + " changed";
    if (c.kind == Kind::kIterable) return "the contents of " + container() + " changed";
    std::string name;
    if (c.kind == Kind::kSlots)
      name = container() + "." + str(get_attribute(item.key, "__name__").get());
    else
      name = words({c.form, c.name, item.key, i});
    return name + " changed from " + brief(item.value) + " to " + brief(present);
  }
  if (c.kind == Kind::kDict) return "the order of " + container() + "'s items changed";
  if (now.size() != c.count) return "the contents of " + container() + " changed";
  return "something it looked at changed and changed back";
}

std::string State::change() const {
  for (const Check& c : checks_)
    if (!holds(c)) return change(c);
  for (const TensorCheck& t : tensors_)
    if (attributes_of_tensor(t.tensor) != t.attributes) return "attributes of a tensor changed";
  return {};
}

std::string State::difference() const {
  if (std::string why = change(); !why.empty()) return why;
  for (const TensorCheck& t : tensors_)
    if (std::string why = t.state.difference(Borrowed(t.tensor)); !why.empty())
      return "a tensor the function can reach: " + why;
  return unchanged() ? "" : "a tensor the function can reach is on other memory";
}

// --- references

int State::traverse(visitproc visit, void* arg) const {
  for (const Check& c : checks_)
    if (c.held) Py_VISIT(c.container);
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
  tensors_.clear();
  cells_.clear();
  containers_.clear();
  for (const Check& c : checks)
    if (c.held) Py_DECREF(c.container);
  for (const Item& i : items) {
    Py_XDECREF(i.key);
    Py_XDECREF(i.value);
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
