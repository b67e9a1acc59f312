// What Python's garbage collector sees of the tape.
//
// A tensor object, a grad_fn and a saved tensor hold C++ objects, which hold Python objects again: hooks, the ctx of a
// user's Function, tensor objects that cells own. A cycle through them is garbage that only the collector can find. It
// counts references to Python objects, one visit each, and knows nothing of counts in C++. So a visit passes through a
// C++ object only if all references to it were met on the way; else somebody else may need what is behind it.
#pragma once

#include <atomic>
#include <unordered_map>
#include <utility>

#include "core/node.h"
#include "python/python.h"

namespace deepseek::python {

// How many hooks, Functions and cells hold Python objects: where none do, there is nothing to look for.
inline std::atomic<int64_t> python_holders = 0;
inline bool tape_holds_python() { return python_holders.load(std::memory_order_relaxed) > 0; }

// Whether the cell keeps its object, or the object its cell.
inline void set_python_owned(Cell& c, bool owned) {
  python_holders += owned - c.python_owned;
  c.python_owned = owned;
}

// Drops references to a Python object, from whichever thread lets go of it.
void release(PyObject* o, size_t references = 1);

// The tape node of a user-defined Function: calls ctx._run_backward(grads).
class FunctionNode final : public Node {
 public:
  explicit FunctionNode(PyObject* ctx);
  ~FunctionNode() override;
  std::string name() const override { return name_; }
  void set_name(std::string n) { name_ = std::move(n); }
  TensorList backward(Inputs grads, BackwardPass) override;
  void release_saved() override;
  // `t` gets its gradient from here.
  void add_output(const Tensor& t, uint32_t index);

 private:
  friend class TapeVisit;

  // The collector visits the ctx from each output that leads here, so each is worth a reference.
  PyObject* ctx_;
  std::vector<Ref<WeakCell>> outputs_;
  std::string name_ = "Function";
};

// Visits what is behind one object's references. Its tp_traverse returns what finish() does.
class TapeVisit {
 public:
  TapeVisit(visitproc visit, void* arg) : visit_(visit), arg_(arg) {}
  // References that the object holds.
  void cell(const Cell* c);
  void node(Node* n);
  void tensor(const Tensor& t);
  void stored(const Stored& s);
  int finish();

 private:
  void object(void* o);
  void hooks(const std::vector<HookEntry>& list);
  void meta(const GradMeta& m);
  void inside(Node* n);
  void shared(FunctionNode& f, const Cell* from);

  visitproc visit_;
  void* arg_;
  int stop_ = 0;
  std::unordered_map<Node*, uint32_t> met_;  // nodes, and how many references to them were met
  std::vector<Node*> ours_;                  // those of which all were, still to be looked into
};

}  // namespace deepseek::python
