// Loop nests over strided operands: drop size-1 dims, order by the first operand's strides, merge what is contiguous.
#pragma once

#include <array>
#include <cstdlib>

#include "base/view.h"

namespace deepseek::kernels {

// Operand 0 is the output; all operands have the same sizes (broadcast operands use stride 0).
template <int kMax>
struct Loop {
  int operands = 0;
  Dims sizes;
  std::array<Dims, kMax> strides;  // in elements of each operand
  std::array<char*, kMax> data{};
  std::array<int64_t, kMax> item{};  // bytes an element

  void add(const View& v) {
    if (operands == 0) sizes = v.sizes;
    strides[operands] = v.strides;
    data[operands] = static_cast<char*>(v.data);
    item[operands] = size_of(v.dtype);
    ++operands;
  }

  void collapse() {
    drop_ones();
    order();
    merge();
    if (sizes.empty()) {
      sizes.push_back(1);
      for (int k = 0; k < operands; ++k) strides[k].push_back(1);
    }
  }

  int64_t inner() const { return sizes.back(); }
  int64_t inner_stride(int k) const { return strides[k].back(); }
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t s : sizes) n *= s;
    return n;
  }

  // Calls f(pointers, n) for the inner segments that cover elements [begin, end) in loop order.
  template <class F>
  void for_range(int64_t begin, int64_t end, F&& f) const {
    const int last = sizes.size() - 1;
    Dims index = Dims::filled(sizes.size(), 0);
    std::array<char*, kMax> p = data;
    int64_t rest = begin;
    for (int d = last; d >= 0; --d) {
      index[d] = rest % sizes[d];
      rest /= sizes[d];
      for (int k = 0; k < operands; ++k) p[k] += index[d] * strides[k][d] * item[k];
    }
    while (begin < end) {
      const int64_t n = std::min(sizes[last] - index[last], end - begin);
      f(p, n);
      begin += n;
      if (begin >= end) return;
      for (int k = 0; k < operands; ++k) p[k] -= index[last] * strides[k][last] * item[k];
      index[last] = 0;
      for (int d = last - 1; d >= 0; --d) {
        for (int k = 0; k < operands; ++k) p[k] += strides[k][d] * item[k];
        if (++index[d] < sizes[d]) break;
        for (int k = 0; k < operands; ++k) p[k] -= sizes[d] * strides[k][d] * item[k];
        index[d] = 0;
      }
    }
  }

 private:
  void erase_dim(int d) {
    sizes.erase(d);
    for (int k = 0; k < operands; ++k) strides[k].erase(d);
  }
  void drop_ones() {
    for (int d = sizes.size() - 1; d >= 0; --d)
      if (sizes[d] == 1) erase_dim(d);
  }
  // True when dim a should lie outside dim b: larger stride in the first operand that tells them apart.
  bool outside(int a, int b) const {
    for (int k = 0; k < operands; ++k) {
      const int64_t sa = std::abs(strides[k][a]), sb = std::abs(strides[k][b]);
      if (sa == 0 || sb == 0 || sa == sb) continue;
      return sa > sb;
    }
    return a < b;
  }
  void order() {
    for (int i = 1; i < sizes.size(); ++i)
      for (int j = i; j > 0 && outside(j, j - 1) && !outside(j - 1, j); --j) {
        std::swap(sizes[j], sizes[j - 1]);
        for (int k = 0; k < operands; ++k) std::swap(strides[k][j], strides[k][j - 1]);
      }
  }
  void merge() {
    for (int d = sizes.size() - 2; d >= 0; --d) {
      bool ok = true;
      for (int k = 0; k < operands; ++k) ok &= strides[k][d] == strides[k][d + 1] * sizes[d + 1];
      if (!ok) continue;
      sizes[d] *= sizes[d + 1];
      for (int k = 0; k < operands; ++k) strides[k][d] = strides[k][d + 1];
      erase_dim(d + 1);
    }
  }
};

}  // namespace deepseek::kernels
