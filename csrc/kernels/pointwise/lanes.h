// The loops of every pointwise op over contiguous lanes, in tables that the families of rows fill.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/pointwise/pointwise.h"
#include "kernels/simd/routes.h"

namespace deepseek::kernels {

// Contiguous lanes in, contiguous lanes out.
using LaneFn = void (*)(void* out, const void* const* in, size_t n);
// A 16-bit float out and in, computed as float lanes; the inputs whose bits are set in `wide` are float lanes already.
using SmallFn = void (*)(void* out, const void* const* in, unsigned wide, size_t n);

struct LaneFns {
  uint8_t arity = 0;
  RouteTarget target = RouteTarget::kAvx2;
  bool truth = false;          // bool lanes in, 0 and 1 out
  LaneFn fn[kNumDTypes] = {};  // by lane type
  SmallFn bfloat16 = nullptr, half = nullptr;
};

// Each writes the entries of its family's ops, at their numbers.
void fill_arithmetic(LaneFns* table);
void fill_comparison(LaneFns* table);
void fill_functions(LaneFns* table);

}  // namespace deepseek::kernels
