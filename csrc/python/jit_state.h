// The state of the program a captured function can see: globals, closure variables, attributes of modules.
#pragma once

#include <string>
#include <vector>

#include "python/python.h"

namespace deepseek::python {

// What was found, as checks made before a replay. A value is the same when it is the same object, or an equal number,
// string or tuple.
class State {
 public:
  State() = default;
  State(const State&) = delete;
  ~State() { clear(); }

  // Notes all that function(*args, **kwargs) can reach by name.
  void note(PyObject* function, PyObject* args, PyObject* kwargs);
  // Why no replay can be trusted; empty when it can.
  const std::string& refusal() const { return refusal_; }
  bool unchanged() const;
  // What changed, for a message; empty when nothing did.
  std::string change() const;

  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  friend class StateWalk;

  // What something is called in messages: put into words only when one asks for it.
  struct Name {
    enum Form : uint8_t { kPlain, kArgument, kItem, kIndex, kAttribute, kDefault, kGlobal, kClosure };
    Form form = kPlain;
    int32_t parent = -1;  // in names_
    PyObject* key = nullptr;
    Py_ssize_t index = 0;
  };
  enum class Kind : uint8_t {
    kDict,  // its size and all items
    kSome,  // some items of a dict
    kList,  // its size and all items
    kCell,  // of a closure
  };
  struct Item {
    PyObject *key, *value;  // key: of a dict; the name of a cell
  };
  struct Check {
    Kind kind;
    Name::Form form;  // of its items' names
    int32_t name;     // of the container
    PyObject* container;
    Py_ssize_t size;
    uint32_t begin, count;  // in items_
  };
  bool holds(const Check& c) const;
  bool dict_holds(const Check& c) const;
  std::string change(const Check& c) const;
  std::string words(const Name& name) const;

  std::vector<Check> checks_;  // references are owned
  std::vector<Item> items_;
  std::vector<Name> names_;
  std::string refusal_;
  bool cleared_ = false;
};

// A Python object that holds a State, and the State of one.
PyObject* new_state();
State& state_of(PyObject* o);
void bind_jit_state();

}  // namespace deepseek::python
