// Attention of several sequences that share threads. Each has the bits of attention.h on its own.
#pragma once

#include <span>

#include "kernels/attention/attention.h"

namespace deepseek::kernels {

// As the arguments of attention_forward; keys are not int8.
struct AttentionTask {
  Attention a;
  View out, lse;
};
// As those of attention_backward.
struct AttentionBackwardTask {
  Attention a;
  View grad_out, lse, delta, dq, dk, dv, lse_low{};
};

// All tasks of one dtype.
void attention_forward(std::span<const AttentionTask> tasks);
void attention_backward(std::span<const AttentionBackwardTask> tasks);

}  // namespace deepseek::kernels
