// libgomp keeps one pool of workers for each thread that opens regions, and a child forked after a region hangs in its
// first one. So at most kDirectMasters threads open regions themselves, one more opens them for all others, one region
// runs at a time, and forked children use plain threads. So do builds for ThreadSanitizer, which cannot see into
// libgomp.
#include "runtime/parallel.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <limits>
#include <mutex>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "runtime/cgroup.h"

namespace deepseek {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kOpenMp = false;
#else
constexpr bool kOpenMp = true;
#endif
constexpr int kDirectMasters = 2;

// --- how many threads ---

std::atomic<int> g_threads{0};  // 0: not decided yet
std::atomic<const char*> g_reason{nullptr};
std::atomic<bool> g_forked{false};

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

  std::ostringstream reason;
  reason << "affinity " << affinity << ", cgroup quota ";
  quota ? reason << *quota : reason << "none";
  reason << ", OMP_NUM_THREADS ";
  omp > 0 ? reason << omp : reason << "unset";
  if (own > 0) reason << ", overridden by DEEPSEEK_NUM_THREADS " << own;
  return {threads, reason.str()};
}

int default_threads() {
  static const Default* const chosen = new Default(decide_default());  // never destroyed: read until the process ends
  int undecided = 0;
  if (g_threads.compare_exchange_strong(undecided, chosen->threads)) g_reason = chosen->reason.c_str();
  return g_threads;
}

// --- who may open a region ---

std::atomic<bool> g_busy{false};  // a region is running
std::atomic<int> g_masters{0};
thread_local bool t_in_region = false;
thread_local bool t_master = false;

// Gives the place back when its thread ends; libgomp frees that thread's workers at the same time.
struct MasterPlace {
  ~MasterPlace() {
    t_master = false;
    g_masters.fetch_sub(1);
  }
};

bool is_master() {
  if (t_master) return true;
  int held = g_masters;
  do {
    if (held >= kDirectMasters) return false;
  } while (!g_masters.compare_exchange_weak(held, held + 1));
  static thread_local MasterPlace place;
  t_master = true;
  return true;
}

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
  int chunks;
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

// Moves the calling worker off `core`, where its master waits for it. With few cores Linux may wake a worker there, and
// leave it for seconds, while another core idles: each region then costs two task switches. Once in a while at most, as
// a machine that has no core free gains nothing.
void leave_core(int core, int threads) {
  using Clock = std::chrono::steady_clock;
  static thread_local Clock::time_point again{};
  const Clock::time_point now = Clock::now();
  if (now < again) return;
  again = now + std::chrono::milliseconds(1);
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < std::max(threads, 2)) return;
  cpu_set_t others = allowed;
  CPU_CLR(core, &others);
  if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
}

// Always the whole team: libgomp ends the workers that a smaller team leaves over. A team may be smaller than
// asked for.
void run_team(Job& job, int threads) {
  const int core = sched_getcpu();
#pragma omp parallel num_threads(threads)
  {
    const int id = omp_get_thread_num();
    if (id != 0 && core >= 0 && sched_getcpu() == core) leave_core(core, threads);
    for (int i = id, step = omp_get_num_threads(); i < job.chunks; i += step) job.run(i);
  }
}

void run_spawned(Job& job) {
  std::vector<std::thread> workers;
  workers.reserve(job.chunks);
  int started = 1;
  try {
    for (; started < job.chunks; ++started) workers.emplace_back([&job, started] { job.run(started); });
  } catch (const std::system_error&) {  // no more threads to be had: the rest runs here
  }
  job.run(0);
  for (int i = started; i < job.chunks; ++i) job.run(i);
  for (std::thread& worker : workers) worker.join();
}

// The thread that opens regions for all that have no place of their own. One task at a time: the poster holds g_busy.
class Proxy {
 public:
  using Task = void (*)(void*);

  // Null when the system has no thread left.
  static Proxy* get() {
    static std::mutex mutex;
    std::lock_guard lock(mutex);
    if (!instance_) {
      auto* proxy = new Proxy;  // lives as long as the process
      try {
        std::thread([proxy] { proxy->loop(); }).detach();
      } catch (const std::system_error&) {
        delete proxy;
        return nullptr;
      }
      instance_ = proxy;
    }
    return instance_;
  }

  void run(Task task, void* context) {
    task_ = task;
    context_ = context;
    posted_.store(1, std::memory_order_release);
    posted_.notify_one();
    posted_.wait(1, std::memory_order_acquire);
  }

 private:
  [[noreturn]] void loop() {
    for (;;) {
      posted_.wait(0, std::memory_order_acquire);
      task_(context_);
      posted_.store(0, std::memory_order_release);
      posted_.notify_one();
    }
  }

  static inline Proxy* instance_ = nullptr;
  std::atomic<int> posted_{0};
  Task task_ = nullptr;
  void* context_ = nullptr;
};

// Runs f on a thread that may own OpenMP workers; false when there is none.
template <class F>
bool run_on_master(F f) {
  if (is_master()) {
    f();
    return true;
  }
  Proxy* proxy = Proxy::get();
  if (!proxy) return false;
  proxy->run([](void* p) { (*static_cast<F*>(p))(); }, &f);
  return true;
}

bool must_run_serially() { return t_in_region || (kOpenMp && omp_in_parallel()); }

// A child has one thread and copies of libgomp's and the proxy's state that belong to threads it does not have.
void mark_forked_child() {
  g_forked = true;
  g_threads = 1;
  g_reason = "forked child: serial until set_num_threads() is called";
  g_busy = false;
}

[[maybe_unused]] const int g_fork_handler = pthread_atfork(nullptr, nullptr, mark_forked_child);

class OmpDefault {
 public:
  explicit OmpDefault(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~OmpDefault() { omp_set_num_threads(before_); }

 private:
  int before_;
};

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

bool in_parallel_region() { return must_run_serially(); }

std::atomic<int64_t> detail::grain_limit{std::numeric_limits<int64_t>::max()};

void set_grain_limit(int64_t n) {
  DS_CHECK(n >= 0, "set_grain_limit expects a number that is not negative, got ", n);
  detail::grain_limit = n > 0 ? n : std::numeric_limits<int64_t>::max();
}

void detail::parallel_for(int64_t n, int64_t grain, RangeFn fn, void* context) {
  const int threads = num_threads();
  const int64_t most = (n - 1) / std::max<int64_t>(grain, 1) + 1;
  const int chunks = static_cast<int>(std::min<int64_t>(threads, most));
  if (chunks <= 1 || must_run_serially()) return fn(context, 0, n);
  Job job{fn, context, n, (n - 1) / chunks + 1, chunks};
  {
    BusyLock lock;
    if (!lock) return fn(context, 0, n);
    if (!kOpenMp || g_forked.load(std::memory_order_relaxed))
      run_spawned(job);
    else if (!run_on_master([&] { run_team(job, threads); }))
      return fn(context, 0, n);
  }
  if (job.error) std::rethrow_exception(job.error);
}

void detail::library_region(LibraryFn fn, void* context) {
  const int threads = num_threads();
  if (threads > 1 && kOpenMp && !g_forked.load(std::memory_order_relaxed) && !must_run_serially()) {
    std::exception_ptr error;
    const auto call = [&] {
      try {
        OmpDefault scope(threads);
        fn(context, threads);
      } catch (...) {
        error = std::current_exception();
      }
    };
    BusyLock lock;
    if (lock && run_on_master(call)) {
      if (error) std::rethrow_exception(error);
      return;
    }
  }
  OmpDefault scope(1);
  fn(context, 1);
}

}  // namespace deepseek
