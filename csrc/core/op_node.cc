#include "core/op_node.h"

#include <algorithm>

namespace deepseek {

OpNode::OpNode(const OpDef& def, const void* op, Inputs in, Inputs out) : def_(def) {
  if (def.size > kSmallOp) large_ = std::make_unique<char[]>(def.size);
  std::memcpy(attributes(), op, def.size);
  uint64_t needs = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    add_next(in[i].defined() && is_differentiable(in[i].dtype()) ? in[i].edge() : Edge{});
    if (next[i].node && i < 64) needs |= uint64_t{1} << i;
  }
  for (size_t i = 0; i < in.size(); ++i) {
    const bool saved = in[i].defined() && in[i].has_data() && def.info->saves.input(i, needs);
    DS_CHECK(!saved || !in[i].cell()->inference, def.name(),
             ": Inference tensors cannot be saved for backward. To work around "
             "you can make a clone to get a normal tensor and use it in autograd. (input ",
             i, ", size ", in[i].sizes(), ")");
    in_.emplace_back(in[i], saved);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    out_.emplace_back(out[i], def.info->saves.output(i));
    outputs.push_back({def.info->wide_gradient ? in[0].dtype() : out[i].dtype(), out[i].sizes()});
  }
  sequence = next_sequence();
}

std::string OpNode::name() const {
  if (def_.info->node) return std::string(def_.info->node) + "Backward0";
  std::string s = def_.schema.base;
  s.erase(0, s.find_first_not_of('_'));
  bool upper = true;
  std::string camel;
  for (char c : s) {
    if (c == '_') {
      upper = true;
      continue;
    }
    camel += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    upper = false;
  }
  return camel + "Backward0";
}

TensorList OpNode::backward(Inputs grads, BackwardPass pass) {
  TensorList in, out;
  uint64_t needs = 0;
  for (size_t i = 0; i < in_.size(); ++i) {
    in.push_back(in_[i].unpack(def_.name()));
    if (next[i].node) {
      if (i < 64) needs |= uint64_t{1} << i;
      if (pass.create_graph && in[i].has_data()) set_edge(in[i], next[i]);
    }
  }
  for (size_t i = 0; i < out_.size(); ++i) {
    out.push_back(out_[i].unpack(def_.name()));
    // A saved output does not own its node; for second derivatives it gets it back here.
    if (pass.create_graph && out[i].has_data() && is_differentiable(out[i].dtype()))
      set_edge(out[i], {Ref<Node>(this), static_cast<uint32_t>(i)});
  }
  DS_CHECK(def_.vjp, def_.name(), " is not differentiable");
  Grads result;
  def_.vjp(attributes(), Vjp{in, out, grads, needs, pass.last, {next.data(), next.size()}, pass.sums}, result);
  DS_CHECK(result.size() <= in_.size(), "internal error: ", def_.name(), " returned ", result.size(), " gradients for ",
           in_.size(), " inputs");
  TensorList full(in_.size());
  for (size_t i = 0; i < result.size(); ++i)
    if (next[i].node) full[i] = std::move(result[i]);
  return full;
}

void OpNode::release_saved() {
  released_ = true;
  for (Snapshot& s : in_) s.release();
  for (Snapshot& s : out_) s.release();
}

void OpNode::for_each_stored(FunctionRef<void(const Stored&)> f) const {
  const auto visit = [&](const Snapshot& s) {
    if (s.stored()) f(*s.stored());
  };
  std::ranges::for_each(in_, visit);
  std::ranges::for_each(out_, visit);
}

Grads vjp_by_composite(const OpDef& def, const void* op, const Vjp& c) {
  TensorList inputs(c.in), wanted;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!c.need(i) || !inputs[i].defined()) continue;
    if (!inputs[i].requires_grad()) {
      inputs[i] = inputs[i].alias();
      inputs[i].cell()->requires_grad = true;
    }
    wanted.push_back(inputs[i]);
  }
  TensorList outputs;
  {
    const RecordingGuard recording;
    def.composite(op, inputs, outputs);
  }
  TensorList roots, grads;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (i >= c.grad.size() || !c.grad[i].defined() || !outputs[i].requires_grad()) continue;
    roots.push_back(outputs[i]);
    grads.push_back(c.grad[i]);
  }
  const TensorList found = autograd_hooks().grad(roots, grads, wanted);
  Grads result(inputs.size());
  for (size_t i = 0, k = 0; i < inputs.size(); ++i)
    if (c.need(i) && inputs[i].defined()) result[i] = found[k++];
  return result;
}

}  // namespace deepseek
