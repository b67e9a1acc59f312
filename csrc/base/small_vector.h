// A vector whose first N elements live inline; moves to the heap beyond that.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace deepseek {

template <class T, size_t N>
class SmallVector {
 public:
  SmallVector() = default;
  SmallVector(std::initializer_list<T> values) { append({values.begin(), values.size()}); }
  explicit SmallVector(size_t n) { resize(n); }
  explicit SmallVector(std::span<const T> values) { append(values); }
  SmallVector(const SmallVector& o) : SmallVector(std::span<const T>(o.data(), o.size())) {}
  SmallVector(SmallVector&& o) noexcept { take(std::move(o)); }
  SmallVector& operator=(const SmallVector& o) {
    if (this != &o) {
      SmallVector copy(o);
      clear_all();
      take(std::move(copy));
    }
    return *this;
  }
  SmallVector& operator=(SmallVector&& o) noexcept {
    if (this != &o) {
      clear_all();
      take(std::move(o));
    }
    return *this;
  }
  ~SmallVector() { clear_all(); }

  T* data() { return heap_ ? heap_ : inline_data(); }
  const T* data() const { return heap_ ? heap_ : const_cast<SmallVector*>(this)->inline_data(); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  T& back() { return data()[size_ - 1]; }

  template <class... Args>
  T& emplace_back(Args&&... args) {
    if (size_ == capacity_) reserve(2 * capacity_);
    return *new (data() + size_++) T(std::forward<Args>(args)...);
  }
  void push_back(T value) { emplace_back(std::move(value)); }
  void append(std::span<const T> values) {  // not of this vector
    reserve(size_ + values.size());
    if constexpr (std::is_trivially_copyable_v<T>) {
      if (!values.empty()) std::memcpy(data() + size_, values.data(), values.size_bytes());
      size_ += values.size();
    } else {
      for (const T& v : values) emplace_back(v);
    }
  }
  void pop_back() { data()[--size_].~T(); }
  void resize(size_t n) {
    reserve(n);
    while (size_ < n) emplace_back();
    while (size_ > n) pop_back();
  }
  void clear() {
    if constexpr (std::is_trivially_destructible_v<T>) size_ = 0;
    while (size_ > 0) pop_back();
  }
  void reserve(size_t n) {
    if (n <= capacity_) return;
    T* fresh = static_cast<T*>(::operator new(n * sizeof(T)));
    for (size_t i = 0; i < size_; ++i) {
      new (fresh + i) T(std::move(data()[i]));
      data()[i].~T();
    }
    ::operator delete(heap_);
    heap_ = fresh;
    capacity_ = n;
  }

 private:
  T* inline_data() { return std::launder(reinterpret_cast<T*>(inline_)); }
  void clear_all() {
    clear();
    ::operator delete(heap_);
    heap_ = nullptr;
    capacity_ = N;
  }
  void take(SmallVector&& o) {
    if (o.heap_) {
      heap_ = std::exchange(o.heap_, nullptr);
      capacity_ = std::exchange(o.capacity_, N);
      size_ = std::exchange(o.size_, 0);
      return;
    }
    if constexpr (std::is_trivially_copyable_v<T>)
      std::memcpy(inline_, o.inline_, sizeof inline_ <= 64 ? sizeof inline_ : o.size_ * sizeof(T));  // a few moves
    else
      for (size_t i = 0; i < o.size_; ++i) new (inline_data() + i) T(std::move(o.inline_data()[i]));
    size_ = o.size_;
    o.clear();
  }

  size_t size_ = 0;
  size_t capacity_ = N;
  T* heap_ = nullptr;
  alignas(std::max(alignof(T), alignof(void*))) unsigned char inline_[N * sizeof(T)];
};

}  // namespace deepseek
