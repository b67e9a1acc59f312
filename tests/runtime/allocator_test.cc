#include "runtime/allocator.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "gmock/gmock.h"
#include "runtime/cgroup.h"
#include "tests/runtime/runtime_testing.h"

namespace deepseek {
namespace {

using ::testing::HasSubstr;

constexpr size_t kKiB = 1024, kMiB = 1024 * kKiB;
constexpr bool kCaches = !DS_ASAN;  // under AddressSanitizer every block comes from and goes to the system

#define SKIP_WITHOUT_CACHES() \
  if (!kCaches) GTEST_SKIP() << "nothing is cached under AddressSanitizer"

// Empties the cache and counts what is cached from then on. Idle threads, of a pool that an earlier test started, keep
// theirs until they next free a block.
class EmptyCache {
 public:
  EmptyCache() {
    empty_cache();
    others_ = memory_stats().cached_bytes;
  }
  int64_t bytes() const { return memory_stats().cached_bytes - others_; }

 private:
  int64_t others_ = 0;
};

TEST(SizeClass, SmallestClassThatFitsAndLittleWaste) {
  for (size_t bytes = 0; bytes < 5000; ++bytes) {
    const int c = detail::size_class(bytes);
    ASSERT_GE(detail::class_bytes(c), bytes);
    if (c > 0) {
      ASSERT_LT(detail::class_bytes(c - 1), bytes);
    }
  }
  for (int c = 0; c < 150; ++c) {
    const size_t bytes = detail::class_bytes(c);
    ASSERT_EQ(bytes % 64, 0u);
    ASSERT_EQ(detail::size_class(bytes), c);
    ASSERT_EQ(detail::size_class(bytes + 1), c + 1);
    if (bytes > 256) {
      ASSERT_LE(bytes, 1.25 * (detail::class_bytes(c - 1) + 1));
    }
  }
  EXPECT_EQ(detail::class_bytes(detail::size_class(kMiB)), kMiB);
}

TEST(Allocator, AlignedWritableDistinct) {
  std::vector<std::pair<char*, size_t>> blocks;
  for (size_t bytes : {0ul, 1ul, 63ul, 64ul, 65ul, 257ul, 4096ul, 100'000ul, kMiB, kMiB + 1, 4 * kMiB, 5'000'001ul}) {
    auto* p = static_cast<char*>(allocate(bytes));
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u) << bytes;
    if (kCaches && bytes >= 4 * kMiB) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % (2 * kMiB), 0u) << bytes;
    }
    std::memset(p, static_cast<int>(blocks.size()), bytes);
    blocks.emplace_back(p, bytes);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto [p, bytes] = blocks[i];
    for (size_t k : {size_t{0}, bytes / 2, bytes - 1}) {
      if (bytes > 0) {
        EXPECT_EQ(p[k], static_cast<char>(i));
      }
    }
    deallocate(p, bytes);
  }
  deallocate(nullptr, 0);
  Buffer buffer(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.as<float>()) % 64, 0u);
}

TEST(Allocator, LargerBlocksStartAtAPage) {
  SKIP_WITHOUT_CACHES();
  for (const size_t bytes : {size_t{16} << 10, size_t{40'000}, size_t{400'000}, size_t{3} << 20}) {
    void* p[3];
    for (void*& q : p) {
      q = allocate(bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(q) % 4096, 0u) << bytes;
    }
    for (void* q : p) deallocate(q, bytes);
  }
}

