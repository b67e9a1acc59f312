// Results larger than the caches are written past them: an ordinary store reads its line from memory first, a third of
// the traffic of an op with one input. A block is made in the L1 cache and moved out by non-temporal stores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace deepseek::kernels {

namespace detail {
extern std::atomic<int64_t> stream_limit;
}
// A test seam: what reads and writes more than `bytes` streams. 0 gives the default.
void set_stream_limit(int64_t bytes);
// Whether a call that reads and writes that many bytes in all does. Half as much again as a last-level cache that eight
// cores share holds: with less, the next op finds more of the result in the cache than streaming saves here.
inline bool streams(int64_t bytes) { return bytes > detail::stream_limit.load(std::memory_order_relaxed); }

inline constexpr int64_t kStreamBlock = 1024;  // small, so that the CPU begins to read the next block meanwhile

// Bytes to memory past the caches, whole lines where `to` allows. Other threads may see them after stream_fence() only.
void stream_bytes(void* to, const void* from, int64_t bytes);
void stream_fence();

// make(at, n, buffer) writes items [at, at + n) into a buffer; they go to out + at. Blocks end where cache lines do.
template <class Make>
void stream_items(void* out, int64_t item, int64_t begin, int64_t end, const Make& make) {
  constexpr int64_t kLine = 64;
  alignas(kLine) char buffer[kStreamBlock];
  for (int64_t at = begin; at < end;) {
    char* to = static_cast<char*>(out) + at * item;
    const auto skew = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % kLine);
    const int64_t n = std::min(end - at, (kStreamBlock - skew) / item);
    make(at, n, buffer + skew);
    stream_bytes(to, buffer + skew, n * item);
    at += n;
  }
}

}  // namespace deepseek::kernels
