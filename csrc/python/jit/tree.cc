#include "python/jit/tree.h"

#include <algorithm>
#include <memory>

namespace deepseek::python {

namespace {
bool is_value(PyObject* o) {
  return o == Py_None || PyBool_Check(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) ||
         is_dtype(o) || PyComplex_CheckExact(o) || o == Py_Ellipsis || PySlice_Check(o);
}

// What a weak reference leads to, or None.
Object referent(const Object& weak) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* o = nullptr;
  if (PyWeakref_GetRef(weak.get(), &o) < 0) throw PythonError();
  return o ? Object::steal(o) : Object::borrow(Py_None);
#else
  return Object::borrow(PyWeakref_GET_OBJECT(weak.get()));
#endif
}

}  // namespace

void add_containers(PyObject* o, Containers& found) {
  if (PyTuple_Check(o) || PyList_CheckExact(o)) {
    found.push_back(o);
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i) add_containers(PySequence_Fast_GET_ITEM(o, i), found);
  } else if (PyDict_CheckExact(o)) {
    found.push_back(o);
    PyObject *key, *item;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item);) add_containers(item, found);
  }
}

Tree flatten(PyObject* o, TensorList& tensors, Containers* known, const std::function<bool(PyObject*)>& is_state) {
  if (Py_EnterRecursiveCall(" while looking for tensors in containers")) throw PythonError();
  const auto leave = [](void*) { Py_LeaveRecursiveCall(); };
  const std::unique_ptr<void, decltype(leave)> depth(&tensors, leave);
  Tree t;
  if (known && (PyTuple_Check(o) || PyList_CheckExact(o) || PyDict_CheckExact(o))) {
    const auto place = std::ranges::find(*known, o);
    if (place != known->end()) {
      t.kind = Tree::kKnown;
      t.number = static_cast<size_t>(place - known->begin());
      return t;
    }
    if (is_state(o)) {
      t.value = Object::borrow(o);
      return t;
    }
  }
  if (is_tensor(o)) {
    t.kind = Tree::kTensor;
    t.value = Object::borrow(reinterpret_cast<PyObject*>(Py_TYPE(o)));
    tensors.push_back(unwrap(o));
  } else if (PyTuple_Check(o) || PyList_CheckExact(o)) {
    t.kind = PyTuple_Check(o) ? Tree::kTuple : Tree::kList;
    t.value = Object::borrow(reinterpret_cast<PyObject*>(Py_TYPE(o)));
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
    for (Py_ssize_t i = 0; i < n; ++i)
      t.children.push_back(flatten(PySequence_Fast_GET_ITEM(o, i), tensors, known, is_state));
  } else if (PyDict_CheckExact(o)) {
    t.kind = Tree::kDict;
    PyObject *key, *item;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item);) {
      t.keys.push_back(Object::borrow(key));
      t.children.push_back(flatten(item, tensors, known, is_state));
    }
  } else {
    t.kind = is_value(o) ? Tree::kValue : Tree::kObject;
    t.value = Object::borrow(o);
    return t;
  }
  if (known && t.kind != Tree::kTensor) known->push_back(o);
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
  const Object text = Object::steal(PyObject_Repr(o));
  Py_ssize_t n = 0;
  const char* utf8 = text ? PyUnicode_AsUTF8AndSize(text.get(), &n) : nullptr;
  if (!utf8) {  // it has no repr, or one that is no text (lone surrogates)
    PyErr_Clear();
    return Py_TYPE(o)->tp_name;
  }
  if (n <= 60) return std::string(utf8, static_cast<size_t>(n));
  n = 57;
  while (n > 0 && (utf8[n] & 0xC0) == 0x80) --n;  // not inside a character
  return std::string(utf8, static_cast<size_t>(n)) + "...";
}

