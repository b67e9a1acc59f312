// Finds the state of the program that a call depends on, while the call runs: what its arguments hold, and what each
// function that begins to run can reach by name.
#pragma once

#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "jit/pointer_map.h"
#include "python/jit/code.h"
#include "python/jit/state.h"
#include "python/jit/types.h"

namespace deepseek::python {

class StateWalk {
 public:
  explicit StateWalk(State& state);
  StateWalk(const StateWalk&) = delete;

  void start(PyObject* function, PyObject* args, PyObject* kwargs);
  // A frame begins to run. Its names are looked up then: whatever could have changed them before has run too.
  // False when it is Python's import system, called by deepseek, whose names may load on first use: what runs inside is
  // not the call's.
  bool enter(PyFrameObject* frame);
  // It called getattr() or the like, with a name that nobody can see.
  void reads_any_attribute() { any_attribute_ = true; }
  void refuse(const std::string& why) {
    if (refusal_.empty()) refusal_ = why;
  }
  // Why no replay can be trusted; empty when it can.
  std::string refusal() const;
  // Whether an object that is given to a function that runs on every replay was there before the call, in a place that
  // is watched: nothing the call made can be inside it unless that place changed. What it is otherwise, or empty.
  std::string made_in_call(PyObject* o) const;
  // What the call has changed so far; empty when nothing.
  std::string change() const { return s_.change(); }
  // Modules of deepseek were loaded by the call: names that were not there before it are.
  void names_loaded();
  // Whether code that ran may handle an exception.
  bool handles() const { return handles_; }
  static bool trusts(PyCodeObject* code);

 private:
  using Name = State::Name;
  using Kind = State::Kind;

  struct Code {
    std::vector<PyFunctionObject*> functions;  // that are known to have it
    bool entered = false;
    Object globals = {};  // of the frame that entered it
  };

  struct ByName {
    PyObject* object;
    int32_t name;
  };

  // --- what is inside an object (walk.cc)
  void value(PyObject* o, const Name& name);
  void argument(PyObject* o, const Name& name);
  void object(PyObject* o, const Name& name);
  bool contents(PyObject* o, const Name& name);
  void tensor(PyObject* o, const Name& name);
  void dict(PyObject* d, int32_t name, Name::Form form);
  void list(PyObject* l, int32_t name);
  void tuple(PyObject* t, int32_t name);
  void iterable(PyObject* o, PyTypeObject* type, int32_t name);
  void attributes(PyObject* o, int32_t name);
  void slots(PyObject* o, int32_t name);
  void partial(PyObject* p, const Name& name);
  void part(PyObject* o, const char* attribute, const Name& name);
  void classes(PyTypeObject* type);
  void user_class(PyTypeObject* type);
  void c_function(PyObject* f, const Name& name);
  void type_object(PyTypeObject* type, const Name& name);

  // --- functions and names (names.cc)
  void function(PyObject* o, const Name& name);
  void closure(PyFunctionObject* f);
  Code& code_of(PyCodeObject* code);
  void enter_user(PyCodeObject* code, PyObject* globals);
  void names_of(PyCodeObject* code, PyObject* globals);
  void names_of_module(PyObject* names, const CodeUse& use, PyObject* module);
  void named(PyObject* names, const CodeUse& use, const State::Item& item, const Name& name, bool only_called);
  void imports(PyObject* names, const CodeUse& use);
  void attribute_names(PyObject* names, const CodeUse& use);
  void by_name(PyObject* o, const Name& name);
  void attribute_by_name(const ByName& o, PyObject* name);

  // --- the notes
  void too_much(const char* what) { refuse(std::string("it can reach ") + what + ", too much state to watch"); }
  bool first_time(PyObject* o);
  bool has_seen(PyObject* o) const { return seen_.find(o); }
  int32_t intern(const Name& name);
  void check(Kind kind, PyObject* container, int32_t name, Name::Form form, Py_ssize_t size = 0);
  void item(PyObject* key, PyObject* value);  // of the newest check
  void look_into_items();                     // of the newest check

  State& s_;
  jit::PointerMap seen_;
  std::vector<Object> kept_;  // so that an address means one object
  int32_t count_ = 0;
  std::unordered_map<PyCodeObject*, Code> codes_;
  std::set<std::pair<PyObject*, PyObject*>> looked_up_;  // a dict, a name
  std::set<PyObject*> modules_;                          // the code at hand has been through
  std::vector<ByName> by_name_;
  std::set<PyObject*> attribute_names_;  // used by the user's code
  std::set<PyTypeObject*> classes_, looked_into_, slotless_;
  PyObject* argument_ = nullptr;  // the object being looked into
  bool weak_is_ours_ = false;     // whose attributes are being looked into
  bool handles_ = false, any_attribute_ = false, user_module_ = false;
  std::string refusal_;
};

// Whether a C function's result and effects are those a recording follows.
bool is_pure(PyObject* c_function);

}  // namespace deepseek::python
