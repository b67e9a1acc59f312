// Runs the tape backwards, iteratively: nodes in order of falling sequence number, so every consumer comes before its
// producers.
#pragma once

#include "core/node.h"

namespace deepseek {

struct BackwardOptions {
  bool retain_graph = false;
  bool create_graph = false;
};

// Accumulates into .grad of the leaves (only those in `inputs` when it is not empty).
void backward(Inputs roots, Inputs grads, Inputs inputs, BackwardOptions options);
// From a loss, a tensor of one element.
void backward(const Tensor& loss, BackwardOptions options = {});

// d(roots)/d(inputs) without touching .grad; an undefined tensor for an input that is not reached.
TensorList grad(Inputs roots, Inputs grads, Inputs inputs, BackwardOptions options);

// g itself, or a tensor of its memory, when nobody else holds that: it may be written, or kept as it is. A view counts
// too when it is all that is left of its base, as a reshaped gradient is. Undefined otherwise.
Tensor unshared(const Tensor& g);

// The tensor a node accumulates into; null for nodes of ops.
const Tensor* leaf_of(const Node& node);

// Hooks on a tensor's gradient. The id removes it again.
int64_t register_hook(const Tensor& t, Ref<Hook> hook);
int64_t register_post_accumulate_hook(const Tensor& leaf, Ref<Hook> hook);
void remove_hook(const Tensor& t, int64_t id);
void retain_grad(const Tensor& t);

}  // namespace deepseek
