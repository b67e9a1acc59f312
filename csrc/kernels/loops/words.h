// Elements as words: to move them needs no dtype.
#pragma once

#include <cstdint>

#include "base/check.h"

namespace deepseek::kernels {

// Calls f.template operator()<Word>() with an unsigned type of `bytes` bytes.
template <class F>
decltype(auto) with_word(int64_t bytes, F&& f) {
  switch (bytes) {
    case 1:
      return f.template operator()<uint8_t>();
    case 2:
      return f.template operator()<uint16_t>();
    case 4:
      return f.template operator()<uint32_t>();
    case 8:
      return f.template operator()<uint64_t>();
  }
  fail<NotImplementedError>("internal: elements of ", bytes, " bytes are not moved");
}

}  // namespace deepseek::kernels
