// Thread-local modes, read once per op call.
#pragma once

#include "core/tensor.h"
#include "runtime/rng.h"

namespace deepseek {

class Recorder;
class SavingHooks;

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
