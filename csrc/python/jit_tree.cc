#include "python/jit_tree.h"

#include <algorithm>
#include <memory>

namespace deepseek::python {

namespace py = pybind11;

namespace {
bool is_value(PyObject* o) {
  return o == Py_None || PyBool_Check(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) ||
         is_dtype(o) || PyComplex_CheckExact(o) || o == Py_Ellipsis || PySlice_Check(o);
}

// What a weak reference leads to, or None.
py::object referent(const py::object& weak) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* o = nullptr;
  if (PyWeakref_GetRef(weak.ptr(), &o) < 0) throw PythonError();
  return o ? py::reinterpret_steal<py::object>(o) : py::none();
#else
  return py::reinterpret_borrow<py::object>(PyWeakref_GET_OBJECT(weak.ptr()));
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
  if (Py_EnterRecursiveCall(" while looking for tensors in containers")) throw py::error_already_set();
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
      t.value = py::reinterpret_borrow<py::object>(o);
      return t;
    }
  }
  if (is_tensor(o)) {
    t.kind = Tree::kTensor;
    t.value = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(Py_TYPE(o)));
    tensors.push_back(unwrap(o));
  } else if (PyTuple_Check(o) || PyList_CheckExact(o)) {
    t.kind = PyTuple_Check(o) ? Tree::kTuple : Tree::kList;
    t.value = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(Py_TYPE(o)));
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
    for (Py_ssize_t i = 0; i < n; ++i)
      t.children.push_back(flatten(PySequence_Fast_GET_ITEM(o, i), tensors, known, is_state));
  } else if (PyDict_CheckExact(o)) {
    t.kind = Tree::kDict;
    PyObject *key, *item;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &item);) {
      t.keys.push_back(py::reinterpret_borrow<py::object>(key));
      t.children.push_back(flatten(item, tensors, known, is_state));
    }
  } else {
    t.kind = is_value(o) ? Tree::kValue : Tree::kObject;
    t.value = py::reinterpret_borrow<py::object>(o);
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
  const py::object text = py::reinterpret_steal<py::object>(PyObject_Repr(o));
  if (!text) {
    PyErr_Clear();
    return Py_TYPE(o)->tp_name;
  }
  auto s = text.cast<std::string>();
  return s.size() > 60 ? s.substr(0, 57) + "..." : s;
}

bool match(const Tree& t, PyObject* o, TensorList& tensors, std::string* why) {
  const auto differs = [&](const std::string& text) {
    if (why && why->empty()) *why = text;
    return false;
  };
  switch (t.kind) {
    case Tree::kTensor:
      if (reinterpret_cast<PyObject*>(Py_TYPE(o)) != t.value.ptr())
        return differs("a " + py::str(t.value.attr("__name__")).cast<std::string>() + " became " + Py_TYPE(o)->tp_name);
      tensors.push_back(unwrap(o));
      return true;
    case Tree::kValue:
      return same_value(t.value.ptr(), o) || differs("the value " + show(t.value.ptr()) + " became " + show(o));
    case Tree::kObject:
      return t.value.ptr() == o || differs(std::string("another object of type ") + Py_TYPE(o)->tp_name);
    case Tree::kKnown:
      return false;  // only in results
    case Tree::kWeak:
      return referent(t.value).ptr() == o || differs(std::string("another object of type ") + Py_TYPE(o)->tp_name);
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

PyObject* build(const Tree& t, const TensorList& tensors, size_t& next, Containers& known) {
  const auto whole = [&](py::object made) {
    known.push_back(made.ptr());
    return made.release().ptr();
  };
  switch (t.kind) {
    case Tree::kKnown:
      return Py_NewRef(known[t.number]);
    case Tree::kTensor:
      return wrap(tensors[next++]);
    case Tree::kValue:
    case Tree::kObject:
      return py::object(t.value).release().ptr();
    case Tree::kWeak:
      return referent(t.value).release().ptr();
    case Tree::kTuple: {
      py::tuple items(t.children.size());
      for (size_t i = 0; i < t.children.size(); ++i)
        items[i] = py::reinterpret_steal<py::object>(build(t.children[i], tensors, next, known));
      if (reinterpret_cast<PyTypeObject*>(t.value.ptr()) == &PyTuple_Type) return whole(items);
      // A named tuple takes its fields one by one, other subclasses a sequence.
      const bool named = py::hasattr(t.value, "_fields");
      return whole(named ? t.value(*items) : t.value(items));
    }
    case Tree::kList: {
      py::list items(t.children.size());
      for (size_t i = 0; i < t.children.size(); ++i)
        items[i] = py::reinterpret_steal<py::object>(build(t.children[i], tensors, next, known));
      return whole(items);
    }
    case Tree::kDict: {
      py::dict items;
      for (size_t i = 0; i < t.keys.size(); ++i)
        items[t.keys[i]] = py::reinterpret_steal<py::object>(build(t.children[i], tensors, next, known));
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
  if (t.kind != Tree::kObject || !PyType_SUPPORTS_WEAKREFS(Py_TYPE(t.value.ptr()))) return;
  t.value = py::reinterpret_steal<py::object>(checked(PyWeakref_NewRef(t.value.ptr(), died)));
  t.kind = Tree::kWeak;
}

bool alive(const Tree& t) {
  if (t.kind == Tree::kWeak && referent(t.value).is_none()) return false;
  return std::ranges::all_of(t.children, alive);
}

int traverse(const Tree& t, visitproc visit, void* arg) {
  Py_VISIT(t.value.ptr());
  for (const py::object& key : t.keys) Py_VISIT(key.ptr());
  for (const Tree& c : t.children)
    if (const int stop = traverse(c, visit, arg)) return stop;
  return 0;
}

}  // namespace deepseek::python
