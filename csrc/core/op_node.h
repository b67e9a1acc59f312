// The tape node of an op: its attributes, snapshots of what its vjp needs, and edges to its inputs.
#pragma once

#include <memory>

#include "core/op.h"

namespace deepseek {

class OpNode final : public Node {
 public:
  OpNode(const OpDef& def, const void* op, Inputs in, Inputs out);
  std::string name() const override;
  TensorList backward(Inputs grads, BackwardPass pass) override;
  void release_saved() override;
  void for_each_stored(FunctionRef<void(const Stored&)> f) const override;

 private:
  const OpDef& def_;
  SmallVector<Snapshot, 3> in_;
  SmallVector<Snapshot, 1> out_;
  bool released_ = false;
  void* attributes() { return large_ ? large_.get() : small_; }

  static constexpr size_t kSmallOp = 96;  // nearly every op; a tape of many nodes stays small
  alignas(16) char small_[kSmallOp];
  std::unique_ptr<char[]> large_;
};

}  // namespace deepseek
