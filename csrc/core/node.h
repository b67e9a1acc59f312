// The tape: nodes, edges, hooks, and what a tensor keeps for autograd.
#pragma once

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "core/tensor.h"

namespace deepseek {

// A function on gradients, registered from C++ or Python.
class Hook : public Counted {
 public:
  virtual ~Hook() = default;
  // Returns the replacement, or an undefined tensor to keep `grad`.
  virtual Tensor call(const Tensor& grad) = 0;
  virtual void* python() const { return nullptr; }  // for the garbage collector
};

struct HookEntry {
  int64_t id;
  uint32_t index;  // which output of the node
  Ref<Hook> hook;
  bool retains = false;  // keeps .grad: runs after all others, whenever it was registered
};

// What saved-tensor hooks keep in place of a tensor that a node saves.
class Stored : public Counted {
 public:
  virtual ~Stored() = default;
  virtual Tensor restore() const = 0;
  virtual std::array<void*, 2> python() const { return {}; }  // for the garbage collector
};

// Says what to keep of each tensor that a node saves, while mode() has it.
class SavingHooks {
 public:
  virtual Ref<Stored> store(const Tensor& t) = 0;

 protected:
  ~SavingHooks() = default;
};

// The gradients a pass has summed so far.
class GradientSums {
 public:
  // That for the input behind `edge`, when it may be written and its rows are dense (with `contiguous`: all of it),
  // else an undefined tensor. Who takes it adds its gradient there and returns it as the gradient. Of two inputs with
  // one sum only the first gets it.
  virtual Tensor take(const Edge& edge, bool contiguous) = 0;
  // Adds zeros to a sum that was taken, for the parts that the taker leaves out: they make 0 of -0.
  virtual void add_zeros(const Edge& edge) = 0;

 protected:
  ~GradientSums() = default;
};

// How the tape is run.
struct BackwardPass {
  bool create_graph = false;     // gradients are recorded too
  bool last = false;             // what nodes saved is dropped after this run
  GradientSums* sums = nullptr;  // what a node may add to; null where gradients are recorded
};

class Node : public Counted {
 public:
  Node() : sequence(next_sequence()) {}
  virtual ~Node();
  static void* operator new(size_t n) { return allocate(n); }
  static void operator delete(void* p, size_t n) { deallocate(p, n); }
  static uint64_t newest_sequence();  // of all nodes so far

  virtual std::string name() const = 0;
  // grads[i] is the gradient of output i (undefined: zero). Returns one gradient an edge (undefined: none).
  virtual TensorList backward(Inputs grads, BackwardPass pass) = 0;
  virtual void release_saved() {}
  virtual void for_each_stored(FunctionRef<void(const Stored&)>) const {}
  // Runs the hooks registered on the outputs this node stands for, replacing gradients.
  virtual void run_hooks(TensorList& grads);

  // Adds an edge to a producer. A leaf's sink may be made by asking for the edge, after this node: keep the order.
  void add_next(Edge edge) {
    if (edge.node && edge.node->sequence > sequence) sequence = next_sequence();
    next.push_back(std::move(edge));
  }

  SmallVector<Edge, 3> next;
  SmallVector<Meta, 1> outputs;  // shape and dtype a gradient of each output must have
  std::vector<HookEntry> hooks;  // run on gradients before backward()
  uint64_t sequence;             // consumers have larger numbers than their producers
  void* engine_slot = nullptr;   // the running engine's buffer for this node

 protected:
  // To be called again once `next` is filled: asking for an edge may create nodes that must come earlier.
  static uint64_t next_sequence();
};

// Deep graphs are freed with a work list instead of recursion.
template <>
struct Destroy<Node> {
  static void run(Node* node);
};

// A back reference that does not keep the cell alive.
struct WeakCell : Counted {
  Cell* cell = nullptr;
};

// How a view was made: normally, under no_grad or inference_mode, or as one of several outputs (split, unbind).
enum class ViewOrigin : uint8_t { kGrad, kNoGrad, kMultiple };

struct GradMeta : Counted {     // held by its tensor alone
  Edge edge;                    // what made this tensor; empty for leaves
  Tensor grad;                  // .grad
  Node* accumulator = nullptr;  // a leaf's sink while some graph uses it
  Tensor base;                  // the tensor this is a differentiable view of
  uint32_t view_version = 0;    // storage version at which `edge` was right for a view
  ViewOrigin origin = ViewOrigin::kGrad;
  int64_t retain_hook = 0;  // after retain_grad(): the id of its hook
  Ref<WeakCell> weak;
  std::vector<HookEntry> leaf_hooks;
  std::vector<HookEntry> post_accumulate_hooks;
  ~GradMeta() {
    if (weak) weak->cell = nullptr;
  }
};

GradMeta& grad_meta(const Tensor& t);
// Hooks stay with the old edge, which made the value they were registered on; retain_grad() moves to the new one.
void set_edge(const Tensor& t, Edge edge);
Ref<WeakCell> weak_cell(const Tensor& t);

// What a node keeps of an input or output: geometry, and when the vjp needs values the memory with its version, or what
// saved-tensor hooks made of it.
class Snapshot {
 public:
  Snapshot() = default;
  Snapshot(const Tensor& t, bool with_data);
  // A fresh cell on the saved memory; throws when the memory was written since (naming `op`).
  Tensor unpack(const char* op) const;
  void release() { storage_.reset(), stored_.reset(); }
  const Ref<Stored>& stored() const { return stored_; }

 private:
  Ref<Storage> storage_;
  Ref<Stored> stored_;
  int64_t offset_ = 0;
  Dims sizes_, strides_;
  uint32_t version_ = 0;
  DType dtype_ = DType::kFloat32;
  bool defined_ = false, with_data_ = false;
};

// Installed by autograd/ so that core need not know ops or the engine.
struct AutogradHooks {
  Ref<Node> (*make_accumulator)(const Tensor& leaf) = nullptr;
  // leaf.grad += grad, as backward does.
  void (*accumulate)(const Tensor& leaf, const Tensor& grad, bool create_graph) = nullptr;
  // The node as_strided(base) -> view that gives a stale view its gradient edge.
  Edge (*rederive_view)(const Tensor& view, const Tensor& base) = nullptr;
  // base's new edge after `view` of it was overwritten by a value with edge `value`.
  Edge (*scatter_into_base)(const Tensor& view, const Tensor& base, Edge base_edge, Edge value,
                            const Meta& value_meta) = nullptr;
  // grad(outputs, output_grads, inputs), keeping the graph when gradients are being recorded.
  TensorList (*grad)(Inputs outputs, Inputs output_grads, Inputs inputs) = nullptr;
};
AutogradHooks& autograd_hooks();

}  // namespace deepseek
