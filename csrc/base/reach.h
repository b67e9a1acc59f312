// The memory a strided tensor touches.
#pragma once

#include "base/dims.h"

namespace deepseek {

// Elements [first, end) counted from where `offset` is; first == end when there are none. Sizes must not be negative.
// Numbers that come from users may be anything: no sum or product here wraps around.
struct Reach {
  int64_t first, end;

  Reach(const Dims& sizes, const Dims& strides, int64_t offset = 0) : first(offset), end(offset) {
    for (const int64_t s : sizes)
      if (s == 0) return;
    int64_t step;
    bool fits = !__builtin_add_overflow(end, 1, &end);
    for (int i = 0; fits && i < sizes.size(); ++i)
      fits = !__builtin_mul_overflow(sizes[i] - 1, strides[i], &step) &&
             !(step > 0 ? __builtin_add_overflow(end, step, &end) : __builtin_add_overflow(first, step, &first));
    DS_CHECK(fits, "Storage size calculation overflowed with sizes=", sizes, " and strides=", strides, " at offset ",
             offset);
  }
  bool empty() const { return first == end; }
  bool within(const Reach& other) const { return empty() || (first >= other.first && end <= other.end); }
  bool within(int64_t elements) const { return empty() || (first >= 0 && end <= elements); }
};

}  // namespace deepseek
