// What is inside the objects a call can reach: containers, attributes, classes.
#include "python/jit/walk.h"

#include "python/jit/tree.h"

namespace deepseek::python {

namespace {

constexpr size_t kMostItems = 20'000;
constexpr Py_ssize_t kMostOfOne = 1'000;  // items of one container

constinit Known deque{"collections", "deque"}, ordered_dict{"collections", "OrderedDict"},
    partial_{"functools", "partial"};
constinit Known optimizer{"deepseek.optim", "Optimizer"}, scheduler{"deepseek.optim.lr_scheduler", "LRScheduler"};
constinit Known compiled{"deepseek.jit.capture", "Compiled"};

bool is_special(PyObject* name) {
  Py_ssize_t n;
  const char* s = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &n) : nullptr;
  if (!s) return PyErr_Clear(), false;
  const std::string_view text(s, n);
  return text.starts_with("__") && text.ends_with("__");
}

}  // namespace

// --- the notes

StateWalk::StateWalk(State& state) : s_(state) {
  kept_.reserve(256);
  s_.checks_.reserve(128);
  s_.items_.reserve(512);
  s_.names_.reserve(128);
}

bool StateWalk::first_time(PyObject* o) {
  ++count_;
  if (seen_.add(o, count_) != count_) return false;
  kept_.push_back(Object::borrow(o));
  return true;
}

int32_t StateWalk::intern(const Name& name) {
  Py_XINCREF(name.key);
  s_.names_.push_back(name);
  return static_cast<int32_t>(s_.names_.size()) - 1;
}

void StateWalk::check(Kind kind, PyObject* container, int32_t name, Name::Form form, Py_ssize_t size) {
  const bool held = container != argument_;
  if (held) Py_INCREF(container);
  if (kind == Kind::kList || (kind == Kind::kDict && form == Name::kItem)) s_.containers_.insert(container);
  s_.checks_.push_back({kind, form, name, container, size, static_cast<uint32_t>(s_.items_.size()), 0, held});
}

void StateWalk::item(PyObject* key, PyObject* value) {
  Py_XINCREF(key);
  Py_XINCREF(value);
  s_.items_.push_back({key, value});
  ++s_.checks_.back().count;
}

void StateWalk::look_into_items() {
  const State::Check c = s_.checks_.back();
  for (uint32_t i = 0; i < c.count; ++i) {
    const State::Item it = s_.items_[c.begin + i];
    if (it.value && !is_plain(it.value)) value(it.value, {c.form, c.name, it.key, i});
  }
}

std::string StateWalk::refusal() const {
  if (!refusal_.empty()) return refusal_;
  if (any_attribute_ && (user_module_ || !by_name_.empty()))
    return "it looks up attributes by names made while it runs, and may do so in a module or an optimizer";
  return {};
}

// --- arguments of functions that run on every replay

