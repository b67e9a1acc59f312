#include "jit/recording.h"

#include <cstring>

namespace deepseek::jit {

const Recording::SlotsOnStorage* Recording::slots_on(const Tensor& t) const {
  const auto found = number_.find(t.storage().get());
  return found == number_.end() ? nullptr : &memories_[found->second];
}

Recording::Recording(Inputs arguments) : Recorder(Node::newest_sequence()), before_(mode().recorder) {
  constexpr size_t kUsual = 128;
  graph_.nodes.reserve(kUsual);
  graph_.slots.reserve(kUsual);
  tensors_.reserve(kUsual);
  for (const Tensor& t : arguments) graph_.inputs.push_back(outside(t));
  mode().recorder = this;
}

Recording::~Recording() { mode().recorder = before_; }

int32_t Recording::define(const Tensor& t) {
  const auto slot = static_cast<int32_t>(graph_.slots.size());
  const auto [number, fresh] = number_.try_emplace(t.storage().get(), static_cast<int32_t>(memories_.size()));
  if (fresh) memories_.emplace_back();
  SlotsOnStorage& slots = memories_[number->second];
  const bool is_outside = !fresh && graph_.slots[slots[0]].outside;
  slots.push_back(slot);
  graph_.slots.push_back({{t.dtype(), t.sizes(), t.strides()}, t.requires_grad(), number->second, is_outside});
  tensors_.push_back(t);
  by_cell_[t.cell()] = slot;
  return slot;
}

int32_t Recording::outside(const Tensor& t) {
  if (const auto found = by_cell_.find(t.cell()); found != by_cell_.end()) return found->second;
  const int32_t slot = define(t);
  graph_.slots[slot].outside = true;
  return slot;
}

int32_t Recording::alias(int32_t from, const Tensor& t) {
  GraphNode& n = append(Step::kAlias, false);
  n.in = {from};
  n.view = {t.sizes(), t.strides(), t.offset() - tensors_[from].offset()};
  n.flag = t.requires_grad();
  const int32_t slot = define(t);
  graph_.nodes.back().out = {slot};
  return slot;
}

int32_t Recording::slot_of(const Tensor& t) {
  if (!t.defined()) return -1;
  if (const auto found = by_cell_.find(t.cell()); found != by_cell_.end()) return found->second;
  if (!t.has_data()) {
    refuse("an internal tensor without memory was read");
    return -1;
  }
  // Autograd reads saved tensors through fresh cells on the same memory.
  if (const SlotsOnStorage* slots = slots_on(t)) {
    for (size_t i = slots->size(); i-- > 0;) {
      const int32_t slot = (*slots)[i];
      const Tensor& known = tensors_[slot];
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
    const int32_t any = (*slots)[0];
    if (tensors_[any].dtype() != t.dtype()) {
      refuse("memory is read as another dtype");
      return -1;
    }
    if (t.requires_grad() && !t.is_leaf()) {
      refuse("a tensor was read through a part of the graph that is not recorded");
      return -1;
    }
    return alias(any, t);
  }
  bool explained = t.cell()->python || t.cell()->wrapped_number;
  for (const Tensor& u : unexplained_) explained &= u.storage() != t.storage();
  if (!explained) {
    refuse("it reads a tensor that was made by something that is not recorded");
    return -1;
  }
  const int32_t slot = outside(t);
  graph_.captured.push_back({slot, t, t.cell()->wrapped_number});
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

namespace {
void set_op(GraphNode& n, const OpDef& def, const void* op) {
  n.def = &def;
  n.attributes.resize(attribute_bytes(def));
  std::memcpy(n.attributes.data(), op, def.size);
}
}  // namespace

void Recording::record(const OpDef& def, const void* op, Inputs in, Inputs out) {
  const Slots inputs = slots_of(in);
  bool grad = false;
  for (const Tensor& t : out) grad |= t.requires_grad();
  GraphNode& n = append(Step::kOp, mode().grad && grad);
  // A view made while gradients are on may be written to later, also when nothing requires them yet.
  if (def.view) n.grad = mode().grad;
  set_op(n, def, op);
  n.in = inputs;
  Slots outputs;
  for (const Tensor& t : out) outputs.push_back(define(t));
  graph_.nodes.back().out = outputs;
}

void Recording::record_inplace(const OpDef& def, const void* op, Inputs in) {
  if (def.info->random && mode().generator) refuse("a random op with a generator of its own");
  const Slots inputs = slots_of(in);
  GraphNode& n = append(Step::kInplace, mode().grad);
  set_op(n, def, op);
  n.in = inputs;
  graph_.slots[n.in[0]].requires_grad |= in[0].requires_grad();
}

void Recording::record_write(const Tensor& target, const Tensor& value) {
  const Slots inputs{slot_of(target), slot_of(value)};
  append(Step::kWrite, mode().grad).in = inputs;
  if (inputs[0] >= 0) graph_.slots[inputs[0]].requires_grad |= target.requires_grad();
}

// What the function found at a leaf before it changed it itself.
void Recording::note_grad(int32_t leaf, bool present) {
  for (const GraphNode& n : graph_.nodes)
    if ((n.step == Step::kAccumulate || n.step == Step::kSetGrad) && n.in[0] == leaf) return;
  for (const GradState& s : graph_.grads)
    if (s.slot == leaf) return;
  graph_.grads.push_back({leaf, present});
}

void Recording::record_accumulate(const Tensor& leaf, const Tensor& grad, bool create_graph) {
  const Slots inputs{slot_of(leaf), slot_of(grad)};
  GraphNode& n = append(Step::kAccumulate, create_graph);
  n.in = inputs;
  n.flag = create_graph;
}

void Recording::record_set_grad(const Tensor& leaf, const Tensor& grad) {
  const Slots inputs{slot_of(leaf), slot_of(grad)};
  append(Step::kSetGrad, false).in = inputs;
}

void Recording::record_get_grad(const Tensor& leaf, const Tensor& grad) {
  const int32_t from = slot_of(leaf);
  note_grad(from, grad.defined());
  if (!grad.defined()) return;
  append(Step::kGetGrad, false).in = {from};
  // A slot of its own even when the tensor is known: on replay accumulating may keep another one.
  const int32_t slot = define(grad);
  graph_.slots[slot].outside = true;
  graph_.nodes.back().out = {slot};
}

void Recording::record_draw(const Tensor& state, int64_t count) {
  append(Step::kDraw, false).count = count;
  graph_.nodes.back().out = {define(state)};
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
  if (t.requires_grad()) refuse("a tensor that requires grad is made from host data");
  graph_.captured.push_back({outside(t), t, true});
}

void Recording::record_wrapped(const Tensor& t) {
  if (t.has_data() && !slots_on(t)) unexplained_.push_back(t);
}

void Recording::record_foreign_edge(const Tensor& t) {
  foreign_.push_back(slot_of(t));
  if (foreign_.back() >= 0) graph_.slots[foreign_.back()].requires_grad = true;
}

void Recording::record_host(Ref<HostCall> host, Inputs in, Inputs out) {
  const Slots inputs = slots_of(in);
  GraphNode& n = append(Step::kHost, mode().grad);
  n.host = std::move(host);
  n.in = inputs;
  Slots outputs;
  for (const Tensor& t : out) {
    outputs.push_back(define(t));
    graph_.slots[outputs.back()].outside = true;  // the host may keep it
  }
  graph_.nodes.back().out = outputs;
}

void Recording::refuse(const std::string& why) {
  if (refusal_.empty()) refusal_ = why;
}

// A constant the function may change, or hands out, must be fresh on every call.
void Recording::copy_constants() {
  std::vector<bool> changed(memories_.size());
  for (const GraphNode& n : graph_.nodes)
    if (n.step == Step::kInplace || n.step == Step::kWrite) changed[graph_.slots[n.in[0]].memory] = true;
  for (const int32_t s : graph_.outputs) changed[graph_.slots[s].memory] = true;
  for (Captured& c : graph_.captured) c.copied = c.constant && changed[graph_.slots[c.slot].memory];
}

std::string Recording::finish(Inputs results) {
  for (const Tensor& t : results) graph_.outputs.push_back(slot_of(t));
  mode().recorder = before_;
  if (!refusal_.empty()) return refusal_;
  copy_constants();
  const std::vector<bool> needed = memory_on_tape(graph_);
  for (const int32_t s : foreign_)
    if (needed[graph_.slots[s].memory]) return "a result's gradient goes through a user-defined Function";
  const GraphNode* effect = nullptr;
  for (const GraphNode& n : graph_.nodes) {
    const bool may_stop = n.step == Step::kCheck || (n.def && n.def->info->reads_data);
    if (may_stop && effect)
      return "a value is read back after something outside the function was changed; read it after the call instead";
    // A draw can be taken back, and so can an assignment to .grad.
    if (graph_.effect_outside(n) && n.step != Step::kDraw && n.step != Step::kSetGrad) effect = &n;
  }
  return {};
}

}  // namespace deepseek::jit
