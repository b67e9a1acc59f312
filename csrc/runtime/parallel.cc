// One pool and one region at a time: a second thread that asks meanwhile runs serially. A forked child has none of its
// parent's threads; it runs serially until it asks for more, and then makes a pool of its own.
#include "runtime/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

#include "base/check.h"
#include "runtime/cgroup.h"
#include "runtime/thread_pool.h"

namespace deepseek {
namespace {

// --- how many threads ---

std::atomic<int> g_threads{0};  // 0: not decided yet
std::atomic<const char*> g_reason{nullptr};

// The leading integer of a variable ("8" or OpenMP's "8,4"); 0 when unset or not a positive integer.
int env_threads(const char* name) {
  const char* text = std::getenv(name);
  if (!text || !*text) return 0;
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text, &end, 10);
  const bool ok = end != text && (*end == '\0' || *end == ',') && errno == 0 && value >= 1;
  return ok && value <= std::numeric_limits<int>::max() ? static_cast<int>(value) : 0;
}

struct Default {
  int threads;
  std::string reason;
};

Default decide_default() {
  const int affinity = affinity_count();
  const auto quota = cgroup_cpu_quota();
  const int omp = env_threads("OMP_NUM_THREADS");
  const int own = env_threads("DEEPSEEK_NUM_THREADS");
  const char* own_text = std::getenv("DEEPSEEK_NUM_THREADS");
  DS_CHECK_AS(ValueError, own > 0 || !own_text || !*own_text, "DEEPSEEK_NUM_THREADS must be a positive integer, got \"",
              own_text, "\"");
  int threads = affinity;
  if (quota) threads = std::min(threads, std::max(1, static_cast<int>(std::ceil(std::min(*quota, 1e6)))));
  if (omp > 0) threads = std::min(threads, omp);
  if (own > 0) threads = own;

  std::string reason = text_of({"affinity ", affinity, ", cgroup quota ", quota ? Word(*quota) : Word("none"),
                                ", OMP_NUM_THREADS ", omp > 0 ? Word(omp) : Word("unset")});
  if (own > 0) reason += text_of({", overridden by DEEPSEEK_NUM_THREADS ", own});
  return {threads, std::move(reason)};
}

int default_threads() {
  static const Default* const chosen = new Default(decide_default());  // never destroyed: read until the process ends
  int undecided = 0;
  if (g_threads.compare_exchange_strong(undecided, chosen->threads)) g_reason = chosen->reason.c_str();
  return g_threads;
}

// --- who may open a region ---

std::atomic<bool> g_busy{false};  // a region is running
thread_local bool t_in_region = false;

class BusyLock {
 public:
  BusyLock() : owned_(!g_busy.load(std::memory_order_relaxed) && !g_busy.exchange(true, std::memory_order_acquire)) {}
  ~BusyLock() {
    if (owned_) g_busy.store(false, std::memory_order_release);
  }
  explicit operator bool() const { return owned_; }

 private:
  bool owned_;
};

// --- running ---

struct Job {
  detail::RangeFn fn;
  void* context;
  int64_t n, chunk;
  std::mutex mutex = {};
  std::exception_ptr error = {};
  int error_chunk = 0;

  void run(int index) noexcept {
    const bool outer = std::exchange(t_in_region, true);
    try {
      const int64_t begin = index * chunk;
      if (begin < n) fn(context, begin, std::min(n, begin + chunk));
    } catch (...) {
      // The lowest chunk's exception is kept, so that the message does not depend on timing.
      std::lock_guard lock(mutex);
      if (!error || index < error_chunk) error = std::current_exception(), error_chunk = index;
    }
    t_in_region = outer;
  }
};

ThreadPool* g_pool = nullptr;  // whoever holds g_busy may make it; lives as long as the process

// A child has one thread, and a copy of a pool whose threads it does not have.
void mark_forked_child() {
  g_pool = nullptr;
  g_threads = 1;
  g_reason = "forked child: serial until set_num_threads() is called";
  g_busy = false;
}

[[maybe_unused]] const int g_fork_handler = pthread_atfork(nullptr, nullptr, mark_forked_child);

// Large work is cut finer than there are threads, so that one on a slower or busier core does less of it. What fits in
// the cores' own caches is not: there a piece that changes threads from op to op costs more.
constexpr int64_t kPiecesPerThread = 4;
constexpr int64_t kGrainsPerPiece = 4;

int pieces_per_thread(int64_t n, int64_t grain, int64_t threads) {
  const int64_t smallest = grain == 1 ? 1 : grain * kGrainsPerPiece;  // grain 1: each item is worth a thread
  return static_cast<int>(std::clamp<int64_t>(n / (smallest * threads), 1, kPiecesPerThread));
}

}  // namespace

int num_threads() {
  const int threads = g_threads.load(std::memory_order_relaxed);
  return threads > 0 ? threads : default_threads();
}

void set_num_threads(int n) {
  DS_CHECK(n >= 1, "set_num_threads expects a positive integer, got ", n);
  g_threads = n;
  g_reason = "set by set_num_threads()";
}

const char* num_threads_reason() {
  num_threads();
  const char* reason = g_reason;
  return reason ? reason : "being decided";
}

bool in_parallel_region() { return t_in_region; }

std::atomic<int64_t> detail::grain_limit{std::numeric_limits<int64_t>::max()};

void set_grain_limit(int64_t n) {
  DS_CHECK(n >= 0, "set_grain_limit expects a number that is not negative, got ", n);
  detail::grain_limit = n > 0 ? n : std::numeric_limits<int64_t>::max();
}

void detail::parallel_for(int64_t n, int64_t grain, RangeFn fn, void* context) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t most = (n - 1) / grain + 1;
  const int threads = static_cast<int>(std::min<int64_t>(num_threads(), most));
  if (threads <= 1 || t_in_region) return fn(context, 0, n);
  BusyLock lock;
  if (!lock) return fn(context, 0, n);
  if (!g_pool) g_pool = new ThreadPool;
  const int each = pieces_per_thread(n, grain, threads);
  Job job{fn, context, n, (n - 1) / (threads * each) + 1};
  g_pool->run(
      threads, each, [](void* j, int piece) { static_cast<Job*>(j)->run(piece); }, &job);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace deepseek
