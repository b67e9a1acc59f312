// What functions can reach by name: closures, globals, attributes of modules.
#include <unordered_map>

#include "python/jit/walk.h"

namespace deepseek::python {

namespace {

PyObject* module_name_in(PyObject* globals) {
  static PyObject* key = checked(PyUnicode_InternFromString("__name__"));
  return PyDict_GetItem(globals, key);
}

std::string module_text(PyObject* globals) {
  PyObject* name = module_name_in(globals);
  return name && PyUnicode_Check(name) ? std::string(utf8(name)) : std::string();
}

PyObject* builtins_of(PyObject* globals) {
  static PyObject* key = checked(PyUnicode_InternFromString("__builtins__"));
  PyObject* b = PyDict_GetItem(globals, key);
  if (b && PyModule_Check(b)) b = PyModule_GetDict(b);
  return b && PyDict_Check(b) ? b : PyEval_GetBuiltins();
}

std::string qualified_name(PyCodeObject* code) { return std::string(utf8(code->co_qualname)); }

// Of trusted modules, for all recordings; whether it is Python's import system.
std::unordered_map<PyCodeObject*, bool>& trusted_code() {
  static std::unordered_map<PyCodeObject*, bool> all;
  return all;
}

// Whether leaving a block may end an exception: a context manager's, of the user or of contextlib but for the one
// that runs a generator, whose own handlers count.
bool leaves_block(PyCodeObject* code) {
  const std::string name = qualified_name(code);
  return name.ends_with("__exit__") && !name.starts_with("_GeneratorContextManager");
}

bool is_called_by_deepseek(PyFrameObject* frame) {
  const Object caller = Object::steal(reinterpret_cast<PyObject*>(PyFrame_GetBack(frame)));
  if (!caller) return false;
  const Object globals = owned(PyFrame_GetGlobals(reinterpret_cast<PyFrameObject*>(caller.get())));
  return (module_text(globals.get()) + ".").starts_with("deepseek.");
}

}  // namespace

void StateWalk::function(PyObject* o, const Name& name) {
  auto* f = reinterpret_cast<PyFunctionObject*>(o);
  const bool user = owner_of(module_name_in(f->func_globals)) == Owner::kUser;
  const int32_t mine = intern(name);
  if (user || f->func_closure) {
    check(Kind::kFunction, o, mine, Name::kAttribute);
    PyObject* attributes = f->func_dict && PyDict_GET_SIZE(f->func_dict) > 0 ? f->func_dict : nullptr;
    for (PyObject* part : {f->func_code, f->func_defaults, f->func_kwdefaults, attributes}) item(nullptr, part);
    if (attributes) dict(attributes, mine, Name::kAttribute);
    if (f->func_defaults)
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(f->func_defaults); ++i)
        value(PyTuple_GET_ITEM(f->func_defaults, i), {Name::kDefault, mine, nullptr, i});
    if (f->func_kwdefaults) dict(f->func_kwdefaults, mine, Name::kDefault);
  }
  if (!user) {  // a library's wrapper around something of the user's
    if (f->func_closure) closure(f);
    return;
  }
  Code& c = code_of(reinterpret_cast<PyCodeObject*>(f->func_code));
  c.functions.push_back(f);
  if (c.entered && f->func_closure) closure(f);
}

void StateWalk::closure(PyFunctionObject* f) {
  const Object names = owned(PyCode_GetFreevars(reinterpret_cast<PyCodeObject*>(f->func_code)));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(f->func_closure); ++i) {
    PyObject* cell = PyTuple_GET_ITEM(f->func_closure, i);
    if (!first_time(cell)) continue;
    const Object content = Object::borrow(PyCell_GET(cell));
    PyObject* variable = PyTuple_GET_ITEM(names.get(), i);
    check(Kind::kCell, cell, -1, Name::kClosure);
    item(variable, content.get());
    if (!content) continue;
    if (PyModule_Check(content.get())) {
      modules_.clear();
      auto* code = reinterpret_cast<PyCodeObject*>(f->func_code);
      names_of_module(code->co_names, use_of(code), content.get());
    } else {
      value(content.get(), {Name::kPlain, -1, variable});
    }
  }
}

