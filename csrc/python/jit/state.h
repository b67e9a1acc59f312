// The state of the program a captured function can see: globals, closure variables, attributes of modules.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "jit/graph.h"
#include "python/python.h"

namespace deepseek::python {

// What was found, as checks made before a replay. A value is the same when it is the same object, or an equal number,
// string or tuple.
class State {
 public:
  State() = default;
  State(const State&) = delete;
  ~State() { clear(); }

  bool unchanged() const;
  // What the call itself changed, for a message; empty when nothing. Tensors may become ones that require grad.
  std::string change() const;
  // What is in the way of a replay.
  std::string difference() const;
  bool watches(const Cell* tensor) const { return cells_.contains(tensor); }
  // A list or dict the function can reach.
  bool watches_container(PyObject* o) const { return containers_.contains(o); }
  bool watches_memory(const Storage* storage) const;

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
    kDict,      // all items, in order
    kSome,      // some items of a dict, which may be absent
    kList,      // all items
    kIterable,  // what iterating gives: of sets, deques, bytearrays
    kCell,      // of a closure
    kObject,    // its class and its __dict__, by identity
    kSlots,     // attributes without a __dict__
    kFunction,  // its code, defaults, keyword defaults and attributes, by identity
    kBases,     // of a class
  };
  struct Item {
    PyObject *key, *value;  // key: of a dict; the name of a cell; a slot's descriptor. value: null when there is none
  };
  struct Check {
    Kind kind;
    Name::Form form;  // of its items' names
    int32_t name;     // of the container
    PyObject* container;
    Py_ssize_t size;
    uint32_t begin, count;  // in items_
    bool held = true;       // not so an argument, which the recording does not keep alive and looks for first
  };
  struct TensorCheck {
    PyObject* tensor;      // an item, or something in one, holds it
    PyObject* attributes;  // its __dict__ where that is not empty, which has a check of its own
    jit::TensorState state;
    const Storage* storage;
    int64_t offset;
    bool holds() const;
  };
  bool holds(const Check& c) const;
  bool dict_holds(const Check& c) const;
  bool items_hold(const Check& c, const std::vector<Object>& now) const;
  std::vector<Object> items_now(const Check& c) const;
  std::string change(const Check& c) const;
  std::string words(const Name& name) const;

  std::vector<Check> checks_;  // references are owned
  std::vector<Item> items_;
  std::vector<Name> names_;
  std::vector<TensorCheck> tensors_;
  std::unordered_set<const Cell*> cells_;           // of those
  std::unordered_set<const PyObject*> containers_;  // of checks_
  bool cleared_ = false;
};

// A Python object that holds a State, and the State of one.
PyObject* new_state();
State& state_of(PyObject* o);
void bind_jit_state();

}  // namespace deepseek::python
