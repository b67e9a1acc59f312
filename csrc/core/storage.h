// A counted block of memory, ours or somebody else's, with the number of in-place writes made to it.
#pragma once

#include <atomic>

#include "base/intrusive.h"
#include "runtime/allocator.h"

namespace deepseek {

class PackedCopies;  // core/packed.h
void destroy_packed(PackedCopies* copies) noexcept;

class alignas(64) Storage : public Counted {
 public:
  using Release = void (*)(void* context);

  // A small one and its memory are one block.
  static Ref<Storage> create(size_t bytes) {
    if (bytes > kMostInline) return make_ref<Storage>(allocate(bytes), bytes, nullptr, nullptr);
    void* block = allocate(sizeof(Storage) + bytes);
    auto* s = new (block) Storage(static_cast<char*>(block) + sizeof(Storage), bytes, nullptr, nullptr);
    s->retain_fresh();
    return Ref<Storage>::adopt(s);
  }
  // Memory owned by somebody else; release(context) runs when the last tensor on it dies.
  static Ref<Storage> external(void* data, size_t bytes, Release release, void* context) {
    return make_ref<Storage>(data, bytes, release, context);
  }

  Storage(void* data, size_t bytes, Release release, void* context)
      : data_(data), bytes_(bytes), release_(release), context_(context) {}
  ~Storage() {
    if (PackedCopies* copies = packed_.load(std::memory_order_acquire)) destroy_packed(copies);
    if (release_)
      release_(context_);
    else if (!is_inline())
      deallocate(data_, bytes_);
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  uint32_t version() const { return version_.load(std::memory_order_relaxed); }
  // A load and a store, not a locked addition: of writes by two threads at once, whose result is anybody's guess, one
  // may go uncounted.
  void bump_version() { version_.store(version() + 1, std::memory_order_relaxed); }
  bool read_only() const { return read_only_; }
  void set_read_only() { read_only_ = true; }
  // The memory was handed out (NumPy, DLPack, an address), or came from there: writes may go unseen by version().
  bool exposed() const { return exposed_.load(std::memory_order_relaxed); }
  void expose() { exposed_.store(true, std::memory_order_relaxed); }
  std::atomic<PackedCopies*>& packed_copies() { return packed_; }
  // A number that no other block has or will have, unlike an address. Given to the few that are asked.
  uint64_t id() {
    static std::atomic<uint64_t> last = 0;
    uint64_t mine = id_.load(std::memory_order_relaxed);
    if (mine != 0) return mine;
    const uint64_t fresh = ++last;
    return id_.compare_exchange_strong(mine, fresh) ? fresh : mine;
  }

  bool is_inline() const { return data_ == static_cast<const void*>(this + 1); }

  static void* operator new(size_t n) { return allocate(n); }
  static void* operator new(size_t, void* p) { return p; }
  static void operator delete(void* p, size_t n) { deallocate(p, n); }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kMostInline = 0;  // a red zone on either side
#else
  static constexpr size_t kMostInline = 1024;
#endif
  void* data_;
  size_t bytes_;
  Release release_;
  void* context_;
  std::atomic<uint32_t> version_ = 0;
  bool read_only_ = false;
  std::atomic<bool> exposed_ = false;
  std::atomic<PackedCopies*> packed_ = nullptr;
  std::atomic<uint64_t> id_ = 0;
};
static_assert(sizeof(Storage) == 64);

template <>
struct Destroy<Storage> {
  static void run(Storage* s) {
    if (!s->is_inline()) return delete s;
    const size_t block = sizeof(Storage) + s->bytes();
    s->~Storage();
    deallocate(s, block);
  }
};

}  // namespace deepseek
