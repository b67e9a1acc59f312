// What a kernel sees of a tensor: pointer, element type, sizes and strides (in elements).
#pragma once

#include "base/dims.h"
#include "base/dtype.h"

namespace deepseek {

struct View {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Dims sizes;
  Dims strides;

  int ndim() const { return sizes.size(); }
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t s : sizes) n *= s;
    return n;
  }
  bool contiguous() const { return is_contiguous(sizes, strides); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  char* at(int64_t element_offset) const { return static_cast<char*>(data) + element_offset * size_of(dtype); }
};

}  // namespace deepseek