StateWalk::Code& StateWalk::code_of(PyCodeObject* code) {
  const auto [place, fresh] = codes_.try_emplace(code);
  if (fresh) kept_.push_back(Object::borrow(reinterpret_cast<PyObject*>(code)));
  return place->second;
}

bool StateWalk::trusts(PyCodeObject* code) { return trusted_code().contains(code); }

void StateWalk::names_loaded() {
  std::vector<std::pair<PyCodeObject*, PyObject*>> entered;  // looking may find more
  for (const auto& [code, c] : codes_)
    if (c.globals) entered.emplace_back(code, c.globals.get());
  for (const auto& [code, globals] : entered) names_of(code, globals);
}

bool StateWalk::enter(PyFrameObject* frame) {
  if (!refusal_.empty()) return true;
  const Object held = Object::steal(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  auto* code = reinterpret_cast<PyCodeObject*>(held.get());
  if (const auto known = trusted_code().find(code); known != trusted_code().end())
    return !known->second || !is_called_by_deepseek(frame);
  const auto found = codes_.find(code);
  if (found != codes_.end() && found->second.entered) return true;
  const Object globals = owned(PyFrame_GetGlobals(frame));
  if (found != codes_.end()) {
    handles_ |= leaves_block(code);
    found->second.entered = true;
    found->second.globals = globals;
    enter_user(code, globals.get());
    return true;
  }
  const std::string module = module_text(globals.get());
  if (module.starts_with("importlib") && is_called_by_deepseek(frame)) return false;
  switch (owner_of(module_name_in(globals.get()))) {
    case Owner::kTrusted:
      if (module == "contextlib" && leaves_block(code))
        handles_ = true;  // asked again on every call
      else                // modules are never unloaded
        trusted_code().emplace(reinterpret_cast<PyCodeObject*>(Py_NewRef(held.get())), module.starts_with("importlib"));
      break;
    case Owner::kUser:
      refuse("it calls " + qualified_name(code) + ", which cannot be found by name before the call");
      break;
    case Owner::kLibrary:
      refuse("it calls " + qualified_name(code) + " of " + module + ", which runs only while it is recorded");
      break;
  }
  return true;
}

void StateWalk::enter_user(PyCodeObject* code, PyObject* globals) {
  const std::vector<PyFunctionObject*> functions = codes_[code].functions;  // looking into them may find more
  for (PyFunctionObject* f : functions)
    if (f->func_closure) closure(f);
  names_of(code, globals);
  const Object constants = Object::steal(PyObject_GetAttrString(reinterpret_cast<PyObject*>(code), "co_consts"));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants.get()); ++i)
    if (PyObject* inner = PyTuple_GET_ITEM(constants.get(), i); PyCode_Check(inner))
      code_of(reinterpret_cast<PyCodeObject*>(inner));
}

void StateWalk::names_of(PyCodeObject* code, PyObject* globals) {
  const CodeUse use = use_of(code);
  handles_ |= use.handles;
  modules_.clear();
  PyObject* names = code->co_names;
  PyObject* builtins = builtins_of(globals);
  for (size_t i = 0; i < use.names.size(); ++i) {
    if (!(use.names[i] & kGlobal)) continue;
    PyObject* name = PyTuple_GET_ITEM(names, static_cast<Py_ssize_t>(i));
    const bool only_called = !(use.names[i] & (kGlobalRead | kGlobalWritten));
    const Object own = Object::borrow(PyDict_GetItem(globals, name));
    if (looked_up_.emplace(globals, name).second) {
      check(Kind::kSome, globals, -1, Name::kGlobal);
      item(name, own.get());
    }
    Object found = own;
    if (!found) {
      found = Object::borrow(PyDict_GetItem(builtins, name));
      if (found && looked_up_.emplace(builtins, name).second) {
        check(Kind::kSome, builtins, -1, Name::kGlobal);
        item(name, found.get());
      }
    }
    if (found) named(names, use, {name, found.get()}, {Name::kPlain, -1, name}, only_called);
  }
  imports(names, use);
  attribute_names(names, use);
}

