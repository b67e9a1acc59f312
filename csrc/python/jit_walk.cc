// Finds the state of the program that a captured function can reach by name.
#include "jit/pointer_map.h"
#include "python/jit_state.h"

namespace deepseek::python {

namespace py = pybind11;

namespace {

constexpr size_t kMostItems = 20'000;
constexpr Py_ssize_t kMostOfOne = 1'000;  // items of one container

// A class the walk knows, imported on first use. Never released.
PyObject* known_class(PyObject*& place, const char* module, const char* name) {
  if (!place) place = py::getattr(py::module_::import(module), name).release().ptr();
  return place;
}

bool is_instance(PyObject* o, PyObject* type) { return PyObject_TypeCheck(o, reinterpret_cast<PyTypeObject*>(type)); }

// Nothing to look into: most of what a walk meets.
bool is_plain(PyObject* o) {
  return o == Py_None || is_tensor(o) || PyLong_Check(o) || PyFloat_Check(o) || PyUnicode_Check(o) || is_dtype(o) ||
         PyBytes_Check(o) || PyComplex_Check(o);
}

// Code of deepseek, the standard library or an installed package: its globals are not watched.
bool is_library(PyObject* module_name) {
  static PyObject* known = checked(PyDict_New());
  if (!module_name || !PyUnicode_Check(module_name)) return false;
  if (PyObject* answer = PyDict_GetItem(known, module_name)) return answer == Py_True;
  static PyObject* ask = nullptr;
  const auto answer = py::reinterpret_steal<py::object>(
      checked(PyObject_CallOneArg(known_class(ask, "deepseek.jit.guards", "is_library"), module_name)));
  if (PyDict_SetItem(known, module_name, answer.ptr()) < 0) throw PythonError();
  return answer.ptr() == Py_True;
}

bool is_library_type(PyTypeObject* type) {
  static PyObject* name = checked(PyUnicode_InternFromString("__module__"));
  const auto module = py::reinterpret_steal<py::object>(PyObject_GetAttr(reinterpret_cast<PyObject*>(type), name));
  if (!module) PyErr_Clear();
  return !module || !PyUnicode_Check(module.ptr()) || is_library(module.ptr());  // some types in C have no module
}

// Dunder names but for __call__ and __init__.
bool is_special(PyObject* name) {
  Py_ssize_t n;
  const char* s = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &n) : nullptr;
  if (!s) return PyErr_Clear(), false;
  const std::string_view text(s, n);
  return text.starts_with("__") && text.ends_with("__") && text != "__call__" && text != "__init__";
}

py::object dict_of_type(PyTypeObject* type) {
#if PY_VERSION_HEX >= 0x030C0000
  return py::reinterpret_steal<py::object>(PyType_GetDict(type));
#else
  return py::reinterpret_borrow<py::object>(type->tp_dict);
#endif
}

class Depth {
 public:
  Depth() {
    if (Py_EnterRecursiveCall(" while looking for what a captured function depends on")) throw PythonError();
  }
  ~Depth() { Py_LeaveRecursiveCall(); }
  Depth(const Depth&) = delete;
};

}  // namespace

class StateWalk {
 public:
  explicit StateWalk(State& state) : s_(state) {}

  using Name = State::Name;
  using Kind = State::Kind;

  // Notes the state inside `o`, which the caller holds.
  void value(PyObject* o, const Name& name) {
    if (is_plain(o) || PyType_Check(o) || PyModule_Check(o) || PyCFunction_Check(o)) return;
    if (!first_time(o)) return;
    if (s_.items_.size() > kMostItems) return too_much("more than 20,000 objects");
    const Depth depth;
    if (PyDict_Check(o)) return dict(o, intern(name), Name::kItem);
    if (PyList_Check(o)) return list(o, intern(name));
    if (PyTuple_Check(o)) return tuple(o, intern(name));
    if (PyAnySet_Check(o)) return;
    if (PyFunction_Check(o)) return function(o, name);
    if (PyMethod_Check(o)) {
      value(PyMethod_GET_SELF(o), name);
      return value(PyMethod_GET_FUNCTION(o), name);
    }
    PyTypeObject* type = Py_TYPE(o);
    if (PyIter_Check(o)) {
      s_.refusal_ = "it can reach the iterator " + s_.words(name) + ", whose position cannot be watched";
      return;
    }
    if (is_instance(o, known_class(module_, "deepseek.nn", "Module"))) return object(o, name);
    if (is_instance(o, known_class(partial_, "functools", "partial"))) return partial(o, name);
    if (is_instance(o, known_class(compiled_, "deepseek.jit.capture", "Compiled")))
      return value(py::handle(o).attr("_function").ptr(), name);  // the object holds it
    if (!is_library_type(type)) object(o, name);
  }

