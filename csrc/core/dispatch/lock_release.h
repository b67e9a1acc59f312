// Long kernels run without the host's lock (the interpreter's).
#pragma once

#include "core/mode.h"

namespace deepseek {

inline constexpr int64_t kReleaseLockBytes = 1 << 20;  // about 20 us of work

class LockRelease {
 public:
  explicit LockRelease(bool worth_it) {
    if (worth_it && host_hooks().release_lock && !KeepHostLock::active()) state_ = host_hooks().release_lock();
  }
  ~LockRelease() {
    if (state_) host_hooks().retake_lock(state_);
  }
  LockRelease(const LockRelease&) = delete;
  LockRelease& operator=(const LockRelease&) = delete;

 private:
  void* state_ = nullptr;
};

}  // namespace deepseek
