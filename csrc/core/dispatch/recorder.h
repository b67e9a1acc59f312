// The jit's seam: who is told what a function does.
#pragma once

#include <string>

#include "core/mode.h"

namespace deepseek {

struct OpDef;

// Is told what a function does while it is captured: after each call, and only of the outermost one
// when a call is made of others.
class Recorder {
 public:
  explicit Recorder(uint64_t started) : started(started) {}
  virtual ~Recorder() = default;
  // Fresh tensors or views, and what the op's schema says it writes to.
  virtual void record(const OpDef& def, const void* op, Inputs in, Inputs out) = 0;
  virtual void record_inplace(const OpDef& def, const void* op, Inputs in) = 0;  // into in[0]
  virtual void record_write(const Tensor& target, const Tensor& value) = 0;
  virtual void before_write(const Tensor& target) = 0;               // which may become one that requires grad
  virtual void record_draw(const Tensor& state, int64_t count) = 0;  // random numbers reserved
  virtual void record_accumulate(const Tensor& leaf, const Tensor& grad, bool create_graph) = 0;
  virtual void record_set_grad(const Tensor& leaf, const Tensor& grad) = 0;
  virtual void record_get_grad(const Tensor& leaf, const Tensor& grad) = 0;
  virtual void record_read(const Tensor& t) = 0;          // its one value became a number of the host
  virtual void record_constant(const Tensor& t) = 0;      // made from host data
  virtual void record_wrapped(const Tensor& t) = 0;       // the host sees the tensor for the first time
  virtual void record_foreign_edge(const Tensor& t) = 0;  // its gradient is not an op's
  virtual void refuse(const std::string& why) = 0;        // this cannot be replayed

  const uint64_t started;  // tape nodes with smaller numbers are not part of the capture
};

// Nothing is recorded while this lives.
class RecorderPause {
 public:
  RecorderPause() : before_(mode().recorder) { mode().recorder = nullptr; }
  ~RecorderPause() { mode().recorder = before_; }
  RecorderPause(const RecorderPause&) = delete;
  Recorder* paused() const { return before_; }

 private:
  Recorder* before_;
};

}  // namespace deepseek
