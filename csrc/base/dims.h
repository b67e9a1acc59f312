// Up to eight int64 values kept inline: sizes, strides, axis lists.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "base/check.h"

namespace deepseek {

inline constexpr int kMaxDims = 8;

class Dims {
 public:
  constexpr Dims() = default;
  constexpr Dims(std::initializer_list<int64_t> values) { assign(values.begin(), values.size()); }
  explicit Dims(std::span<const int64_t> values) { assign(values.data(), values.size()); }
  static constexpr Dims filled(int n, int64_t value) {
    Dims d;
    d.resize(n, value);
    return d;
  }

  constexpr int size() const { return n_; }
  constexpr bool empty() const { return n_ == 0; }
  constexpr int64_t operator[](int i) const { return v_[i]; }
  constexpr int64_t& operator[](int i) { return v_[i]; }
  constexpr int64_t back() const { return v_[n_ - 1]; }
  constexpr int64_t& back() { return v_[n_ - 1]; }
  constexpr const int64_t* begin() const { return v_; }
  constexpr const int64_t* end() const { return v_ + n_; }
  constexpr int64_t* begin() { return v_; }
  constexpr int64_t* end() { return v_ + n_; }
  constexpr const int64_t* data() const { return v_; }

  constexpr void push_back(int64_t value) {
    check_rank(n_ + 1);
    v_[n_++] = value;
  }
  constexpr void pop_back() { --n_; }
  constexpr void resize(int n, int64_t value = 0) {
    check_rank(n);
    for (int i = n_; i < n; ++i) v_[i] = value;
    n_ = n;
  }
  constexpr void insert(int at, int64_t value) {
    check_rank(n_ + 1);
    for (int i = n_; i > at; --i) v_[i] = v_[i - 1];
    v_[at] = value;
    ++n_;
  }
  constexpr void erase(int at) {
    for (int i = at; i + 1 < n_; ++i) v_[i] = v_[i + 1];
    --n_;
  }
  constexpr bool operator==(const Dims& o) const {
    if (n_ != o.n_) return false;
    for (int i = 0; i < n_; ++i)  // std::equal would call memcmp, which costs more than a few comparisons
      if (v_[i] != o.v_[i]) return false;
    return true;
  }

 private:
  constexpr void assign(const int64_t* values, size_t n) {
    check_rank(static_cast<int64_t>(n));
    n_ = static_cast<int>(n);
    std::copy(values, values + n, v_);
  }
  static constexpr void check_rank(int64_t n) {
    if (n > kMaxDims) fail("tensors have at most ", kMaxDims, " dimensions, got ", n);
  }

  int64_t v_[kMaxDims] = {};
  int n_ = 0;
};

void append(std::string& text, const Dims& d);  // "[2, 3]"
std::ostream& operator<<(std::ostream& os, const Dims& d);

// A stable sort of axes. std::stable_sort allocates a buffer, which costs more than sorting eight of them.
template <class Before>
void sort_axes(Dims& axes, Before before) {
  for (int i = 1; i < axes.size(); ++i)
    for (int j = i; j > 0 && before(axes[j], axes[j - 1]); --j) std::swap(axes[j], axes[j - 1]);
}

// Product of sizes with overflow checks; sizes must be non-negative.
inline int64_t numel_of(const Dims& sizes) {
  int64_t n = 1;
  bool zero = false;
  for (int64_t s : sizes) {
    DS_CHECK(s >= 0, "negative dimension ", s, " in size ", sizes);
    zero |= s == 0;
    if (!zero && __builtin_mul_overflow(n, s, &n)) fail("number of elements overflows int64 for size ", sizes);
  }
  return zero ? 0 : n;
}

// For strides that no element uses: those of an empty tensor, or beyond a dim that is broadcast.
inline int64_t wrapping_product(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

inline Dims contiguous_strides(const Dims& sizes) {
  Dims strides = Dims::filled(sizes.size(), 1);
  for (int i = sizes.size() - 2; i >= 0; --i)
    strides[i] = wrapping_product(strides[i + 1], std::max<int64_t>(sizes[i + 1], 1));
  return strides;
}

inline bool is_contiguous(const Dims& sizes, const Dims& strides) {
  int64_t expected = 1;
  bool packed = true;
  for (int i = sizes.size() - 1; i >= 0; --i) {
    if (sizes[i] == 0) return true;
    packed &= sizes[i] == 1 || strides[i] == expected;
    expected = wrapping_product(expected, sizes[i]);
  }
  return packed;
}

// Python-style negative axis; a 0-d tensor accepts axes -1 and 0, as in PyTorch.
inline int wrap_dim(const char* op, int64_t dim, int ndim) {
  const int64_t n = std::max(ndim, 1);
  DS_CHECK_AS(IndexError, dim >= -n && dim < n, op, "(): Dimension out of range (expected to be in range of [", -n,
              ", ", n - 1, "], but got ", dim, ")");
  return static_cast<int>(dim < 0 ? dim + n : dim);
}

}  // namespace deepseek