 private:
  void too_much(const char* what) {
    if (s_.refusal_.empty()) s_.refusal_ = std::string("it can reach ") + what + ", too much state to watch";
  }
  bool first_time(void* o) {
    ++count_;
    return seen_.add(o, count_) == count_;
  }

  int32_t intern(const Name& name) {
    Py_XINCREF(name.key);
    s_.names_.push_back(name);
    return static_cast<int32_t>(s_.names_.size()) - 1;
  }

  State::Check& check(Kind kind, PyObject* container, int32_t name, Name::Form form, Py_ssize_t size) {
    Py_INCREF(container);
    s_.checks_.push_back({kind, form, name, container, size, static_cast<uint32_t>(s_.items_.size()), 0});
    return s_.checks_.back();
  }
  void item(PyObject* key, PyObject* value) {  // of the newest check
    Py_XINCREF(key);
    Py_INCREF(value);
    s_.items_.push_back({key, value});
    ++s_.checks_.back().count;
  }
  // What is inside the items of the newest check.
  void look_into_items() {
    const State::Check c = s_.checks_.back();
    for (uint32_t i = 0; i < c.count; ++i) {
      const State::Item it = s_.items_[c.begin + i];
      if (!is_plain(it.value)) value(it.value, {c.form, c.name, it.key, i});
    }
  }

