// A counted block of memory, ours or somebody else's, with the number of in-place writes made to it.
#pragma once

#include "base/intrusive.h"
#include "runtime/allocator.h"

namespace deepseek {

class Storage : public Counted {
 public:
  using Release = void (*)(void* context);

  static Ref<Storage> create(size_t bytes) { return make_ref<Storage>(allocate(bytes), bytes, nullptr, nullptr); }
  // Memory owned by somebody else; release(context) runs when the last tensor on it dies.
  static Ref<Storage> external(void* data, size_t bytes, Release release, void* context) {
    return make_ref<Storage>(data, bytes, release, context);
  }

  Storage(void* data, size_t bytes, Release release, void* context)
      : data_(data), bytes_(bytes), release_(release), context_(context) {}
  ~Storage() {
    if (release_)
      release_(context_);
    else
      deallocate(data_, bytes_);
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  uint32_t version() const { return version_; }
  void bump_version() { ++version_; }
  bool read_only() const { return read_only_; }
  void set_read_only() { read_only_ = true; }

  static void* operator new(size_t n) { return allocate(n); }
  static void operator delete(void* p, size_t n) { deallocate(p, n); }

 private:
  void* data_;
  size_t bytes_;
  Release release_;
  void* context_;
  uint32_t version_ = 0;
  bool read_only_ = false;
};

}  // namespace deepseek
