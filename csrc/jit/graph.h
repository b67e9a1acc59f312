// A captured function: what it did, in order, on numbered slots. Replaying it makes the same calls through the same
// choke point, so results, errors, views, in-place writes and gradients are those of the eager call.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/op.h"

namespace deepseek::jit {

enum class Step : uint8_t {
  kOp,          // out = def(in): fresh tensors or views, and writes to what the op's schema says
  kInplace,     // in[0] := def(in)
  kWrite,       // in[0].copy_(in[1])
  kAlias,       // out[0] = in[0]'s memory with another geometry and no history
  kAccumulate,  // in[0].grad += in[1], as backward does at a leaf
  kSetGrad,     // in[0].grad = in[1] (-1: None)
  kGetGrad,     // out[0] = in[0].grad
  kCheck,       // the function read in[0] as the number `expected`; another number ends the replay
  kDraw,        // out[0] = a generator state, reserved for `count` numbers
  kHost,        // calls back into the host (an optimizer's step)
};

// Something the host does on every replay, such as an optimizer's step.
class HostCall : public Counted {
 public:
  virtual ~HostCall() = default;
  virtual std::string name() const = 0;
  virtual TensorList call(Inputs in) = 0;
};

using Slots = SmallVector<int32_t, 4>;

struct GraphNode {
  Step step = Step::kOp;
  bool grad = false;  // recorded on the tape
  bool inference = false;
  bool known = false;  // kOp: the results' sizes are those of the slots and nothing goes on a tape
  bool flag = false;   // kAccumulate: create_graph; kAlias: the result is a leaf that requires grad
  const OpDef* def = nullptr;
  SmallVector<char, 24> attributes;  // attribute_bytes(*def)
  Slots in, out;                     // -1: no tensor
  Slots release;                     // slots not needed after this node
  Scalar expected;                   // kCheck
  int64_t number = 0;                // kDraw: how many; kAlias: elements from in[0]'s first to the result's
  Ref<HostCall> host;
};

// f(slot) for each slot whose memory the node writes to.
template <class F>
void for_each_written(const GraphNode& n, F f) {
  if (n.step == Step::kInplace || n.step == Step::kWrite) f(n.in[0]);
  if (n.step == Step::kOp)
    n.def->schema.for_each_written(n.in.size(), [&](size_t i) {
      if (n.in[i] >= 0) f(n.in[i]);
    });
}

// An op without attributes is still called through a pointer to an object.
inline size_t attribute_bytes(const OpDef& def) { return std::max<size_t>(def.size, 1); }

struct Slot {
  Meta meta;  // with strides
  bool requires_grad = false;
  int32_t memory = -1;   // slots with the same number share storage
  bool outside = false;  // memory that exists before the call: arguments, parameters, constants
};

// What of a tensor decides whether a graph fits: as it was when the function first used it.
struct TensorState {
  DType dtype;
  Dims sizes, strides;
  bool requires_grad, leaf, inference, hooked;
  explicit TensorState(const Tensor& t);
  bool is_of(const Tensor& t) const;
  std::string difference(const Tensor& t) const;  // in words; empty when there is none
};

struct Captured {
  int32_t slot;
  Tensor tensor;          // of a constant: a copy nobody else has
  bool constant = false;  // made from host data by the function itself, or a number
  bool copied = false;    // a constant that is written to or seen by others: every call gets its own
  std::shared_ptr<const TensorState> found = {};  // null for those, which nobody can change
};

// The .grad of an input or captured tensor when the function first looked at it.
struct GradState {
  int32_t slot;
  std::optional<TensorState> found;  // none: it was None
};

struct Graph {
  std::vector<Slot> slots;
  std::vector<int32_t> inputs;
  std::vector<Captured> captured;
  std::vector<GraphNode> nodes;
  std::vector<int32_t> outputs;
  std::vector<GradState> grads;

  bool effect_outside(const GraphNode& n) const;  // changes something that outlives the call
  // After it, memory from outside may hold other values, under whatever slot: arguments and captured tensors can share
  // memory that they did not share when the call was recorded, and gradients are added to in place.
  bool changes_inputs(const GraphNode& n) const { return n.step != Step::kDraw && effect_outside(n); }
  // Changes something in a way that cannot be taken back: a draw can, and so can an assignment to .grad.
  bool final_effect(const GraphNode& n) const;
};

std::string to_text(const Graph& g);
// Throws Error when a slot is read before it is defined, defined twice or after its release, or a call does not fit.
void verify(const Graph& g);

// --- passes: graph -> graph, each with a switch
struct Pass {
  const char* name;
  const char* doc;
  void (*run)(Graph& g);
};
const std::vector<Pass>& passes();
// By memory number: whether something outside the function may hold it after the call that hands it out.
std::vector<bool> shown_memory(const Graph& g);
// By memory number: whether some call writes to it.
std::vector<bool> written_memory(const Graph& g);
// By memory number: whether a tensor that outlives the call may send gradients into it.
std::vector<bool> memory_on_tape(const Graph& g);
void drop_tape(Graph& g);       // no tape for what no escaping tensor depends on
void merge_common(Graph& g);    // common subexpressions
void eliminate_dead(Graph& g);  // results nobody uses
void fuse_linear(Graph& g);     // linear layers take the pointwise ops after them along (fuse.cc)
void skip_inference(Graph& g);  // marks kernels whose results are known beforehand
void release_early(Graph& g);   // frees each tensor after its last use

// --- running
// Runs the graph. False when a kCheck saw another value, a size that depends on values is another one, or a call failed
// before anything outside was changed; then all is as it was before. A call that fails later throws.
bool replay(const Graph& g, Inputs in, TensorList& out);

}  // namespace deepseek::jit