// What a name stands for. A C function that is only called where it is looked up is seen when that happens.
void StateWalk::named(PyObject* names, const CodeUse& use, const State::Item& found, const Name& name,
                      bool only_called) {
  if (PyModule_Check(found.value)) return names_of_module(names, use, found.value);
  if (only_called && PyCFunction_Check(found.value)) return;
  if (PyType_Check(found.value)) type_object(reinterpret_cast<PyTypeObject*>(found.value), name);
  value(found.value, name);
}

// All names the code looks up as attributes, in a module it can name.
void StateWalk::names_of_module(PyObject* names, const CodeUse& use, PyObject* module) {
  if (!modules_.insert(module).second) return;
  const Object name = Object::steal(PyModule_GetNameObject(module));
  if (!name) PyErr_Clear();
  const bool user = !name || owner_of(name.get()) == Owner::kUser;
  user_module_ |= user;
  PyObject* dict = PyModule_GetDict(module);
  const int32_t mine = intern({Name::kPlain, -1, name.get()});
  for (size_t i = 0; i < use.names.size(); ++i) {
    const uint8_t how = use.names[i];
    if (!(how & kAttribute)) continue;
    PyObject* key = PyTuple_GET_ITEM(names, static_cast<Py_ssize_t>(i));
    const Object found = Object::borrow(PyDict_GetItem(dict, key));
    // Of a library what is there is watched, and what is written.
    if (!found && !user && !(how & kAttributeWritten)) continue;
    if (looked_up_.emplace(dict, key).second) {
      check(Kind::kSome, dict, mine, Name::kAttribute);
      item(key, found.get());
    }
    const bool only_called = !(how & (kAttributeRead | kAttributeWritten));
    if (found) named(names, use, {key, found.get()}, {Name::kAttribute, mine, key}, only_called);
  }
}

// Modules imported by the function itself. One that is not there yet is loaded by code that is seen.
void StateWalk::imports(PyObject* names, const CodeUse& use) {
  for (size_t i = 0; i < use.names.size(); ++i) {
    if (!(use.names[i] & kImported)) continue;
    const std::string text(utf8(PyTuple_GET_ITEM(names, static_cast<Py_ssize_t>(i))));
    for (size_t dot = text.size(); dot != std::string::npos; dot = text.rfind('.', dot - 1)) {
      const auto prefix = text.substr(0, dot);
      const Object module = Object::borrow(PyDict_GetItemString(PyImport_GetModuleDict(), prefix.c_str()));
      if (module && PyModule_Check(module.get()))
        names_of_module(names, use, module.get());
      else
        refuse("it imports " + text);
      if (dot == 0) break;
    }
  }
}

// Attributes of objects that are watched by name: such as the code uses.
void StateWalk::attribute_names(PyObject* names, const CodeUse& use) {
  for (size_t i = 0; i < use.names.size(); ++i) {
    PyObject* name = PyTuple_GET_ITEM(names, static_cast<Py_ssize_t>(i));
    if (!(use.names[i] & kAttribute) || !attribute_names_.insert(name).second) continue;
    for (size_t k = 0; k < by_name_.size(); ++k) attribute_by_name(by_name_[k], name);
  }
}

void StateWalk::by_name(PyObject* o, const Name& name) {
  by_name_.push_back({o, intern(name)});
  const ByName mine = by_name_.back();
  for (PyObject* attribute : std::vector<PyObject*>(attribute_names_.begin(), attribute_names_.end()))
    attribute_by_name(mine, attribute);
  if (const Object watched = Object::steal(PyObject_GetAttrString(o, "_watched_names")))
    for_each(watched.get(), [&](PyObject* attribute) { attribute_by_name(mine, attribute); });
  else
    PyErr_Clear();
}

void StateWalk::attribute_by_name(const ByName& o, PyObject* name) {
  const Object attributes = Object::steal(PyObject_GenericGetDict(o.object, nullptr));
  if (!attributes) return PyErr_Clear();
  const Object found = Object::borrow(PyDict_GetItem(attributes.get(), name));
  if (!looked_up_.emplace(attributes.get(), name).second) return;
  check(Kind::kSome, attributes.get(), o.name, Name::kAttribute);
  item(name, found.get());
  if (found) value(found.get(), {Name::kAttribute, o.name, name});
}

}  // namespace deepseek::python