std::string StateWalk::made_in_call(PyObject* o) const {
  const auto made = [&] {
    return std::string("a ") + Py_TYPE(o)->tp_name + " that the call made, or that was not found before it";
  };
  if (is_plain(o) || PySlice_Check(o) || PyModule_Check(o)) return {};
  const Depth depth;
  const auto any = [&](PyObject* tuple) {
    for (Py_ssize_t i = 0; tuple && i < PyTuple_GET_SIZE(tuple); ++i)
      if (std::string why = made_in_call(PyTuple_GET_ITEM(tuple, i)); !why.empty()) return why;
    return std::string();
  };
  if (is_tensor(o)) {  // is one of the replay's
    PyObject* own = reinterpret_cast<TensorObject*>(o)->dict;
    return own && PyDict_GET_SIZE(own) > 0 && !has_seen(o) && !has_seen(own) ? "a tensor with attributes" : "";
  }
  if (PyTuple_Check(o) && Py_TYPE(o)->tp_dictoffset && !has_seen(o)) {
    const Object own = Object::steal(PyObject_GenericGetDict(o, nullptr));
    if (!own) PyErr_Clear();
    if (own && PyDict_GET_SIZE(own.get()) > 0) return made();
  }
  if (PyTuple_Check(o)) return any(o);
  if (PyList_CheckExact(o)) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(o); ++i)
      if (std::string why = made_in_call(PyList_GET_ITEM(o, i)); !why.empty()) return why;
    return {};
  }
  if (PyDict_CheckExact(o)) {
    PyObject *key, *item;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item);)
      for (PyObject* part : {key, item})
        if (std::string why = made_in_call(part); !why.empty()) return why;
    return {};
  }
  if (PyIter_Check(o)) return std::string("an iterator, a ") + Py_TYPE(o)->tp_name;
  if (has_seen(o)) return {};
  if (PyMethod_Check(o)) {
    std::string why = made_in_call(PyMethod_GET_SELF(o));
    return why.empty() ? made_in_call(PyMethod_GET_FUNCTION(o)) : why;
  }
  if (PyCFunction_Check(o)) {
    PyObject* self = PyCFunction_GetSelf(o);
    return self && is_tensor(self) ? made() : self ? made_in_call(self) : std::string();
  }
  if (PyType_Check(o)) {
    auto* type = reinterpret_cast<PyTypeObject*>(o);
    return type->tp_flags & Py_TPFLAGS_HEAPTYPE && owner_of(type) == Owner::kUser ? made() : std::string();
  }
  if (PyFunction_Check(o)) {
    auto* f = reinterpret_cast<PyFunctionObject*>(o);
    const bool bare = !f->func_closure && !f->func_defaults && !f->func_kwdefaults && !f->func_dict;
    if (bare && codes_.contains(reinterpret_cast<PyCodeObject*>(f->func_code))) return {};  // a lambda of the code
    if (owner_of(PyDict_GetItemString(f->func_globals, "__name__")) != Owner::kTrusted) return made();
    if (std::string why = any(f->func_defaults); !why.empty() || !f->func_closure) return why;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(f->func_closure); ++i) {
      PyObject* content = PyCell_GET(PyTuple_GET_ITEM(f->func_closure, i));
      if (content && content != o && (is_tensor(content) || !made_in_call(content).empty())) return made();
    }
    return {};
  }
  PyTypeObject* type = Py_TYPE(o);
  if (type->tp_dictoffset == 0 && stateless_types.is_set_with(type) && !PyObject_TypeCheck(o, &PyCell_Type)) return {};
  return made();
}

// --- objects

void StateWalk::start(PyObject* function, PyObject* args, PyObject* kwargs) {
  Object name = get_attribute_or(function, "__name__", Py_None);
  if (name.is_none()) name = to_python(Py_TYPE(function)->tp_name);
  value(function, {Name::kPlain, -1, name.get()});
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i)
    argument(PyTuple_GET_ITEM(args, i), {Name::kArgument, -1, nullptr, i});
  PyObject *key, *item;
  for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &key, &item);) argument(item, {Name::kArgument, -1, key});
}

// Tensors and containers of an argument are others on each call, and compared with it.
void StateWalk::argument(PyObject* o, const Name& name) {
  if (is_plain(o) || PySlice_Check(o)) return;
  const Depth depth;
  if (is_tensor(o)) {
    PyObject* own = reinterpret_cast<TensorObject*>(o)->dict;
    if (own && PyDict_GET_SIZE(own) > 0 && first_time(own)) dict(own, intern(name), Name::kAttribute);
  } else if (PyTuple_Check(o) || PyList_CheckExact(o)) {
    const int32_t mine = intern(name);
    if (PySequence_Fast_GET_SIZE(o) > kMostOfOne) return too_much("a sequence of more than 1,000 items");
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i)
      argument(PySequence_Fast_GET_ITEM(o, i), {Name::kIndex, mine, nullptr, i});
    if (is_made_in_python(Py_TYPE(o))) attributes(o, mine);
  } else if (PyDict_CheckExact(o)) {
    const int32_t mine = intern(name);
    PyObject *key, *item;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item);) argument(item, {Name::kItem, mine, key});
  } else {
    argument_ = o;
    value(o, name);
    argument_ = nullptr;
  }
}

