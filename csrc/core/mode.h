// Thread-local modes, read once per op call.
#pragma once

#include <string>

#include "core/tensor.h"
#include "runtime/rng.h"

namespace deepseek {

struct OpDef;
class SavingHooks;

// Is told what a function does while it is captured (the jit's seam): after each call, and only of the outermost one
// when a call is made of others.
class Recorder {
 public:
  explicit Recorder(uint64_t started) : started(started) {}
  virtual ~Recorder() = default;
  virtual void record(const OpDef& def, const void* op, Inputs in, Inputs out) = 0;  // a fresh tensor or a view
  virtual void record_inplace(const OpDef& def, const void* op, Inputs in) = 0;      // into in[0]
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

struct Mode {
  bool grad = true;
  bool inference = false;
  bool autocast = false;
  DType autocast_dtype = DType::kBFloat16;
  Recorder* recorder = nullptr;
  Generator* generator = nullptr;  // null: default_generator()
  SavingHooks* saving = nullptr;

  bool records() const { return grad && !inference; }  // enable_grad inside inference_mode records nothing
};

// Constant initialisation and this model make a look-up one instruction.
[[gnu::tls_model("initial-exec")]] inline thread_local constinit Mode t_mode;
inline Mode& mode() { return t_mode; }

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

// No saved-tensor hooks while this lives.
class SavingPause {
 public:
  SavingPause() : before_(mode().saving) { mode().saving = nullptr; }
  ~SavingPause() { mode().saving = before_; }
  SavingPause(const SavingPause&) = delete;

 private:
  SavingHooks* before_;
};

class GradGuard {
 public:
  explicit GradGuard(bool enabled) : before_(mode().grad) { mode().grad = enabled; }
  ~GradGuard() { mode().grad = before_; }
  GradGuard(const GradGuard&) = delete;

 private:
  bool before_;
};

// Records while it lives, whatever the modes say.
class RecordingGuard {
 public:
  RecordingGuard() : grad_(true), inference_(mode().inference) { mode().inference = false; }
  ~RecordingGuard() { mode().inference = inference_; }

 private:
  GradGuard grad_;
  bool inference_;
};

// The default floating dtype for Python floats, as torch.set_default_dtype.
DType default_dtype();
void set_default_dtype(DType t);

// Installed by the binding: release and retake the interpreter lock around long kernels; look for signals.
struct HostHooks {
  void* (*release_lock)() = nullptr;
  void (*retake_lock)(void*) = nullptr;
  void (*check_interrupt)() = nullptr;      // throws Interrupted
  void (*release_object)(void*) = nullptr;  // drops a Python object owned by a dying cell
};
HostHooks& host_hooks();

// Kernels keep the interpreter lock while it lives: for work that must be whole before another thread looks at it.
class KeepHostLock {
 public:
  KeepHostLock() { ++depth; }
  ~KeepHostLock() { --depth; }
  KeepHostLock(const KeepHostLock&) = delete;
  KeepHostLock& operator=(const KeepHostLock&) = delete;
  static bool active() { return depth > 0; }

 private:
  static inline thread_local int depth = 0;
};

}  // namespace deepseek
