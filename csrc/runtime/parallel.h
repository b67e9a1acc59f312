// The one way to run on several threads. A region runs serially inside another, while another thread of the
// process is in one, and in a forked child until that child calls set_num_threads().
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace deepseek {

// Default: min(CPU affinity, cgroup CPU quota, OMP_NUM_THREADS), unless DEEPSEEK_NUM_THREADS says otherwise.
int num_threads();
void set_num_threads(int n);  // n >= 1, for the whole process
// Why num_threads() is what it is, for `deepseek doctor` ("affinity 2, cgroup quota none, OMP_NUM_THREADS unset").
const char* num_threads_reason();
bool in_parallel_region();

namespace detail {
extern std::atomic<int64_t> grain_limit;
using RangeFn = void (*)(void* context, int64_t begin, int64_t end);
void parallel_for(int64_t n, int64_t grain, RangeFn fn, void* context);
}  // namespace detail

// A test seam: work of more than n items is cut over threads, however little it is. n = 0 ends that.
void set_grain_limit(int64_t n);
// `grain` under that limit. parallel_for asks by itself; a kernel that decides how to cut before it calls asks too.
inline int64_t limited_grain(int64_t grain) {
  return std::min(grain, detail::grain_limit.load(std::memory_order_relaxed));
}

// Calls f(begin, end) over disjoint ranges covering [0, n). Runs serially when n <= grain. How the range is cut depends
// on the thread count, so a result may not depend on the cuts. The first exception thrown by f is rethrown to the
// caller.
template <class F>
void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  grain = limited_grain(grain);
  if (n <= grain) return f(int64_t{0}, n);
  auto call = [](void* context, int64_t begin, int64_t end) {
    (*static_cast<std::remove_reference_t<F>*>(context))(begin, end);
  };
  detail::parallel_for(n, grain, call, const_cast<void*>(static_cast<const void*>(&f)));
}

// Elements per thread below which a second thread costs more than it gives, for work touching `bytes` per element.
constexpr int64_t grain_for(int64_t bytes_per_element) {
  constexpr int64_t kBytesPerThread = 64 * 1024;
  return bytes_per_element >= kBytesPerThread ? 1 : kBytesPerThread / (bytes_per_element > 0 ? bytes_per_element : 1);
}

}  // namespace deepseek