// In a process of its own: other threads would count too.
TEST(AllocatorAlone, DISABLED_CountersAreExact) {
  const EmptyCache cache;
  const MemoryStats before = memory_stats();
  reset_peak_memory_stats();
  EXPECT_EQ(memory_stats().peak_bytes, before.allocated_bytes);
  void* a = allocate(1000);
  void* b = allocate(3 * kMiB + 5);
  const MemoryStats with = memory_stats();
  EXPECT_EQ(with.allocated_bytes - before.allocated_bytes, static_cast<int64_t>(1000 + 3 * kMiB + 5));
  EXPECT_EQ(with.peak_bytes, with.allocated_bytes);
  EXPECT_EQ(with.allocations - before.allocations, 2);
  EXPECT_EQ(with.system_allocations - before.system_allocations, 2);
  deallocate(b, 3 * kMiB + 5);
  EXPECT_EQ(memory_stats().allocated_bytes - before.allocated_bytes, 1000);
  EXPECT_EQ(memory_stats().peak_bytes, with.peak_bytes);
  reset_peak_memory_stats();
  EXPECT_EQ(memory_stats().peak_bytes - before.allocated_bytes, 1000);
  deallocate(a, 1000);
  EXPECT_EQ(memory_stats().allocated_bytes, before.allocated_bytes);
  if (kCaches) {
    const size_t blocks =
        detail::class_bytes(detail::size_class(1000)) + detail::class_bytes(detail::size_class(3 * kMiB + 5));
    EXPECT_EQ(cache.bytes(), static_cast<int64_t>(blocks));
  }
  empty_cache();
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(Allocator, CountersAreExact) {
  const auto run = testing::run_child_test("", "AllocatorAlone.DISABLED_CountersAreExact");
  EXPECT_EQ(run.status, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("[  PASSED  ] 1 test"));
}

TEST(Allocator, ReusesBlocks) {
  SKIP_WITHOUT_CACHES();
  for (size_t bytes : {size_t{64}, 1000 * kKiB, 40 * kMiB}) {
    void* p = allocate(bytes);
    deallocate(p, bytes);
    const int64_t before = memory_stats().system_allocations;
    void* again = allocate(bytes - 7);
    EXPECT_EQ(again, p) << bytes;
    EXPECT_EQ(memory_stats().system_allocations, before);
    deallocate(again, bytes - 7);
  }
  empty_cache();
}

TEST(Allocator, ThreadListsAreBounded) {
  SKIP_WITHOUT_CACHES();
  // What the thread may not keep goes to the pool, where another thread finds it.
  for (size_t bytes : {size_t{64}, 16 * kKiB, kMiB}) {
    const EmptyCache cache;
    std::vector<void*> blocks;
    for (int i = 0; i < 300; ++i) blocks.push_back(allocate(bytes));
    for (void* p : blocks) deallocate(p, bytes);
    EXPECT_EQ(cache.bytes(), static_cast<int64_t>(300 * bytes));
    int64_t from_system = -1;
    std::thread([&] {
      const int64_t before = memory_stats().system_allocations;
      std::vector<void*> mine;
      for (int i = 0; i < 150; ++i) mine.push_back(allocate(bytes));
      from_system = memory_stats().system_allocations - before;
      for (void* p : mine) deallocate(p, bytes);
    }).join();
    EXPECT_EQ(from_system, 0) << bytes;
  }
  empty_cache();
}

TEST(Allocator, BlocksOutliveTheirThreads) {
  const EmptyCache cache;
  const MemoryStats before = memory_stats();
  std::vector<char*> blocks;
  std::thread([&] {
    for (int i = 0; i < 100; ++i) {
      blocks.push_back(static_cast<char*>(allocate(512)));
      std::memset(blocks.back(), i, 512);
      deallocate(allocate(2000), 2000);
    }
  }).join();
  EXPECT_EQ(memory_stats().allocations - before.allocations, 200);  // also of threads that have ended
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(blocks[i][511], static_cast<char>(i));
    deallocate(blocks[i], 512);
  }
  EXPECT_EQ(memory_stats().allocated_bytes, before.allocated_bytes);
  if (kCaches) {
    EXPECT_EQ(cache.bytes(), static_cast<int64_t>(100 * 512 + detail::class_bytes(detail::size_class(2000))));
  }
  empty_cache();
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(Allocator, EmptyCacheReachesOtherThreads) {
  SKIP_WITHOUT_CACHES();
  const EmptyCache cache;
  std::mutex mutex;
  std::condition_variable changed;
  int step = 0;
  const auto wait_for = [&](int s) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return step == s; });
  };
  const auto go = [&](int s) {
    {
      std::lock_guard lock(mutex);
      step = s;
    }
    changed.notify_all();
  };
  std::thread other([&] {
    void* kept = allocate(128);
    deallocate(allocate(4096), 4096);
    go(1);
    wait_for(2);
    deallocate(kept, 128);
    go(3);
    wait_for(4);
  });
  wait_for(1);
  empty_cache();
  EXPECT_EQ(cache.bytes(), 4096);
  go(2);
  wait_for(3);
  EXPECT_EQ(cache.bytes(), 128);  // the stale 4096 bytes went, the block just freed stays
  go(4);
  other.join();
  empty_cache();
}

