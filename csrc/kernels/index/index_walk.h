// Helpers that the index kernels share.
#pragma once

#include "base/view.h"
#include "kernels/loops/iter.h"

namespace deepseek::kernels {

// Reads int64 or int32 indices.
struct IndexReader {
  const void* data;
  bool wide;
  explicit IndexReader(const View& v) : data(v.data), wide(v.dtype == DType::kInt64) {
    DS_CHECK(wide || v.dtype == DType::kInt32, "index kernels take int64 or int32 indices, got ", v.dtype);
  }
  int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

// Merges neighbouring dimensions without changing the order of elements; leaves at least one dimension.
template <int kMax>
void merge_in_order(Loop<kMax>& loop) {
  const auto erase = [&](int d) {
    loop.sizes.erase(d);
    for (int k = 0; k < loop.operands; ++k) loop.strides[k].erase(d);
  };
  for (int d = loop.sizes.size() - 1; d >= 0; --d)
    if (loop.sizes[d] == 1) erase(d);
  for (int d = loop.sizes.size() - 2; d >= 0; --d) {
    bool merge = true;
    for (int k = 0; k < loop.operands; ++k) merge &= loop.strides[k][d] == loop.strides[k][d + 1] * loop.sizes[d + 1];
    if (!merge) continue;
    loop.sizes[d + 1] *= loop.sizes[d];
    erase(d);
  }
  if (!loop.sizes.empty()) return;
  loop.sizes.push_back(1);
  for (int k = 0; k < loop.operands; ++k) loop.strides[k].push_back(1);
}

// Calls f.template operator()<Word>() with an unsigned type of `bytes` bytes: moving elements needs no dtype.
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

// a + b as PyTorch adds: bool is or, integers wrap, small floats round once.
template <class T>
T add_values(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a || b;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  else
    return T(static_cast<ComputeType<T>>(a) + static_cast<ComputeType<T>>(b));
}

template <class T>
T multiply_values(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a && b;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  else
    return T(static_cast<ComputeType<T>>(a) * static_cast<ComputeType<T>>(b));
}

}  // namespace deepseek::kernels