// Notes the state inside `o`, which the caller holds.
void StateWalk::value(PyObject* o, const Name& name) {
  if (is_plain(o) || !refusal_.empty() || !first_time(o)) return;
  if (s_.items_.size() > kMostItems) return too_much("more than 20,000 objects");
  const Depth depth;
  if (is_tensor(o)) return tensor(o, name);
  if (PyFunction_Check(o)) return function(o, name);
  if (PyMethod_Check(o)) {
    value(PyMethod_GET_SELF(o), name);
    return value(PyMethod_GET_FUNCTION(o), name);
  }
  if (PyType_Check(o)) return type_object(reinterpret_cast<PyTypeObject*>(o), name);
  if (PyCFunction_Check(o)) return c_function(o, name);
  if (PyModule_Check(o)) {
    const Object module = Object::steal(PyModule_GetNameObject(o));
    if (!module) PyErr_Clear();
    if (!module || owner_of(module.get()) == Owner::kUser)
      refuse("it can reach the module " + s_.words(name) + " by another way than its name");
    return;
  }
  object(o, name);
}

void StateWalk::tensor(PyObject* o, const Name& name) {
  PyObject* own = reinterpret_cast<TensorObject*>(o)->dict;
  if (own && PyDict_GET_SIZE(own) == 0) own = nullptr;
  s_.tensors_.push_back({o, own, jit::TensorState(Borrowed(o)), cell_of(o).storage.get(), cell_of(o).offset});
  s_.cells_.insert(&cell_of(o));
  if (own) dict(own, intern(name), Name::kAttribute);
}

void StateWalk::object(PyObject* o, const Name& name) {
  PyTypeObject *type = Py_TYPE(o), *base = base_in_c(type);
  if (type != base) {                                                // made in Python, as these are
    if (compiled.is_class_of(o)) return part(o, "_function", name);  // its recordings are not the function's state
    if (optimizer.is_class_of(o) || scheduler.is_class_of(o)) {
      classes(type);
      return by_name(o, name);  // its steps change it, on replays too
    }
  }
  if (!contents(o, name)) {
    const bool is_iterator = PyIter_Check(o);
    return refuse("it can reach " + std::string(is_iterator ? "the iterator " : "") + s_.words(name) + ", a " +
                  std::string(type->tp_name) + (is_iterator ? " whose position" : " whose state") +
                  " cannot be watched");
  }
  if (type == base && !type->tp_dictoffset) return;
  // Its methods are seen when they run, and refused then.
  if (type != base && owner_of(type) == Owner::kLibrary) return by_name(o, name);
  const int32_t mine = intern(name);
  // Objects of deepseek refer weakly to what they act on, never to what they compute with.
  const bool ours = type != base && is_of_deepseek(type) && !nn_module.is_class_of(o);
  const bool outer = std::exchange(weak_is_ours_, ours);
  attributes(o, mine);
  weak_is_ours_ = outer;
}

// What the part of the object that is made in C holds. False when that cannot be watched.
bool StateWalk::contents(PyObject* o, const Name& name) {
  PyTypeObject* base = base_in_c(Py_TYPE(o));
  if (base == &PyBaseObject_Type) return true;
  if (PyDict_Check(o)) {
    const int32_t mine = intern(name);
    dict(o, mine, Name::kItem);
    // It keeps an order of its own.
    if (PyDict_GET_SIZE(o) > 1 && ordered_dict.is_class_of(o)) iterable(o, ordered_dict.type(), mine);
    return true;
  }
  if (PyList_Check(o)) return list(o, intern(name)), true;
  if (PyTuple_Check(o)) return tuple(o, intern(name)), true;
  if (PyFrozenSet_Check(o)) return iterable(o, &PyFrozenSet_Type, intern(name)), true;
  if (PyAnySet_Check(o)) return iterable(o, &PySet_Type, intern(name)), true;
  if (PyByteArray_Check(o)) return iterable(o, &PyByteArray_Type, intern(name)), true;
  if (deque.is_class_of(o)) return iterable(o, deque.type(), intern(name)), true;
  if (partial_.is_class_of(o)) return partial(o, name), true;
  if (PyObject_TypeCheck(o, &PyProperty_Type)) {
    for (const char* which : {"fget", "fset", "fdel"}) part(o, which, name);
    return true;
  }
  if (base == &PyStaticMethod_Type || base == &PyClassMethod_Type) return part(o, "__func__", name), true;
  if (PyWeakref_Check(o)) {
    if (!weak_is_ours_)
      refuse("it can reach " + s_.words(name) + ", a weak reference, whose object a recording would keep alive");
    return true;
  }
  if (PyIter_Check(o)) return false;
  if (is_made_by_deepseek(base)) return true;
  return stateless_types.is_set_with(base) || is_numpy_constant(o);
}