// Its destructor runs after the allocator's own thread-local objects are gone: it was made before them.
struct LateUser {
  std::vector<void*> held;
  bool allocate_at_end = false;
  ~LateUser() {
    for (void* p : held) deallocate(p, 300);
    if (allocate_at_end) deallocate(allocate(300), 300);
  }
};

TEST(Allocator, WorksAfterThreadLocalDestructors) {
  const int64_t before = memory_stats().allocated_bytes, allocations = memory_stats().allocations;
  std::thread([] {
    static thread_local LateUser late;
    late.allocate_at_end = true;
    for (int i = 0; i < 10; ++i) late.held.push_back(allocate(300));
  }).join();
  EXPECT_EQ(memory_stats().allocated_bytes, before);
  EXPECT_EQ(memory_stats().allocations - allocations, 11);
}

LateUser g_until_exit;  // frees at process exit

TEST(AllocatorExit, DISABLED_HoldUntilExit) {
  for (int i = 0; i < 10; ++i) g_until_exit.held.push_back(allocate(300));
  g_until_exit.allocate_at_end = true;
}

TEST(AllocatorExit, BlocksFreedAtProcessExit) {
  const auto run = testing::run_child_test("", "AllocatorExit.DISABLED_HoldUntilExit");
  EXPECT_EQ(run.status, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("[  PASSED  ] 1 test"));
}

TEST(Allocator, ThreadsExchangeBlocks) {
  struct Block {
    unsigned char* p;
    size_t bytes;
    unsigned char mark;
  };
  const int64_t before = memory_stats().allocated_bytes;
  std::mutex mutex;
  std::deque<Block> shared;
  std::vector<std::thread> threads;
  std::atomic<int> damaged{0};
  const auto check_and_free = [&](const Block& b) {
    if (b.bytes && (b.p[0] != b.mark || b.p[b.bytes - 1] != b.mark)) ++damaged;
    deallocate(b.p, b.bytes);
  };
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 engine(t);
      for (int i = 0; i < 5000; ++i) {
        const size_t bytes = i % 100 == 0 ? engine() % (3 * kMiB) : engine() % 3000;
        Block b{static_cast<unsigned char*>(allocate(bytes)), bytes, static_cast<unsigned char>(engine())};
        if (bytes) b.p[0] = b.p[bytes - 1] = b.mark;
        Block other{};
        {
          std::lock_guard lock(mutex);
          shared.push_back(b);
          if (shared.size() > 50) other = shared.front(), shared.pop_front();
        }
        if (other.p) check_and_free(other);
        if (i % 1000 == 999) empty_cache();
      }
    });
  }
  for (auto& t : threads) t.join();
  for (const Block& b : shared) check_and_free(b);
  EXPECT_EQ(damaged, 0);
  EXPECT_EQ(memory_stats().allocated_bytes, before);
}

// --- limits ---

TEST(Allocator, RefusesWhatTheMachineDoesNotHave) {
  const int64_t before = memory_stats().allocated_bytes;
  for (size_t bytes : {static_cast<size_t>(total_memory()) + kMiB, size_t{1} << 50, static_cast<size_t>(-1)}) {
    try {
      deallocate(allocate(bytes), bytes);
      ADD_FAILURE() << bytes << " bytes were given";
    } catch (const OutOfMemoryError& error) {
      EXPECT_THAT(error.what(), HasSubstr("cannot allocate " + std::to_string(bytes) + " bytes ("));
      EXPECT_THAT(error.what(), HasSubstr("GiB of memory available"));
    }
  }
  EXPECT_EQ(memory_stats().allocated_bytes, before);
  deallocate(allocate(100), 100);
}

