// Arguments and results of captured calls: the structure they have, and values compared as the guards compare them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "python/python.h"

namespace deepseek::python {

// The structure of arguments or of a result: containers, tensors by number, everything else by value.
struct Tree {
  enum Kind : uint8_t { kTensor, kValue, kObject, kWeak, kTuple, kList, kDict, kKnown };
  Kind kind = kValue;
  Object value;  // kValue, kObject; kWeak: a weak reference to an object; else the type
  std::vector<Object> keys;
  std::vector<Tree> children;
  size_t number = 0;  // kKnown: of a container that is there already
};

// Containers that are there already: those among the arguments, then each of a result when it is whole.
using Containers = std::vector<PyObject*>;
// Adds the tuples, lists and dicts inside `o`, outermost first.
void add_containers(PyObject* o, Containers& found);

// With `known`, a container of those is a number; `is_state` says which are left as they are, objects and all.
Tree flatten(PyObject* o, TensorList& tensors, Containers* known = nullptr,
             const std::function<bool(PyObject*)>& is_state = nullptr);
// Collects the tensors of `o` when it has the structure and values of `t`. `why`, where given, says what differs.
bool match(const Tree& t, PyObject* o, TensorList& tensors, std::string* why);
// A new reference to such an object with `tensors` from `next` on in their places.
PyObject* build(const Tree& t, const TensorList& tensors, size_t& next, Containers& known);
bool holds_object(const Tree& t);
// Objects that can be referred to weakly are, from now on; `died` is called when one is no longer there.
void weaken(Tree& t, PyObject* died);
// Whether all those objects are still there.
bool alive(const Tree& t);
int traverse(const Tree& t, visitproc visit, void* arg);

// The same object, or an equal number (a float by its bits), string, tuple or the like.
bool same_value(PyObject* a, PyObject* b);
// repr(), cut to 60 characters.
std::string show(PyObject* o);

}  // namespace deepseek::python
