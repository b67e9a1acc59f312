#include "jit/recording.h"

#include <cstring>

#include "core/dispatch/recorder.h"

namespace deepseek::jit {

Recording::Recording(Inputs arguments) : Recorder(Node::newest_sequence()), before_(mode().recorder) {
  constexpr size_t kUsual = 128;  // a first call should cost little more than an eager one
  graph_.nodes.reserve(kUsual);
  graph_.slots.reserve(kUsual);
  known_.reserve(kUsual);
  memories_.reserve(kUsual);
  for (const Tensor& t : arguments) {
    const int32_t* known = by_cell_.find(t.cell());
    graph_.inputs.push_back(known ? *known : outside(t));
  }
  mode().recorder = this;
}

Recording::~Recording() { mode().recorder = before_; }

int32_t Recording::define(const Tensor& t) {
  const auto slot = static_cast<int32_t>(graph_.slots.size());
  const auto fresh = static_cast<int32_t>(memories_.size());
  const int32_t number = number_.add(t.storage().get(), fresh);
  if (number == fresh) memories_.push_back({slot, -1});
  Memory& m = memories_[number];
  const bool is_outside = number != fresh && graph_.slots[m.first].outside;
  graph_.slots.push_back({{t.dtype(), t.sizes(), t.strides()}, t.requires_grad(), number, is_outside});
  known_.push_back({t, m.newest});
  m.newest = slot;
  by_cell_.set(t.cell(), slot);
  return slot;
}

int32_t Recording::outside(const Tensor& t) {
  const int32_t slot = define(t);
  graph_.slots[slot].outside = true;
  return slot;
}

int32_t Recording::alias(int32_t from, const Tensor& t) {
  GraphNode& n = append(Step::kAlias, false);
  n.in = {from};
  n.out = {define(t)};
  n.number = t.offset() - known_[from].tensor.offset();
  n.flag = t.requires_grad();
  return n.out[0];
}

int32_t Recording::slot_of(const Tensor& t) {
  if (!t.defined()) return -1;
  if (const int32_t* slot = by_cell_.find(t.cell())) return *slot;
  if (!t.has_data()) {
    refuse("an internal tensor without memory was read");
    return -1;
  }
  const int32_t* number = number_.find(t.storage().get());
  return number ? slot_on(memories_[*number], t) : capture(t);
}

// Autograd reads saved tensors through fresh cells on the same memory.
int32_t Recording::slot_on(const Memory& m, const Tensor& t) {
  for (int32_t slot = m.newest; slot >= 0; slot = known_[slot].earlier) {
    const Tensor& known = known_[slot].tensor;
    if (!same_geometry(known, t)) continue;
    // A number that autograd saved comes back as a plain tensor, which promotes differently.
    const bool same_strength = known.cell()->wrapped_number == t.cell()->wrapped_number;
    if (same_strength && known.requires_grad() == t.requires_grad()) {
      if (!t.requires_grad()) return slot;
      const Edge a = known.edge(), b = t.edge();
      if (a.node.get() == b.node.get() && a.index == b.index) return slot;
    }
    break;
  }
  if (known_[m.first].tensor.dtype() != t.dtype()) {
    refuse("memory is read as another dtype");
    return -1;
  }
  if (t.requires_grad() && !t.is_leaf()) {
    refuse("a tensor was read through a part of the graph that is not recorded");
    return -1;
  }
  return alias(m.first, t);
}

int32_t Recording::capture(const Tensor& t) {
  const bool number = t.cell()->wrapped_number;
  bool explained = t.cell()->python || number;
  for (const Tensor& u : unexplained_) explained &= u.storage() != t.storage();
  if (!explained) {
    refuse("it reads a tensor that was made by something that is not recorded");
    return -1;
  }
  const int32_t slot = outside(t);
  graph_.captured.push_back({slot, t, number});
  if (!number) graph_.captured.back().found = std::make_shared<TensorState>(t);
  return slot;
}

Slots Recording::slots_of(Inputs in) {
  Slots s;
  for (const Tensor& t : in) s.push_back(slot_of(t));
  return s;
}

GraphNode& Recording::append(Step step, bool grad) {
  GraphNode& n = graph_.nodes.emplace_back();
  n.step = step;
  n.grad = grad;
  n.inference = mode().inference;
  return n;
}

GraphNode& Recording::append_op(Step step, bool grad, const OpDef& def, const void* op) {
  GraphNode& n = append(step, grad);
  n.def = &def;
  n.attributes.append({static_cast<const char*>(op), attribute_bytes(def)});
  return n;
}

void Recording::record(const OpDef& def, const void* op, Inputs in, Inputs out) {
  Slots inputs = slots_of(in);  // may append nodes
  bool grad = false;
  for (const Tensor& t : out) grad |= t.requires_grad();
  // A view made while gradients are on may be written to later, also when nothing requires them yet.
  GraphNode& n = append_op(Step::kOp, mode().grad && (grad || def.view), def, op);
  n.in = std::move(inputs);
  for (const Tensor& t : out) n.out.push_back(define(t));
}

void Recording::record_inplace(const OpDef& def, const void* op, Inputs in) {
  if (def.info->random && mode().generator) refuse("a random op with a generator of its own");
  Slots inputs = slots_of(in);
  GraphNode& n = append_op(Step::kInplace, mode().grad, def, op);
  n.in = std::move(inputs);
  graph_.slots[n.in[0]].requires_grad |= in[0].requires_grad();
}

void Recording::record_write(const Tensor& target, const Tensor& value) {
  const Slots inputs{slot_of(target), slot_of(value)};
  append(Step::kWrite, mode().grad).in = inputs;
  if (inputs[0] >= 0) graph_.slots[inputs[0]].requires_grad |= target.requires_grad();
}

void Recording::record_accumulate(const Tensor& leaf, const Tensor& grad, bool create_graph) {
  const Slots inputs{slot_of(leaf), slot_of(grad)};
  GraphNode& n = append(Step::kAccumulate, create_graph);
  n.in = inputs;
  n.flag = create_graph;
  if (inputs[0] >= 0) known_[inputs[0]].grad_noted = true;
}

void Recording::record_set_grad(const Tensor& leaf, const Tensor& grad) {
  const Slots inputs{slot_of(leaf), slot_of(grad)};
  append(Step::kSetGrad, false).in = inputs;
  if (inputs[0] >= 0) known_[inputs[0]].grad_noted = true;
}

void Recording::record_get_grad(const Tensor& leaf, const Tensor& grad) {
  const int32_t from = slot_of(leaf);
  // What the function found at a leaf before it changed it itself.
  if (from >= 0 && !known_[from].grad_noted) {
    known_[from].grad_noted = true;
    graph_.grads.push_back({from, grad.defined() ? std::optional<TensorState>(grad) : std::nullopt});
  }
  if (!grad.defined()) return;
  GraphNode& n = append(Step::kGetGrad, false);
  n.in = {from};
  n.out = {outside(grad)};  // of its own even when the tensor is known: accumulating may keep another one on replay
}

void Recording::record_draw(const Tensor& state, int64_t count) {
  GraphNode& n = append(Step::kDraw, false);
  n.number = count;
  n.out = {define(state)};
}

void Recording::record_read(const Tensor& t) {
  if (t.cell()->wrapped_number) return;
  const Slots in{slot_of(t)};
  GraphNode& n = append(Step::kCheck, false);
  n.in = in;
  const RecorderPause reading;
  n.expected = t.item();
}

void Recording::record_constant(const Tensor& t) {
  Tensor copy = Tensor::empty(t.sizes(), t.dtype());  // `t` may be written
  if (t.numel() > 0) std::memcpy(copy.data_ptr(), t.data_ptr(), static_cast<size_t>(t.nbytes()));
  graph_.captured.push_back({define(t), copy, true});
}

void Recording::record_wrapped(const Tensor& t) {
  if (!known_.empty() && known_.back().tensor.is(t)) return;  // nearly always
  if (t.has_data() && !knows_memory(t)) unexplained_.push_back(t);
}

void Recording::record_foreign_edge(const Tensor& t) {
  foreign_.push_back(slot_of(t));
  if (foreign_.back() >= 0) graph_.slots[foreign_.back()].requires_grad = true;
}

void Recording::record_host(Ref<HostCall> host, Inputs in, Inputs out) {
  clear_autocast_cache();  // it may change weights, and in some replays only
  const Slots inputs = slots_of(in);
  GraphNode& n = append(Step::kHost, mode().grad);
  n.host = std::move(host);
  n.in = inputs;
  for (const Tensor& t : out) n.out.push_back(outside(t));  // the host may keep it
}

void Recording::refuse(const std::string& why) {
  if (refusal_.empty()) refusal_ = why;
}

// A constant the function may change, or that others may see, must be fresh on every call.
void Recording::copy_constants() {
  const std::vector<bool> shown = shown_memory(graph_), written = written_memory(graph_);
  for (Captured& c : graph_.captured) {
    const int32_t memory = graph_.slots[c.slot].memory;
    c.copied = c.constant && (shown[memory] || written[memory]);
  }
}

// A replay that cannot go on is taken back, which must be possible, or is as far as the function would have come.
std::string Recording::check_order(bool handlers) const {
  const GraphNode* effect = nullptr;
  for (const GraphNode& n : graph_.nodes) {
    const bool may_stop = n.step == Step::kCheck || (n.def && n.def->info->reads_data);
    if (may_stop && effect)
      return "a value is read back after something outside the function was changed; read it after the call instead";
    if (n.step == Step::kHost && handlers)
      return "it handles exceptions, and a function that runs on every replay may raise one";
    if (n.def && handlers && (effect || graph_.final_effect(n)))
      return "it handles exceptions, and calls ops after it changed something outside";
    if (graph_.final_effect(n)) effect = &n;
  }
  return {};
}

std::string Recording::finish(Inputs results, bool handlers) {
  for (const Tensor& t : results) graph_.outputs.push_back(slot_of(t));
  mode().recorder = before_;
  if (!refusal_.empty()) return refusal_;
  copy_constants();
  if (!foreign_.empty()) {
    const std::vector<bool> needed = memory_on_tape(graph_);
    for (const int32_t s : foreign_)
      if (needed[graph_.slots[s].memory]) return "a result's gradient goes through a user-defined Function";
  }
  return check_order(handlers);
}

}  // namespace deepseek::jit
