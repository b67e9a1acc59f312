// Blocks from the system, for the allocator's caches.
#pragma once

#include <cstddef>

namespace deepseek {

#if !defined(DEEPSEEK_ALLOCATOR_CACHES)
#if defined(__SANITIZE_ADDRESS__)
#define DEEPSEEK_ALLOCATOR_CACHES 0
#else
#define DEEPSEEK_ALLOCATOR_CACHES 1
#endif
#endif
constexpr bool kCaches = DEEPSEEK_ALLOCATOR_CACHES;
constexpr size_t kAlignment = 64;
constexpr size_t kSmall = size_t{1} << 20;  // larger blocks are pages of their own

// Null when there is no memory. `block_bytes` of the two must be the same.
void* system_allocate(size_t block_bytes);
void system_free(void* p, size_t block_bytes);

}  // namespace deepseek
