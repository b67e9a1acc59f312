// Tensors from numbers of the host and back, from lists of tensors; the seed.
#pragma once

#include <initializer_list>
#include <vector>

#include "core/tensor.h"
#include "ops/ops.h"
#include "runtime/rng.h"

namespace deepseek {

// A copy of `values`; without sizes it is one-dimensional.
template <class T>
Tensor tensor(const std::vector<T>& values, const Dims& sizes) {
  const auto n = static_cast<int64_t>(values.size());
  DS_CHECK(numel_of(sizes) == n, "tensor: ", n, " values do not fill a tensor of size ", sizes);
  const Tensor t = Tensor::empty(sizes, dtype_of<T>);
  std::copy(values.begin(), values.end(), t.data<T>());  // not memcpy: std::vector<bool> has no array
  return t;
}
template <class T>
Tensor tensor(const std::vector<T>& values) {
  return tensor(values, Dims{static_cast<int64_t>(values.size())});
}
template <class T>
Tensor tensor(std::initializer_list<T> values) {
  return tensor(std::vector<T>(values));
}

// The elements in row-major order, as T; a number that T cannot hold is cut off as a cast does.
template <class T>
std::vector<T> to_vector(const Tensor& t) {
  std::vector<T> values;
  values.reserve(static_cast<size_t>(t.numel()));
  const View v = t.view();
  Dims at = Dims::filled(t.dim(), 0);
  for (int64_t i = 0; i < t.numel(); ++i) {
    int64_t offset = 0;
    for (int d = 0; d < at.size(); ++d) offset += at[d] * v.strides[d];
    dispatch(t.dtype(), [&]<class S>() { values.push_back(static_cast<T>(t.data<S>()[offset])); });
    for (int d = at.size() - 1; d >= 0 && ++at[d] == v.sizes[d]; --d) at[d] = 0;
  }
  return values;
}

// cat({a, b}, 0): a braced list is no span.
inline Tensor cat(std::initializer_list<Tensor> tensors, int64_t dim) {
  return cat(Inputs(tensors.begin(), tensors.size()), dim);
}
inline Tensor stack(std::initializer_list<Tensor> tensors, int64_t dim) {
  return stack(Inputs(tensors.begin(), tensors.size()), dim);
}

inline void manual_seed(uint64_t seed) { default_generator().manual_seed(seed); }

}  // namespace deepseek