  // form: how its items are named
  void dict(PyObject* d, int32_t name, Name::Form form) {
    check(Kind::kDict, d, name, form, PyDict_GET_SIZE(d));
    if (form == Name::kItem && PyDict_GET_SIZE(d) > kMostOfOne) return too_much("a dict of more than 1,000 items");
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(d, &at, &key, &value);) item(key, value);
    look_into_items();
  }

  void list(PyObject* l, int32_t name) {
    check(Kind::kList, l, name, Name::kIndex, PyList_GET_SIZE(l));
    if (PyList_GET_SIZE(l) > kMostOfOne) return too_much("a list of more than 1,000 items");
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(l); ++i) item(nullptr, PyList_GET_ITEM(l, i));
    look_into_items();
  }

  void tuple(PyObject* t, int32_t name) {
    if (PyTuple_GET_SIZE(t) > kMostOfOne) return too_much("a tuple of more than 1,000 items");
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(t); ++i)
      value(PyTuple_GET_ITEM(t, i), {Name::kIndex, name, nullptr, i});
  }

  void partial(PyObject* p, const Name& name) {
    value(py::handle(p).attr("func").ptr(), name);
    const int32_t parent = intern(name);
    const auto args = py::handle(p).attr("args").cast<py::tuple>();
    tuple(args.ptr(), parent);
    const auto keywords = py::handle(p).attr("keywords").cast<py::dict>();
    for (const auto& [key, item] : keywords) value(item.ptr(), {Name::kItem, parent, key.ptr()});
  }

  void function(PyObject* o, const Name& name) {
    auto* f = reinterpret_cast<PyFunctionObject*>(o);
    if (is_library(f->func_module)) {  // a decorator of a library on a function of the user's
      static PyObject* wrapped = checked(PyUnicode_InternFromString("__wrapped__"));
      PyObject* inner = f->func_dict ? PyDict_GetItem(f->func_dict, wrapped) : nullptr;
      if (!inner || !PyFunction_Check(inner)) return;
      f = reinterpret_cast<PyFunctionObject*>(o = inner);
      if (is_library(f->func_module)) return;
    }
    if (f->func_closure) closure(f);
    if (f->func_dict && PyDict_GET_SIZE(f->func_dict) > 0) dict(f->func_dict, intern(name), Name::kAttribute);
    if (f->func_defaults || f->func_kwdefaults) defaults(f, intern(name));
    names_of(reinterpret_cast<PyCodeObject*>(f->func_code), f->func_globals);
  }

  void closure(PyFunctionObject* f) {
    const auto names =
        py::reinterpret_steal<py::tuple>(checked(PyCode_GetFreevars(reinterpret_cast<PyCodeObject*>(f->func_code))));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(f->func_closure); ++i) {
      PyObject* cell = PyTuple_GET_ITEM(f->func_closure, i);
      const auto content = py::reinterpret_borrow<py::object>(PyCell_GET(cell));
      if (!content) continue;  // not assigned yet
      PyObject* variable = PyTuple_GET_ITEM(names.ptr(), i);
      check(Kind::kCell, cell, -1, Name::kClosure, 0);
      item(variable, content.ptr());
      value(content.ptr(), {Name::kPlain, -1, variable});
    }
  }

  void defaults(PyFunctionObject* f, int32_t name) {
    if (f->func_defaults)
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(f->func_defaults); ++i)
        value(PyTuple_GET_ITEM(f->func_defaults, i), {Name::kDefault, name, nullptr, i});
    PyObject *key, *item;
    if (f->func_kwdefaults)
      for (Py_ssize_t at = 0; PyDict_Next(f->func_kwdefaults, &at, &key, &item);)
        value(item, {Name::kDefault, name, key});
  }

  // Globals by name, and names looked up in modules of the user's that are globals.
  void names_of(PyCodeObject* code, PyObject* globals) {
    check(Kind::kSome, globals, -1, Name::kGlobal, 0);
    note_names(code->co_names, globals);
    const State::Check c = s_.checks_.back();
    for (uint32_t i = c.begin; i < c.begin + c.count; ++i) {
      const State::Item it = s_.items_[i];
      if (PyModule_Check(it.value))
        names_of_module(code, it.value);
      else
        value(it.value, {Name::kPlain, -1, it.key});
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_consts); ++i)
      if (PyObject* constant = PyTuple_GET_ITEM(code->co_consts, i); PyCode_Check(constant))
        names_of(reinterpret_cast<PyCodeObject*>(constant), globals);
  }

  void names_of_module(PyCodeObject* code, PyObject* module) {
    const auto name = py::reinterpret_steal<py::object>(PyModule_GetNameObject(module));
    if (!name) PyErr_Clear();
    if (name && is_library(name.ptr())) return;
    PyObject* attributes = PyModule_GetDict(module);
    check(Kind::kSome, attributes, intern({Name::kPlain, -1, name.ptr()}), Name::kAttribute, 0);
    note_names(code->co_names, attributes);
    look_into_items();
  }

  void note_names(PyObject* names, PyObject* namespace_dict) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
      PyObject* name = PyTuple_GET_ITEM(names, i);
      if (PyObject* content = PyDict_GetItem(namespace_dict, name)) item(name, content);
    }
  }

  // All attributes: of a module numbers and flags, parameters, buffers, hooks and submodules.
  void object(PyObject* o, const Name& name) {
    const auto attributes = py::reinterpret_steal<py::object>(PyObject_GenericGetDict(o, nullptr));
    if (!attributes) PyErr_Clear();
    if (attributes) dict(attributes.ptr(), intern(name), Name::kAttribute);
    classes(Py_TYPE(o));
  }

  // Methods and constants of user classes.
  void classes(PyTypeObject* type) {
    if (!first_time(type)) return;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
      auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_mro, i));
      if ((base == type || first_time(base)) && !is_library_type(base)) user_class(base);
    }
  }

  void user_class(PyTypeObject* base) {
    const py::object attributes = dict_of_type(base);
    const py::object name = py::handle(reinterpret_cast<PyObject*>(base)).attr("__name__");
    check(Kind::kSome, attributes.ptr(), intern({Name::kPlain, -1, name.ptr()}), Name::kAttribute, 0);
    std::vector<py::object> rest;  // descriptors and the like, with their names
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(attributes.ptr(), &at, &key, &value);) {
      const bool watched = is_plain(value) || PyTuple_Check(value) || PyList_Check(value) || PyDict_Check(value) ||
                           PyFunction_Check(value);
      if (watched && !is_tensor(value) && !is_special(key)) {
        item(key, value);
        continue;
      }
      rest.push_back(py::reinterpret_borrow<py::object>(key));
      rest.push_back(py::reinterpret_borrow<py::object>(value));
    }
    const int32_t parent = s_.checks_.back().name;
    look_into_items();
    for (size_t i = 0; i < rest.size(); i += 2)
      this->value(rest[i + 1].ptr(), {Name::kAttribute, parent, rest[i].ptr()});
  }

  static inline PyObject *partial_ = nullptr, *compiled_ = nullptr, *module_ = nullptr;

  State& s_;
  jit::PointerMap seen_;  // objects that are walked once, and classes
  int32_t count_ = 0;
};

void State::note(PyObject* function, PyObject* args, PyObject* kwargs) {
  StateWalk walk(*this);
  py::object name = py::getattr(function, "__name__", py::none());
  if (name.is_none()) name = py::str(Py_TYPE(function)->tp_name);
  walk.value(function, {Name::kPlain, -1, name.ptr()});
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i)
    walk.value(PyTuple_GET_ITEM(args, i), {Name::kArgument, -1, nullptr, i});
  PyObject *key, *value;
  for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &key, &value);) walk.value(value, {Name::kArgument, -1, key});
}

}  // namespace deepseek::python
