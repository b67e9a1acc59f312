#include "runtime/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

namespace deepseek {
namespace {

using Clock = std::chrono::steady_clock;

// How long a thread watches for a change before it sleeps: waking up costs about as much.
constexpr auto kWatch = std::chrono::microseconds(50);

// True when `state` stopped being `value` within kWatch.
bool watch(const std::atomic<int>& state, int value) {
  Clock::time_point end{};
  for (int round = 0;; ++round) {
    for (int i = 0; i < 64; ++i) {
      if (state.load(std::memory_order_acquire) != value) return true;
      _mm_pause();
    }
    const Clock::time_point now = Clock::now();
    if (round == 0) end = now + kWatch;
    if (now > end) return false;
  }
}

// Moves the calling worker off `core`, its master's. With few cores Linux may wake a worker there while another idles,
// and both have half a core for some milliseconds. Once in a while at most: with no core free there is nothing to gain.
void leave_core(int core, int threads) {
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

}  // namespace

void ThreadPool::run(int threads, int each, Piece fn, void* context) {
  const int present = grow(threads);
  const Job job{fn, context, threads, each, sched_getcpu()};
  for (int i = 0; each > 1 && i < threads; ++i) places_[i]->next.store(0, std::memory_order_relaxed);
  for (int i = 1; i < present; ++i) {
    Place& place = *places_[i];
    place.job = &job;
    if (place.state.exchange(kPosted, std::memory_order_release) == kAsleep) place.state.notify_one();
  }
  work(job, 0);
  for (int i = 1; i < threads; ++i) {
    std::atomic<int>& state = places_[i]->state;
    int posted = kPosted;
    if (i >= present || state.compare_exchange_strong(posted, kIdle, std::memory_order_relaxed)) {
      take_pieces(job, i);  // nobody began
      continue;
    }
    while (!watch(state, kRunning)) state.wait(kRunning, std::memory_order_acquire);
  }
}

// Places for `threads`; how many of them have a thread. The system may have none left.
int ThreadPool::grow(int threads) {
  while (static_cast<int>(places_.size()) < threads) places_.push_back(std::make_unique<Place>());
  for (; started_ < threads; ++started_) {
    try {
      std::thread([this, index = started_, &mine = *places_[started_]] { serve(mine, index); }).detach();
    } catch (const std::system_error&) {
      break;
    }
  }
  return std::min(started_, threads);
}

void ThreadPool::take_pieces(const Job& job, int from) {
  if (job.each == 1) return job.fn(job.context, from);  // its thread's, or the caller's once that thread is out
  std::atomic<int>& next = places_[from]->next;
  for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < job.each;) job.fn(job.context, from * job.each + i);
}

void ThreadPool::work(const Job& job, int from) {
  take_pieces(job, from);
  for (int i = 1; job.each > 1 && i < job.threads; ++i) take_pieces(job, (from + i) % job.threads);
}

void ThreadPool::serve(Place& mine, int index) {
  for (;;) {
    int state = mine.state.load(std::memory_order_acquire);
    if (state == kPosted && mine.state.compare_exchange_strong(state, kRunning, std::memory_order_acquire)) {
      const Job& job = *mine.job;
      if (job.core >= 0 && sched_getcpu() == job.core) leave_core(job.core, job.threads);
      work(job, index);
      mine.state.exchange(kIdle, std::memory_order_acq_rel);  // not a store: notify_one() looks for waiters after it
      mine.state.notify_one();
    } else if (!watch(mine.state, kIdle)) {
      int idle = kIdle;
      if (mine.state.compare_exchange_strong(idle, kAsleep, std::memory_order_relaxed))
        mine.state.wait(kAsleep, std::memory_order_acquire);
    }
  }
}

}  // namespace deepseek
