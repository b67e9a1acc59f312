// Caching allocator: 64-byte aligned blocks, thread-local free lists per size class up to 1 MiB, one locked pool above.
// Blocks may be freed by any thread, also while the thread or the process ends. The pool keeps at most a quarter of the
// memory (environment variable DEEPSEEK_CACHE_LIMIT: bytes, or with the suffix K, M or G) and drops what was unused for
// longest. Built with AddressSanitizer it caches nothing, so that every block has its own red zones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepseek {

struct MemoryStats {
  int64_t allocated_bytes;     // in use now, as asked for by allocate()
  int64_t peak_bytes;          // largest value of allocated_bytes since the last reset
  int64_t cached_bytes;        // held for reuse, in whole blocks
  int64_t allocations;         // calls to allocate()
  int64_t system_allocations;  // how many of them went to the system
};

// Throws OutOfMemoryError (naming the bytes) before touching a page when `bytes` exceeds what the machine or its cgroup
// has left. Zero bytes give a valid pointer.
void* allocate(size_t bytes);
void deallocate(void* p, size_t bytes) noexcept;  // `bytes` as given to allocate(); p may be null
// Returns the cache to the system. Other threads' lists follow when those threads next free a block or end.
void empty_cache();
MemoryStats memory_stats();
void reset_peak_memory_stats();

// A scratch buffer for kernels.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : p_(allocate(bytes)), bytes_(bytes) {}
  ~Buffer() { deallocate(p_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(p_);
  }

 private:
  void* p_;
  size_t bytes_;
};

namespace detail {
// Blocks come in four sizes a power of two; up to 256 bytes in steps of 64.
int size_class(size_t bytes);
size_t class_bytes(int size_class);
int64_t parse_byte_count(const char* text);  // "4096", "512M"; throws ValueError
}  // namespace detail

}  // namespace deepseek
