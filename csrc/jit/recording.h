// Writes a graph down while a function runs.
#pragma once

#include "core/dispatch/autocast.h"
#include "core/dispatch/recorder.h"
#include "jit/graph.h"
#include "jit/pointer_map.h"

namespace deepseek::jit {

// Active from construction to destruction on this thread. All tensors of the call are kept alive until then, so that an
// address means one tensor.
class Recording final : public Recorder {
 public:
  explicit Recording(Inputs arguments);
  ~Recording() override;
  Recording(const Recording&) = delete;

  void record(const OpDef& def, const void* op, Inputs in, Inputs out) override;
  void record_inplace(const OpDef& def, const void* op, Inputs in) override;
  void record_write(const Tensor& target, const Tensor& value) override;
  void before_write(const Tensor& target) override { slot_of(target); }
  void record_accumulate(const Tensor& leaf, const Tensor& grad, bool create_graph) override;
  void record_set_grad(const Tensor& leaf, const Tensor& grad) override;
  void record_get_grad(const Tensor& leaf, const Tensor& grad) override;
  void record_read(const Tensor& t) override;
  void record_draw(const Tensor& state, int64_t count) override;
  void record_constant(const Tensor& t) override;
  void record_wrapped(const Tensor& t) override;
  void record_foreign_edge(const Tensor& t) override;
  void refuse(const std::string& why) override;

  void record_host(Ref<HostCall> host, Inputs in, Inputs out);

  // Ends the recording. Empty when everything can be replayed, else why not. handlers: whether code that ran may handle
  // an exception.
  std::string finish(Inputs results, bool handlers);
  const std::string& refusal() const { return refusal_; }
  Graph& graph() { return graph_; }

 private:
  struct Known {
    Tensor tensor;
    int32_t earlier;          // the slot before on the same memory; -1 for none
    bool grad_noted = false;  // whether .grad was there is written down, or no longer matters
  };
  struct Memory {
    int32_t first, newest;  // slots
  };

  int32_t slot_of(const Tensor& t);                   // of a tensor that is read; -1 for none
  int32_t slot_on(const Memory& m, const Tensor& t);  // of an unknown tensor on known memory
  int32_t capture(const Tensor& t);                   // of an unknown tensor on unknown memory
  int32_t define(const Tensor& t);                    // a new slot
  int32_t outside(const Tensor& t);                   // a new slot of a tensor that was there before the call
  int32_t alias(int32_t from, const Tensor& t);
  bool knows_memory(const Tensor& t) const { return number_.find(t.storage().get()) != nullptr; }
  Slots slots_of(Inputs in);
  GraphNode& append(Step step, bool grad);
  GraphNode& append_op(Step step, bool grad, const OpDef& def, const void* op);
  void copy_constants();
  std::string check_order(bool handlers) const;

  Graph graph_;
  PointerMap by_cell_;               // slots
  PointerMap number_;                // of storages
  std::vector<Memory> memories_;     // by that number
  std::vector<Known> known_;         // by slot
  std::vector<Tensor> unexplained_;  // made while recording, by nothing that was told
  std::vector<int32_t> foreign_;
  std::string refusal_;
  OwnAutocastCache casts_;
  Recorder* before_;
};

}  // namespace deepseek::jit
