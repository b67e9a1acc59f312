// Activations that a product applies to its result on the way: an epilogue of matmul, rows that qgemm stores, linear
// layers that the jit fuses with what follows. Each is a pointwise op of one input; a row here is all it takes.
#pragma once

#include <string_view>

#include "kernels/pointwise/pointwise.h"

namespace deepseek::kernels {

struct Activation {
  std::string_view name;  // as an attribute of fused ops
  Pointwise op;
};

#define DS_ACTIVATION(name, Struct) \
  { #name, Pointwise::k##Struct }
inline constexpr Activation kActivations[] = {
    DS_ACTIVATION(relu, Relu), DS_ACTIVATION(gelu, GeluErf),    DS_ACTIVATION(gelu_tanh, GeluTanh),
    DS_ACTIVATION(silu, Silu), DS_ACTIVATION(sigmoid, Sigmoid), DS_ACTIVATION(tanh, Tanh),
};
#undef DS_ACTIVATION

}  // namespace deepseek::kernels
