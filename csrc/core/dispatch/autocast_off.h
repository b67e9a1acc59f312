#pragma once

#include "core/mode.h"

namespace deepseek {

// Ops run in the dtypes they are given while this lives: what follows a cast, and whatever writes into a tensor.
class AutocastOff {
 public:
  AutocastOff() : before_(mode().autocast) { mode().autocast = false; }
  ~AutocastOff() { mode().autocast = before_; }
  AutocastOff(const AutocastOff&) = delete;

 private:
  bool before_;
};

}  // namespace deepseek
