// Pointwise kernels: one compiled loop an op and lane type, run over blocks that fit in L1.
// Inputs that are strided, broadcast or of another dtype are converted block by block into lanes of the compute type.
#pragma once

#include <cstdint>
#include <span>

#include "base/view.h"

namespace deepseek::kernels {

// How an op's dtypes follow from those of its arguments (explained in pointwise.def).
enum class Rule : uint8_t {
  kArith,
  kNumeric,
  kBoolToInt,
  kFloat,
  kFloatOnly,
  kCompare,
  kLogical,
  kBits,
  kShift,
  kWhere
};

enum class Pointwise : uint16_t {
#define DS_POINTWISE(S, ...) k##S,
#define DS_POINTWISE_SCALED DS_POINTWISE
#include "kernels/pointwise/pointwise.def"
#undef DS_POINTWISE
#undef DS_POINTWISE_SCALED
  kCount,
};

// The lane types kernels are instantiated for; bool counts as lanes of 0 and 1, 16-bit floats convert at load and
// store.
constexpr DType lane_type(DType t) {
  switch (t) {
    case DType::kFloat64:
    case DType::kInt64:
    case DType::kInt32:
    case DType::kInt16:
    case DType::kInt8:
    case DType::kUInt8:
      return t;
    case DType::kBool:
      return DType::kUInt8;
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
      return DType::kFloat32;
  }
  __builtin_unreachable();
}

// An input as long as the result, dense lanes of the compute type; or one value of any dtype for all of it.
struct FlatInput {
  const void* data;
  bool constant;
  DType dtype;
};
// The short way where every input is flat and `out` is n dense lanes of type `lane`.
void pointwise_flat(Pointwise op, DType lane, int64_t n, void* out, std::span<const FlatInput> inputs);

// out[i] = op(inputs[0][i], ...), computed in lane_type(compute). All views have out's sizes (broadcast by stride 0).
void pointwise(Pointwise op, DType compute, const View& out, std::span<const View> inputs);

}  // namespace deepseek::kernels