// The system refuses beyond a limit on the address space: the cache is emptied once, then an exception comes.
TEST(Allocator, EmptiesTheCacheBeforeGivingUp) {
  if (DS_ASAN || DS_TSAN) GTEST_SKIP() << "sanitizers need their address space";
  const pid_t pid = fork();
  if (pid == 0) {
    empty_cache();
    std::ifstream statm("/proc/self/statm");
    size_t pages = 0;
    statm >> pages;
    const rlimit limit{pages * 4096 + 200 * kMiB, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &limit);
    deallocate(allocate(100 * kMiB), 100 * kMiB);  // cached
    try {
      deallocate(allocate(150 * kMiB), 150 * kMiB);
    } catch (const OutOfMemoryError&) {
      _exit(2);
    }
    std::vector<void*> blocks;
    try {
      for (int i = 0; i < 100; ++i) blocks.push_back(allocate(10 * kMiB));
      _exit(3);
    } catch (const OutOfMemoryError&) {
    }
    if (blocks.size() < 10) _exit(4);
    for (void* p : blocks) deallocate(p, 10 * kMiB);
    deallocate(allocate(100 * kMiB), 100 * kMiB);
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Allocator, ForkWhileOtherThreadsAllocate) {
  if (DS_TSAN) GTEST_SKIP() << "ThreadSanitizer does not support work after fork";
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a fork while another thread is in AddressSanitizer's allocator leaves the child's locked";
#endif
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&] {
      while (!stop) deallocate(allocate(2 * kMiB), 2 * kMiB);
    });
  int failures = 0;
  for (int i = 0; i < 30; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      alarm(20);
      for (size_t bytes : {100ul, 3000ul, 2 * kMiB}) deallocate(allocate(bytes), bytes);
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    failures += status != 0;
  }
  stop = true;
  for (auto& t : threads) t.join();
  EXPECT_EQ(failures, 0);
}

TEST(CacheLimit, Parse) {
  EXPECT_EQ(detail::parse_byte_count("0"), 0);
  EXPECT_EQ(detail::parse_byte_count("4096"), 4096);
  EXPECT_EQ(detail::parse_byte_count("3K"), 3072);
  EXPECT_EQ(detail::parse_byte_count("2M"), 2 << 20);
  EXPECT_EQ(detail::parse_byte_count("5G"), int64_t{5} << 30);
  for (const char* bad : {"", "x", "-1", "5X", "5MB", "M", "99999999999999999999", "9999999999G"})
    EXPECT_THROW(detail::parse_byte_count(bad), ValueError) << bad;
}

TEST(CacheLimit, DISABLED_Print) {
  try {
    for (size_t mib : {20, 25, 30}) deallocate(allocate(mib * kMiB), mib * kMiB);
  } catch (const ValueError& error) {
    std::printf("ValueError: %s\n", error.what());
    return;
  }
  const int64_t before = memory_stats().system_allocations;
  std::printf("cached=%ld;", static_cast<long>(memory_stats().cached_bytes));
  for (size_t mib : {30, 25, 20}) {
    deallocate(allocate(mib * kMiB), mib * kMiB);
    std::printf("new=%ld;", static_cast<long>(memory_stats().system_allocations - before));
  }
}

TEST(CacheLimit, DropsWhatWasUnusedForLongest) {
  SKIP_WITHOUT_CACHES();
  const auto cached = [](std::initializer_list<size_t> mib) {
    size_t sum = 0;
    for (size_t m : mib) sum += detail::class_bytes(detail::size_class(m * kMiB));
    return "cached=" + std::to_string(sum) + ";";
  };
  const struct {
    const char* environment;
    std::string expected;
  } cases[] = {
      {"", cached({20, 25, 30}) + "new=0;new=0;new=0;"},
      {"DEEPSEEK_CACHE_LIMIT=70M", cached({25, 30}) + "new=0;new=0;new=1;"},
      {"DEEPSEEK_CACHE_LIMIT=0", "cached=0;new=1;new=2;new=3;"},
      {"DEEPSEEK_CACHE_LIMIT=lots", "ValueError: DEEPSEEK_CACHE_LIMIT"},
  };
  for (const auto& c : cases)
    EXPECT_THAT(testing::run_child_test(c.environment, "CacheLimit.DISABLED_Print").output, HasSubstr(c.expected));
}

}  // namespace
}  // namespace deepseek