void StateWalk::dict(PyObject* d, int32_t name, Name::Form form) {
  const size_t mine = s_.checks_.size();
  check(Kind::kDict, d, name, form, PyDict_GET_SIZE(d));
  if (form == Name::kItem && PyDict_GET_SIZE(d) > kMostOfOne) return too_much("a dict of more than 1,000 items");
  PyObject *key, *value;
  for (Py_ssize_t at = 0; PyDict_Next(d, &at, &key, &value);) item(key, value);
  look_into_items();
  if (form != Name::kItem) return;
  const State::Check c = s_.checks_[mine];
  for (uint32_t i = 0; i < c.count; ++i)
    if (PyObject* k = s_.items_[c.begin + i].key; !is_plain(k)) this->value(k, {Name::kPlain, -1, k});
}

void StateWalk::list(PyObject* l, int32_t name) {
  check(Kind::kList, l, name, Name::kIndex, PyList_GET_SIZE(l));
  if (PyList_GET_SIZE(l) > kMostOfOne) return too_much("a list of more than 1,000 items");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(l); ++i) item(nullptr, PyList_GET_ITEM(l, i));
  look_into_items();
}

void StateWalk::tuple(PyObject* t, int32_t name) {
  if (PyTuple_GET_SIZE(t) > kMostOfOne) return too_much("a tuple of more than 1,000 items");
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(t); ++i) value(PyTuple_GET_ITEM(t, i), {Name::kIndex, name, nullptr, i});
}

// By the way a type iterates over `o`, which may be of a subclass with another way.
void StateWalk::iterable(PyObject* o, PyTypeObject* type, int32_t name) {
  if (PyObject_Size(o) > kMostOfOne) return too_much("a collection of more than 1,000 items");
  const Object iterator = owned(type->tp_iter(o));
  check(Kind::kIterable, o, name, Name::kIndex);
  item(nullptr, reinterpret_cast<PyObject*>(type));
  while (PyObject* next = PyIter_Next(iterator.get())) {
    item(nullptr, next);
    Py_DECREF(next);
  }
  if (PyErr_Occurred()) throw PythonError();
  const State::Check c = s_.checks_.back();
  for (uint32_t i = 1; i < c.count; ++i) value(s_.items_[c.begin + i].value, {Name::kIndex, name, nullptr, i - 1});
}

// The class, the __dict__ and the slots.
void StateWalk::attributes(PyObject* o, int32_t name) {
  const Object own = Object::steal(PyObject_GenericGetDict(o, nullptr));
  if (!own) PyErr_Clear();
  check(Kind::kObject, o, name, Name::kAttribute);
  item(nullptr, reinterpret_cast<PyObject*>(Py_TYPE(o)));
  item(nullptr, own.get());
  if (own) dict(own.get(), name, Name::kAttribute);
  slots(o, name);
  classes(Py_TYPE(o));
}

void StateWalk::slots(PyObject* o, int32_t name) {
  if (slotless_.contains(Py_TYPE(o))) return;
  std::vector<Object> found;  // descriptors and what is there
  PyObject* mro = Py_TYPE(o)->tp_mro;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i));
    if (!is_made_in_python(base) || base->tp_itemsize != 0) continue;
    const Object members = dict_of(base);
    PyObject *key, *member;
    for (Py_ssize_t at = 0; PyDict_Next(members.get(), &at, &key, &member);)
      if (Py_IS_TYPE(member, &PyMemberDescr_Type)) found.push_back(Object::borrow(member));
  }
  if (found.empty()) {
    slotless_.insert(Py_TYPE(o));
    return;
  }
  std::vector<Object> values;
  check(Kind::kSlots, o, name, Name::kAttribute);
  for (const Object& member : found) {
    values.push_back(
        Object::steal(Py_TYPE(member.get())->tp_descr_get(member.get(), o, reinterpret_cast<PyObject*>(Py_TYPE(o)))));
    PyErr_Clear();
    item(member.get(), values.back().get());
  }
  for (size_t i = 0; i < found.size(); ++i)
    if (values[i]) {
      const Object slot = get_attribute(found[i].get(), "__name__");
      value(values[i].get(), {Name::kAttribute, name, slot.get()});
    }
}

