#include "kernels/simd/stream.h"

#include <immintrin.h>

#include <cstring>

#include "base/check.h"

namespace deepseek::kernels {
namespace {
constexpr int64_t kDefaultLimit = int64_t{48} << 20;
}

std::atomic<int64_t> detail::stream_limit{kDefaultLimit};

void set_stream_limit(int64_t bytes) {
  DS_CHECK(bytes >= 0, "set_stream_limit expects a number that is not negative, got ", bytes);
  detail::stream_limit = bytes > 0 ? bytes : kDefaultLimit;
}

void stream_bytes(void* to_raw, const void* from_raw, int64_t bytes) {
  char* to = static_cast<char*>(to_raw);
  const char* from = static_cast<const char*>(from_raw);
  const auto head = std::min<int64_t>(bytes, -reinterpret_cast<uintptr_t>(to) % 64);
  std::memcpy(to, from, head);
  int64_t at = head;
  for (; at + 64 <= bytes; at += 64) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at));
    const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at + 32));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at), first);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at + 32), second);
  }
  std::memcpy(to + at, from + at, bytes - at);
}

void stream_fence() { _mm_sfence(); }

}  // namespace deepseek::kernels
