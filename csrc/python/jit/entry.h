// One captured call: its graph, and the guards that decide whether it may be replayed.
#pragma once

#include <string>
#include <vector>

#include "jit/graph.h"
#include "python/jit/state.h"
#include "python/jit/tree.h"

namespace deepseek::python {

// --- what must be as it was when the call was recorded

struct TensorGuard {
  jit::TensorState state;
  PyObject* attributes;            // its __dict__ where that is not empty; the state of the program holds it
  size_t same_cell, same_storage;  // the first tensor that is this one, or shares its memory
  // What the program's state reaches, and so the function may have used instead: the tensor itself, its memory.
  const Cell* reached = nullptr;
  const Storage* storage = nullptr;
  int64_t offset = 0;
};

struct ModeGuard {
  bool grad = mode().grad, inference = mode().inference, autocast = mode().autocast;
  DType autocast_dtype = mode().autocast_dtype, default_type = default_dtype();
  bool operator==(const ModeGuard&) const = default;
};

// A list or dict among the arguments: the function may ask whether it is another one.
struct ContainerGuard {
  size_t same;        // the first of the containers that is this one
  PyObject* reached;  // it, where the program's state reaches it too
  bool operator==(const ContainerGuard&) const = default;
};

struct CapturedGuard {
  int32_t slot;
  const Storage* storage;
  size_t shared_with;  // the first of the arguments on that memory, or none
  bool watched;        // the state of the program has a check of its dtype and so on
};

struct Entry {
  jit::Graph graph;
  Tree args, kwargs, result;
  std::vector<TensorGuard> inputs;
  std::vector<ContainerGuard> containers;  // tuples have none, but a place
  std::vector<CapturedGuard> captured;     // in the order of the graph's, without constants, which nobody can change
  ModeGuard modes;
  Object passes;  // names of those that are still to run; null when the graph is optimised
  bool verify = false;
  bool cleared = false;  // by the garbage collector

  // Runs the function and writes down what it does. Returns why that cannot be replayed.
  std::string record(State& state, PyObject* function, PyObject* args, PyObject* kwargs, Object& result);
  // Optimises the graph. Not done for a first call: many captured functions are called once for each of their variants.
  void prepare();
  // Whether a call may be replayed; collects its tensors and containers. `why`, where given, says what is in the way.
  bool admits(const State& state, PyObject* args, PyObject* kwargs, TensorList& tensors, Containers& given,
              std::string* why);

  int traverse(visitproc visit, void* arg) const;
  void clear();
};

// A Python object that owns the entry and takes part in garbage collection.
PyObject* new_entry(std::unique_ptr<Entry> entry);
Entry& entry_of(PyObject* o);
void bind_jit_entry();

}  // namespace deepseek::python