void StateWalk::partial(PyObject* p, const Name& name) {
  const int32_t mine = intern(name);
  part(p, "func", name);
  const Object args = get_attribute(p, "args"), keywords = get_attribute(p, "keywords");
  tuple(args.get(), mine);
  dict(keywords.get(), mine, Name::kItem);
}

void StateWalk::part(PyObject* o, const char* attribute, const Name& name) {
  const Object inside = Object::steal(PyObject_GetAttrString(o, attribute));
  if (!inside) return PyErr_Clear();
  value(inside.get(), name);
}

// --- classes

// One that code names, or an object holds: it may be called, which nobody sees where it is made in C.
void StateWalk::type_object(PyTypeObject* type, const Name& name) {
  classes(type);
  PyTypeObject* base = base_in_c(type);
  const bool harmless = base == &PyBaseObject_Type || is_made_by_deepseek(base) ||
                        PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(PyExc_BaseException)) ||
                        pure_types.is_set_with(base) || is_numpy_constant(reinterpret_cast<PyObject*>(type));
  if (!harmless) refuse("it can reach " + s_.words(name) + ", a type whose objects may depend on the world outside");
}

// Methods and attributes of the user's classes.
void StateWalk::classes(PyTypeObject* type) {
  if (!looked_into_.insert(type).second) return;
  kept_.push_back(Object::borrow(reinterpret_cast<PyObject*>(type)));
  PyObject* mro = type->tp_mro;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i));
    if (!(base->tp_flags & Py_TPFLAGS_HEAPTYPE) || owner_of(base) != Owner::kUser) continue;
    if (classes_.insert(base).second) user_class(base);
  }
}

void StateWalk::user_class(PyTypeObject* type) {
  auto* o = reinterpret_cast<PyObject*>(type);
  kept_.push_back(Object::borrow(o));
  const Object name = get_attribute(o, "__name__");
  const int32_t mine = intern({Name::kPlain, -1, name.get()});
  check(Kind::kBases, o, mine, Name::kAttribute);
  item(nullptr, type->tp_mro);
  const Object members = dict_of(type);
  check(Kind::kDict, members.get(), mine, Name::kAttribute, PyDict_GET_SIZE(members.get()));
  PyObject *key, *member;
  for (Py_ssize_t at = 0; PyDict_Next(members.get(), &at, &key, &member);) item(key, member);
  const State::Check c = s_.checks_.back();
  for (uint32_t i = 0; i < c.count; ++i) {
    const State::Item it = s_.items_[c.begin + i];
    // Python's own notes about a class are not what functions look at.
    const bool note = is_special(it.key) && !PyFunction_Check(it.value) &&
                      !Py_IS_TYPE(it.value, &PyStaticMethod_Type) && !Py_IS_TYPE(it.value, &PyClassMethod_Type);
    if (!note && !is_plain(it.value)) value(it.value, {Name::kAttribute, mine, it.key});
  }
  if (!Py_IS_TYPE(o, &PyType_Type)) classes(Py_TYPE(o));
}

// A C function an object holds, or that is passed on: nobody sees when it is called by another one.
void StateWalk::c_function(PyObject* f, const Name& name) {
  PyObject* self = PyCFunction_GetSelf(f);
  if (self && !PyModule_Check(self) && !PyType_Check(self)) value(self, name);
  if (!is_pure(f)) refuse("it can reach " + s_.words(name) + ", a function that depends on the world outside");
}

}  // namespace deepseek::python
