#include "runtime/allocator.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <sstream>

#include "base/check.h"
#include "runtime/cgroup.h"
#include "runtime/system_blocks.h"

namespace deepseek {
namespace {

constexpr size_t kChecked = size_t{64} << 20;   // from here on free memory is looked up before the system is asked
constexpr size_t kMost = size_t{1} << 46;       // beyond any address space
constexpr size_t kListBytes = size_t{2} << 20;  // what one list of a thread may hold,
constexpr int kListBlocks = 128;                // and how many blocks,
constexpr int64_t kThreadBytes = 16 << 20;      // and what all lists of a thread may hold
constexpr int64_t kMostPending = 64 << 10;      // bytes a thread counts for itself
constexpr int kSmallClasses = 52;
constexpr int kClasses = 160;

// A block that is not in use holds its own list links. The last three are used above kSmall only.
struct FreeBlock {
  FreeBlock* next;
  FreeBlock* previous;
  FreeBlock *older, *newer;
  int size_class;
};
static_assert(sizeof(FreeBlock) <= kAlignment);

// --- counters ---

std::atomic<int64_t> g_allocated{0}, g_peak{0}, g_system_allocations{0};
std::atomic<uint32_t> g_epoch{0};  // moves on when the cache is emptied

void raise_peak(int64_t now) {
  int64_t peak = g_peak.load(std::memory_order_relaxed);
  while (now > peak && !g_peak.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

// Written by one thread, read by memory_stats(): a plain add without a locked instruction.
struct OwnedCounter {
  std::atomic<int64_t> value{0};
  void add(int64_t n) { set(get() + n); }
  void set(int64_t n) { value.store(n, std::memory_order_relaxed); }
  int64_t get() const { return value.load(std::memory_order_relaxed); }
};

// --- caches ---

struct SmallList {
  FreeBlock* head = nullptr;
  int count = 0;

  void push(FreeBlock* block) {
    block->next = head;
    head = block;
    ++count;
  }
  FreeBlock* pop() {
    FreeBlock* block = head;
    if (block) head = block->next, --count;
    return block;
  }
};

constexpr size_t bytes_of_class(int size_class) {
  if (size_class < 4) return 64 * (static_cast<size_t>(size_class) + 1);
  const int power = 8 + (size_class - 4) / 4;
  return static_cast<size_t>(5 + (size_class - 4) % 4) << (power - 2);
}

// How many blocks a thread's list may hold.
constexpr auto kMostBlocks = [] {
  std::array<int, kSmallClasses> most{};
  for (int c = 0; c < kSmallClasses; ++c)
    most[c] = static_cast<int>(std::clamp<size_t>(kListBytes / bytes_of_class(c), 2, kListBlocks));
  return most;
}();

struct ThreadCache {
  std::array<SmallList, kSmallClasses> lists;
  OwnedCounter allocations, cached_bytes;
  // Bytes this thread allocated less those it freed, not yet in g_allocated, and their highest value: a locked
  // instruction per call would cost more than the rest of it.
  OwnedCounter pending, pending_peak;
  uint32_t epoch = 0;

  void count(int64_t bytes) {
    const int64_t now = pending.get() + bytes;
    pending.set(now);
    if (now > pending_peak.get()) pending_peak.set(now);
    if (now > kMostPending || now < -kMostPending) fold();
  }
  void fold() {
    const int64_t bytes = pending.get();
    const int64_t before = g_allocated.fetch_add(bytes, std::memory_order_relaxed);
    raise_peak(before + pending_peak.get());
    pending.set(0);
    pending_peak.set(0);
  }
  ThreadCache *next = nullptr, *previous = nullptr;  // all threads' caches
};

// Everything that threads share, behind one mutex. Never destroyed: blocks are freed until the last moment.
class Pool {
 public:
  static Pool& instance() {
    static Pool* const pool = new Pool;
    return *pool;
  }

  std::mutex mutex;

  void add_thread(ThreadCache* cache) {
    cache->next = threads_;
    if (threads_) threads_->previous = cache;
    threads_ = cache;
  }

  void remove_thread(ThreadCache* cache) {
    ended_allocations_ += cache->allocations.get();
    cache->fold();
    (cache->previous ? cache->previous->next : threads_) = cache->next;
    if (cache->next) cache->next->previous = cache->previous;
  }

  FreeBlock* take(int size_class) {
    FreeBlock* block = size_class < kSmallClasses ? small_[size_class].pop() : large_[size_class - kSmallClasses];
    if (!block) return nullptr;
    if (size_class >= kSmallClasses) unlink(block);
    cached_bytes_ -= bytes_of_class(size_class);
    return block;
  }

  // Keeps the block, or frees it when the limit leaves no room after dropping what was unused for longest.
  void give(FreeBlock* block, int size_class) {
    const int64_t bytes = bytes_of_class(size_class);
    while (cached_bytes_ + bytes > limit_ && oldest_) release(oldest_);
    if (cached_bytes_ + bytes > limit_) return system_free(block, bytes);
    cached_bytes_ += bytes;
    if (size_class < kSmallClasses) return small_[size_class].push(block);
    block->size_class = size_class;
    link(block);
  }

  void empty() {
    while (oldest_) release(oldest_);
    for (int c = 0; c < kSmallClasses; ++c)
      while (FreeBlock* block = take(c)) system_free(block, bytes_of_class(c));
  }

  int64_t cached_bytes() const {
    int64_t sum = cached_bytes_;
    for (const ThreadCache* t = threads_; t; t = t->next) sum += t->cached_bytes.get();
    return sum;
  }

  int64_t allocations() const {
    int64_t sum = ended_allocations_;
    for (const ThreadCache* t = threads_; t; t = t->next) sum += t->allocations.get();
    return sum;
  }

  // Allocated bytes now and at their highest. Threads' own peaks may be of different moments: at most kMostPending each
  // too many.
  int64_t allocated_bytes() const {
    int64_t sum = g_allocated.load(std::memory_order_relaxed);
    for (const ThreadCache* t = threads_; t; t = t->next) sum += t->pending.get();
    return sum;
  }
  int64_t peak_bytes() const {
    int64_t now = g_allocated.load(std::memory_order_relaxed);
    for (const ThreadCache* t = threads_; t; t = t->next) now += t->pending_peak.get();
    return std::max(now, g_peak.load(std::memory_order_relaxed));
  }

  int64_t ended_allocations_ = 0;  // of threads that have ended, or are past their thread-local objects

 private:
  Pool() {
    const char* text = std::getenv("DEEPSEEK_CACHE_LIMIT");
    limit_ = text && *text ? detail::parse_byte_count(text) : total_memory() / 4;
  }

  void link(FreeBlock* block) {
    FreeBlock*& head = large_[block->size_class - kSmallClasses];
    block->previous = nullptr;
    block->next = head;
    if (head) head->previous = block;
    head = block;
    block->newer = nullptr;
    block->older = newest_;
    (newest_ ? newest_->newer : oldest_) = block;
    newest_ = block;
  }

  void unlink(FreeBlock* block) {
    (block->previous ? block->previous->next : large_[block->size_class - kSmallClasses]) = block->next;
    if (block->next) block->next->previous = block->previous;
    (block->older ? block->older->newer : oldest_) = block->newer;
    (block->newer ? block->newer->older : newest_) = block->older;
  }

  void release(FreeBlock* block) {
    const size_t bytes = bytes_of_class(block->size_class);
    unlink(block);
    cached_bytes_ -= bytes;
    system_free(block, bytes);
  }

  std::array<SmallList, kSmallClasses> small_;
  std::array<FreeBlock*, kClasses - kSmallClasses> large_{};
  FreeBlock *oldest_ = nullptr, *newest_ = nullptr;
  ThreadCache* threads_ = nullptr;
  int64_t cached_bytes_ = 0;
  int64_t limit_ = 0;
};

// A fork while another thread makes the pool or holds its mutex would leave the child waiting for ever. Hence from the
// start, not from the first allocation on.
Pool* pool_at_fork() noexcept {
  try {
    return &Pool::instance();
  } catch (const ValueError&) {  // DEEPSEEK_CACHE_LIMIT says nothing: the first allocation will say so
    return nullptr;
  }
}
void lock_pool() {
  if (Pool* pool = pool_at_fork()) pool->mutex.lock();
}
void unlock_pool() {
  if (Pool* pool = pool_at_fork()) pool->mutex.unlock();
}
[[maybe_unused]] const int g_fork_handlers = pthread_atfork(lock_pool, unlock_pool, unlock_pool);

// Plain pointers, so that the fast path needs no guard and still works after the thread's objects are destroyed.
[[gnu::tls_model("initial-exec")]] thread_local ThreadCache* t_cache = nullptr;
thread_local bool t_ended = false;

// Moves blocks of one list to the pool until `keep` are left. The caller holds the mutex.
void flush(ThreadCache* cache, int size_class, int keep, Pool& pool) {
  SmallList& list = cache->lists[size_class];
  const int64_t bytes = bytes_of_class(size_class);
  while (list.count > keep) {
    pool.give(list.pop(), size_class);
    cache->cached_bytes.add(-bytes);
  }
}

void free_all(ThreadCache* cache) {
  for (int c = 0; c < kSmallClasses; ++c)
    while (FreeBlock* block = cache->lists[c].pop()) system_free(block, bytes_of_class(c));
  cache->cached_bytes.add(-cache->cached_bytes.get());
}

void flush_all(ThreadCache* cache, Pool& pool) {
  for (int c = 0; c < kSmallClasses; ++c) flush(cache, c, 0, pool);
}

struct ThreadEnd {
  ~ThreadEnd() {
    ThreadCache* cache = t_cache;
    t_cache = nullptr;
    t_ended = true;
    Pool& pool = Pool::instance();
    {
      std::lock_guard lock(pool.mutex);
      flush_all(cache, pool);
      pool.remove_thread(cache);
    }
    delete cache;
  }
};

// Null once the thread's objects are destroyed.
ThreadCache* thread_cache() {
  if (t_cache || t_ended) return t_cache;
  Pool& pool = Pool::instance();
  auto* cache = new ThreadCache;
  cache->epoch = g_epoch.load(std::memory_order_relaxed);
  {
    std::lock_guard lock(pool.mutex);
    pool.add_thread(cache);
  }
  t_cache = cache;
  static thread_local ThreadEnd end;
  return cache;
}

// --- slow paths ---

[[noreturn, gnu::cold]] void out_of_memory(size_t bytes) {
  std::ostringstream message;
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  message.precision(3);
  message << "cannot allocate " << bytes << " bytes (" << static_cast<double>(bytes) / kGiB
          << " GiB): " << static_cast<double>(available_memory()) / kGiB << " GiB of memory available";
  throw OutOfMemoryError(message.str());
}

bool fits(size_t bytes) { return bytes < kChecked || static_cast<int64_t>(bytes) <= available_memory(); }

void* allocate_from_system(size_t bytes, size_t block_bytes) {
  void* p = fits(bytes) ? system_allocate(block_bytes) : nullptr;
  if (!p) {
    empty_cache();
    p = fits(bytes) ? system_allocate(block_bytes) : nullptr;
    if (!p) out_of_memory(bytes);
  }
  g_system_allocations.fetch_add(1, std::memory_order_relaxed);
  return p;
}

// Moves up to half a list's worth of blocks from the pool into the thread's list and returns one more.
FreeBlock* refill(ThreadCache* cache, int size_class, Pool& pool) {
  FreeBlock* block = pool.take(size_class);
  if (!block || !cache || size_class >= kSmallClasses) return block;
  for (int i = kMostBlocks[size_class] / 2; i > 1; --i) {
    FreeBlock* more = pool.take(size_class);
    if (!more) break;
    cache->lists[size_class].push(more);
    cache->cached_bytes.add(bytes_of_class(size_class));
  }
  return block;
}

[[gnu::noinline]] void* allocate_slow(size_t bytes) {
  if (bytes > kMost) out_of_memory(bytes);
  ThreadCache* cache = thread_cache();
  const int size_class = detail::size_class(bytes);
  Pool& pool = Pool::instance();
  void* p = nullptr;
  {
    std::lock_guard lock(pool.mutex);
    if (kCaches) p = refill(cache, size_class, pool);
    if (!cache) ++pool.ended_allocations_;
  }
  // Without caches the block ends where the caller's bytes end, and a red zone begins.
  if (!p) p = allocate_from_system(bytes, kCaches ? bytes_of_class(size_class) : std::max<size_t>(bytes, 1));
  if (cache) {
    cache->allocations.add(1);
    cache->count(static_cast<int64_t>(bytes));
  } else {
    const auto size = static_cast<int64_t>(bytes);
    raise_peak(g_allocated.fetch_add(size, std::memory_order_relaxed) + size);
  }
  return p;
}

[[gnu::noinline]] void deallocate_slow(FreeBlock* block, int size_class) {
  Pool& pool = Pool::instance();
  ThreadCache* cache = t_cache;
  std::lock_guard lock(pool.mutex);
  if (cache) {
    if (const uint32_t epoch = g_epoch.load(std::memory_order_relaxed); cache->epoch != epoch) {
      cache->epoch = epoch;
      free_all(cache);
    }
    if (cache->cached_bytes.get() >= kThreadBytes)
      flush_all(cache, pool);
    else if (size_class < kSmallClasses)
      flush(cache, size_class, kMostBlocks[size_class] / 2, pool);
  }
  pool.give(block, size_class);
}

}  // namespace

int detail::size_class(size_t bytes) {
  if (bytes <= 256) return bytes ? static_cast<int>((bytes - 1) / 64) : 0;
  const int power = std::bit_width(bytes - 1) - 1;
  return 4 + (power - 8) * 4 + static_cast<int>((bytes - 1) >> (power - 2) & 3);
}

size_t detail::class_bytes(int size_class) { return bytes_of_class(size_class); }

int64_t detail::parse_byte_count(const char* text) {
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text, &end, 10);
  int shift = 0;
  if (end != text && *end && !end[1]) {
    shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (shift) ++end;
  }
  DS_CHECK_AS(ValueError,
              end != text && !*end && errno == 0 && value >= 0 && value <= std::numeric_limits<int64_t>::max() >> shift,
              "DEEPSEEK_CACHE_LIMIT must be a number of bytes, or one with the suffix K, M or G; got \"", text, "\"");
  return static_cast<int64_t>(value) << shift;
}

void* allocate(size_t bytes) {
  ThreadCache* cache = t_cache;
  if (cache && bytes <= kSmall) [[likely]] {
    const int size_class = detail::size_class(bytes);
    if (FreeBlock* block = cache->lists[size_class].pop()) [[likely]] {
      cache->cached_bytes.add(-static_cast<int64_t>(bytes_of_class(size_class)));
      cache->allocations.add(1);
      cache->count(static_cast<int64_t>(bytes));
      return block;
    }
  }
  return allocate_slow(bytes);
}

void deallocate(void* p, size_t bytes) noexcept {
  if (!p) return;
  ThreadCache* cache = t_cache;
  if (cache)
    cache->count(-static_cast<int64_t>(bytes));
  else
    g_allocated.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  if (!kCaches) return std::free(p);
  auto* block = static_cast<FreeBlock*>(p);
  const int size_class = detail::size_class(bytes);
  if (cache && bytes <= kSmall && cache->epoch == g_epoch.load(std::memory_order_relaxed)) [[likely]] {
    SmallList& list = cache->lists[size_class];
    if (list.count < kMostBlocks[size_class] && cache->cached_bytes.get() < kThreadBytes) [[likely]] {
      list.push(block);
      cache->cached_bytes.add(static_cast<int64_t>(bytes_of_class(size_class)));
      return;
    }
  }
  deallocate_slow(block, size_class);
}

void empty_cache() {
  Pool& pool = Pool::instance();
  std::lock_guard lock(pool.mutex);
  const uint32_t epoch = g_epoch.fetch_add(1, std::memory_order_relaxed) + 1;
  if (ThreadCache* cache = t_cache) {
    free_all(cache);
    cache->epoch = epoch;
  }
  pool.empty();
}

MemoryStats memory_stats() {
  Pool& pool = Pool::instance();
  std::lock_guard lock(pool.mutex);
  return {pool.allocated_bytes(), pool.peak_bytes(), pool.cached_bytes(), pool.allocations(),
          g_system_allocations.load(std::memory_order_relaxed)};
}

void reset_peak_memory_stats() {
  Pool& pool = Pool::instance();
  std::lock_guard lock(pool.mutex);
  // Other threads' own peaks stay until they next fold: only they may write them.
  if (t_cache) t_cache->pending_peak.set(t_cache->pending.get());
  g_peak.store(pool.allocated_bytes(), std::memory_order_relaxed);
}

}  // namespace deepseek
