// Reference counting inside the object. T derives from Counted and defines `void release_resources()` through its
// destructor.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace deepseek {

class Counted {
 public:
  Counted() = default;
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  uint32_t use_count() const { return count_.load(std::memory_order_acquire); }
  void retain() const { count_.fetch_add(1, std::memory_order_relaxed); }
  // True when the caller dropped the last reference and must destroy the object. The holder of the only reference needs
  // no locked instruction: nobody else can add one.
  bool drop() const {
    return count_.load(std::memory_order_acquire) == 1 || count_.fetch_sub(1, std::memory_order_acq_rel) == 1;
  }
  // The first reference to an object that no other thread has seen.
  void retain_fresh() const { count_.store(1, std::memory_order_relaxed); }

 private:
  mutable std::atomic<uint32_t> count_{0};
};

// Customisation point: how an object is destroyed when its count reaches zero.
template <class T>
struct Destroy {
  static void run(T* p) { delete p; }
};

template <class T>
class Ref {
 public:
  constexpr Ref() = default;
  constexpr Ref(std::nullptr_t) {}
  explicit Ref(T* p) : p_(p) {
    if (p_) p_->retain();
  }
  Ref(const Ref& o) : p_(o.p_) {
    if (p_) p_->retain();
  }
  Ref(Ref&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  Ref& operator=(const Ref& o) {
    Ref copy(o);
    std::swap(p_, copy.p_);
    return *this;
  }
  Ref& operator=(Ref&& o) noexcept {
    Ref moved(std::move(o));
    std::swap(p_, moved.p_);
    return *this;
  }
  ~Ref() { reset(); }

  void reset() {
    if (T* p = std::exchange(p_, nullptr); p && p->drop()) Destroy<T>::run(p);
  }
  T* release() { return std::exchange(p_, nullptr); }  // the caller takes over the count
  static Ref adopt(T* p) {                             // takes over a count the caller holds
    Ref r;
    r.p_ = p;
    return r;
  }
  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  bool operator==(const Ref& o) const { return p_ == o.p_; }

 private:
  T* p_ = nullptr;
};

template <class T, class... Args>
Ref<T> make_ref(Args&&... args) {
  T* p = new T(std::forward<Args>(args)...);
  p->retain_fresh();
  return Ref<T>::adopt(p);
}

}  // namespace deepseek
