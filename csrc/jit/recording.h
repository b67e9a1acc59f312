// Writes a graph down while a function runs.
#pragma once

#include <memory_resource>
#include <unordered_map>

#include "jit/graph.h"

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

  // Ends the recording. Empty when everything can be replayed, else why not.
  std::string finish(Inputs results);
  Graph& graph() { return graph_; }

 private:
  using SlotsOnStorage = SmallVector<int32_t, 2>;  // in order
  const SlotsOnStorage* slots_on(const Tensor& t) const;

  int32_t slot_of(const Tensor& t);  // of a tensor that is read; -1 for none
  int32_t define(const Tensor& t);   // a new slot
  int32_t outside(const Tensor& t);  // a tensor that was there before the call
  int32_t alias(int32_t from, const Tensor& t);
  Slots slots_of(Inputs in);
  GraphNode& append(Step step, bool grad);
  void note_grad(int32_t leaf, bool present);
  void copy_constants();

  Graph graph_;
  std::pmr::monotonic_buffer_resource arena_{4096};  // a first call should cost little more than an eager one
  std::pmr::unordered_map<const Cell*, int32_t> by_cell_{&arena_};
  std::pmr::unordered_map<const Storage*, int32_t> number_{&arena_};
  std::vector<SlotsOnStorage> memories_;  // by the number of the storage
  std::vector<Tensor> tensors_;           // of each slot
  std::vector<Tensor> unexplained_;       // made while recording, by nothing that was told
  std::vector<int32_t> foreign_;
  std::string refusal_;
  Recorder* before_;
};

}  // namespace deepseek::jit
