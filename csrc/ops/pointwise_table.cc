#include "ops/pointwise_table.h"

namespace deepseek {

const OpDef& pointwise_op(kernels::Pointwise op) {
  // In the order of the enum.
  static const OpDef* const defs[] = {
#define DS_UNARY(S, name, ...) find_op(#name),
#define DS_BINARY DS_UNARY
#define DS_TERNARY DS_UNARY
      DS_BINARY(Add, add) DS_BINARY(Sub, sub)
#include "kernels/pointwise/pointwise.def"
#undef DS_UNARY
#undef DS_BINARY
#undef DS_TERNARY
  };
  return *defs[static_cast<size_t>(op)];
}

}  // namespace deepseek
