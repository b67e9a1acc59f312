#include "runtime/system_blocks.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

namespace deepseek {
namespace {

constexpr size_t kPage = 4096;
// From here on blocks start at a page. malloc would put them 64 bytes further into a page each time, and then a
// kernel's loads wait for its stores: the CPU compares the lowest 12 bits of addresses.
constexpr size_t kPageAligned = size_t{16} << 10;
constexpr size_t kHuge = size_t{4} << 20;  // from here on huge pages are asked for
constexpr size_t kHugePage = size_t{2} << 20;

// Fresh pages that start at a multiple of `alignment`; null when there are none.
void* map_pages(size_t bytes, size_t alignment) {
  const size_t extra = alignment > kPage ? alignment : 0;
  void* p = mmap(nullptr, bytes + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  if (!extra) return p;
  const auto start = reinterpret_cast<uintptr_t>(p);
  const uintptr_t aligned = (start + alignment - 1) & ~(alignment - 1);
  if (aligned > start) munmap(p, aligned - start);
  if (const size_t tail = start + extra - aligned) munmap(reinterpret_cast<void*>(aligned + bytes), tail);
  return reinterpret_cast<void*>(aligned);
}

bool is_mapped(size_t block_bytes) { return kCaches && block_bytes > kSmall; }

}  // namespace

void* system_allocate(size_t block_bytes) {
  if (!is_mapped(block_bytes)) {
    void* p = nullptr;
    const size_t alignment = kCaches && block_bytes >= kPageAligned ? kPage : kAlignment;
    return posix_memalign(&p, alignment, block_bytes) == 0 ? p : nullptr;
  }
  void* p = map_pages(block_bytes, block_bytes >= kHuge ? kHugePage : kPage);
  if (p && block_bytes >= kHuge) madvise(p, block_bytes, MADV_HUGEPAGE);  // advice: failure changes speed only
  return p;
}

void system_free(void* p, size_t block_bytes) {
  if (is_mapped(block_bytes))
    munmap(p, block_bytes);
  else
    std::free(p);
}

}  // namespace deepseek
