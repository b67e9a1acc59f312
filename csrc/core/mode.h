// Thread-local modes, read once per op call.
#pragma once

#include "core/tensor.h"
#include "runtime/rng.h"

namespace deepseek {

struct OpDef;

// Receives every op call while a function is captured (the jit's seam).
class Recorder {
 public:
  virtual ~Recorder() = default;
  virtual void record(const OpDef& def, const void* op, Inputs in, Inputs out) = 0;
  virtual void record_inplace(const OpDef& def, const void* op, Inputs in, const Tensor& target) = 0;
};

struct Mode {
  bool grad = true;
  bool inference = false;
  bool autocast = false;
  DType autocast_dtype = DType::kBFloat16;
  Recorder* recorder = nullptr;
  Generator* generator = nullptr;  // null: default_generator()
};

inline Mode& mode() {
  static thread_local Mode m;
  return m;
}

class GradGuard {
 public:
  explicit GradGuard(bool enabled) : before_(mode().grad) { mode().grad = enabled; }
  ~GradGuard() { mode().grad = before_; }
  GradGuard(const GradGuard&) = delete;

 private:
  bool before_;
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

}  // namespace deepseek