bool match(const Tree& t, PyObject* o, TensorList& tensors, std::string* why) {
  // Texts are made only for who asks: they run code of the objects.
  const auto differs = [&](auto&& text) {
    if (why && why->empty()) *why = text();
    return false;
  };
  const auto another_object = [&] { return std::string("another object of type ") + Py_TYPE(o)->tp_name; };
  const auto other_keys = [] { return std::string("a dict has other keys"); };
  switch (t.kind) {
    case Tree::kTensor:
      if (reinterpret_cast<PyObject*>(Py_TYPE(o)) != t.value.get())
        return differs([&] {
          return "a " + str(get_attribute(t.value.get(), "__name__").get()) + " became " + Py_TYPE(o)->tp_name;
        });
      tensors.push_back(unwrap(o));
      return true;
    case Tree::kValue:
      return same_value(t.value.get(), o) ||
             differs([&] { return "the value " + show(t.value.get()) + " became " + show(o); });
    case Tree::kObject:
      return t.value.get() == o || differs(another_object);
    case Tree::kKnown:
      return false;  // only in results
    case Tree::kWeak:
      return referent(t.value).get() == o || differs(another_object);
    case Tree::kTuple:
    case Tree::kList: {
      if (reinterpret_cast<PyObject*>(Py_TYPE(o)) != t.value.get())
        return differs([&] { return show(t.value.get()) + " became " + Py_TYPE(o)->tp_name; });
      if (static_cast<size_t>(PySequence_Fast_GET_SIZE(o)) != t.children.size())
        return differs([&] {
          return "a sequence of " + std::to_string(t.children.size()) + " items became one of " +
                 std::to_string(PySequence_Fast_GET_SIZE(o));
        });
      for (size_t i = 0; i < t.children.size(); ++i)
        if (!match(t.children[i], PySequence_Fast_GET_ITEM(o, i), tensors, why)) return false;
      return true;
    }
    case Tree::kDict: {
      if (!PyDict_CheckExact(o) || static_cast<size_t>(PyDict_GET_SIZE(o)) != t.keys.size()) return differs(other_keys);
      PyObject *key, *item;
      size_t i = 0;
      for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item); ++i)
        if (!same_value(t.keys[i].get(), key) || !match(t.children[i], item, tensors, why)) return differs(other_keys);
      return true;
    }
  }
  return false;
}

PyObject* build(const Tree& t, const TensorList& tensors, size_t& next, Containers& known) {
  const auto whole = [&](Object made) {
    known.push_back(made.get());
    return made.release();
  };
  const auto child = [&](size_t i) { return owned(build(t.children[i], tensors, next, known)); };
  switch (t.kind) {
    case Tree::kKnown:
      return Py_NewRef(known[t.number]);
    case Tree::kTensor:
      return wrap(tensors[next++]);
    case Tree::kValue:
    case Tree::kObject:
      return Object(t.value).release();
    case Tree::kWeak:
      return referent(t.value).release();
    case Tree::kTuple: {
      Object items = owned(PyTuple_New(static_cast<Py_ssize_t>(t.children.size())));
      for (size_t i = 0; i < t.children.size(); ++i) PyTuple_SET_ITEM(items.get(), i, child(i).release());
      if (t.value.is(reinterpret_cast<PyObject*>(&PyTuple_Type))) return whole(items);
      // A named tuple takes its fields one by one, other subclasses a sequence.
      const bool named = has_attribute(t.value.get(), "_fields");
      return whole(named ? owned(PyObject_CallObject(t.value.get(), items.get())) : call(t.value.get(), items.get()));
    }
    case Tree::kList: {
      Object items = owned(PyList_New(static_cast<Py_ssize_t>(t.children.size())));
      for (size_t i = 0; i < t.children.size(); ++i) PyList_SET_ITEM(items.get(), i, child(i).release());
      return whole(items);
    }
    case Tree::kDict: {
      Object items = owned(PyDict_New());
      for (size_t i = 0; i < t.keys.size(); ++i) checked(PyDict_SetItem(items.get(), t.keys[i].get(), child(i).get()));
      return whole(items);
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

void weaken(Tree& t, PyObject* died) {
  for (Tree& c : t.children) weaken(c, died);
  if (t.kind != Tree::kObject || !PyType_SUPPORTS_WEAKREFS(Py_TYPE(t.value.get()))) return;
  t.value = owned(PyWeakref_NewRef(t.value.get(), died));
  t.kind = Tree::kWeak;
}

bool alive(const Tree& t) {
  if (t.kind == Tree::kWeak && referent(t.value).is_none()) return false;
  return std::ranges::all_of(t.children, alive);
}

int traverse(const Tree& t, visitproc visit, void* arg) {
  Py_VISIT(t.value.get());
  for (const Object& key : t.keys) Py_VISIT(key.get());
  for (const Tree& c : t.children)
    if (const int stop = traverse(c, visit, arg)) return stop;
  return 0;
}

}  // namespace deepseek::python
