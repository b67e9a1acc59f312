// The tape node of an op: its attributes, snapshots of what its vjp needs, and edges to its inputs.
#pragma once

#include "core/op.h"

namespace deepseek {

class OpNode final : public Node {
 public:
  OpNode(const OpDef& def, const void* op, Inputs in, Inputs out);
  std::string name() const override;
  TensorList backward(Inputs grads, bool create_graph) override;
  void release_saved() override;

 private:
  const OpDef& def_;
  SmallVector<Snapshot, 3> in_;
  SmallVector<Snapshot, 1> out_;
  bool released_ = false;
  alignas(16) char op_[kMaxOpBytes];
};

}  // namespace deepseek
