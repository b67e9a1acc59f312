// What autocast does to the inputs of an op, and the casts that it keeps for as long as a region lasts.
#pragma once

#include "core/op.h"

namespace deepseek {

// The inputs of an op by its rule. A weight (a float32 leaf that requires gradients) is cast once a region and dtype,
// another float32 tensor once where ops that cast no other one in between read it.
TensorList autocast_inputs(const OpDef& def, Inputs in);

// --- regions and their cache, of this thread

// A region begins and ends; the end of the outermost drops the casts.
void enter_autocast_region();
void leave_autocast_region();
void clear_autocast_cache();
// Frees what is kept of this tensor, whose memory was exchanged: the old one would live until the next use of it.
void drop_kept_casts(const Tensor& t);
bool autocast_cache_enabled();
void set_autocast_cache_enabled(bool on);
size_t autocast_cache_size();  // casts of weights that are kept now

// Nothing of the cache is seen or left behind while it lives. A recording has one of its own: a replay knows nothing of
// casts that were made before the call, and nobody else may rely on what the recorder holds.
class OwnAutocastCache {
 public:
  OwnAutocastCache();
  ~OwnAutocastCache();
  OwnAutocastCache(const OwnAutocastCache&) = delete;

 private:
  void* before_;
};

}  // namespace deepseek
