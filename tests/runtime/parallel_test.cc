#include "runtime/parallel.h"

#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "base/check.h"
#include "gmock/gmock.h"
#include "runtime/cgroup.h"
#include "tests/runtime/runtime_testing.h"

namespace deepseek {
namespace {

using ::testing::HasSubstr;

// Restores the thread count that other tests see.
class Parallel : public ::testing::Test {
 protected:
  void TearDown() override { set_num_threads(before_); }
  int before_ = num_threads();
};

// Waits until `flag` holds; false after ten seconds.
template <class F>
bool eventually(F flag) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!flag()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

TEST_F(Parallel, VisitsEveryElementOnce) {
  for (int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    for (int64_t n : {0, 1, 2, 3, 7, 8, 9, 100, 1001}) {
      for (int64_t grain : {-1, 0, 1, 2, 7, 1000, 1 << 20}) {
        std::vector<std::atomic<int>> visits(n);
        std::atomic<int> calls{0};
        parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          ++calls;
          EXPECT_LT(begin, end);
          for (int64_t i = begin; i < end; ++i) ++visits[i];
        });
        for (int64_t i = 0; i < n; ++i) ASSERT_EQ(visits[i], 1) << n << " " << grain << " " << threads;
        EXPECT_LE(calls, threads * 4);
        if (n <= grain) {
          EXPECT_EQ(calls, n > 0);
        }
      }
    }
  }
}

TEST_F(Parallel, GrainLimitCutsSmallWork) {
  set_num_threads(3);
  const auto calls = [] {
    std::atomic<int> n{0};
    parallel_for(9, 1000, [&](int64_t, int64_t) { ++n; });
    return n.load();
  };
  EXPECT_EQ(calls(), 1);
  set_grain_limit(4);
  EXPECT_EQ(limited_grain(1000), 4);
  EXPECT_EQ(limited_grain(2), 2);
  EXPECT_EQ(calls(), 3);
  set_grain_limit(0);
  EXPECT_EQ(limited_grain(1000), 1000);
  EXPECT_EQ(calls(), 1);
  EXPECT_THROW(set_grain_limit(-1), Error);
}

TEST_F(Parallel, RangesRunAtTheSameTime) {
  set_num_threads(2);
  std::atomic<int> arrived{0};
  std::atomic<int> saw_both{0};
  parallel_for(2, 1, [&](int64_t, int64_t) {
    ++arrived;
    saw_both += eventually([&] { return arrived == 2; });
  });
  EXPECT_EQ(saw_both, 2);
}

TEST_F(Parallel, NestedRegionsAreSerial) {
  set_num_threads(4);
  std::atomic<int> inner_calls{0};
  parallel_for(4, 1, [&](int64_t begin, int64_t end) {
    EXPECT_TRUE(in_parallel_region());
    const auto outer = std::this_thread::get_id();
    for (int64_t i = begin; i < end; ++i) {
      parallel_for(100, 1, [&](int64_t b, int64_t e) {
        ++inner_calls;
        EXPECT_EQ(b, 0);
        EXPECT_EQ(e, 100);
        EXPECT_EQ(std::this_thread::get_id(), outer);
      });
    }
  });
  EXPECT_EQ(inner_calls, 4);
  EXPECT_FALSE(in_parallel_region());
}

TEST_F(Parallel, ExceptionOfTheLowestRangeArrivesAndThePoolLives) {
  set_num_threads(4);
  for (int repeat = 0; repeat < 50; ++repeat) {
    try {
      parallel_for(4, 1, [](int64_t begin, int64_t) { DS_CHECK_AS(IndexError, begin == 0, "range ", begin); });
      FAIL() << "nothing was thrown";
    } catch (const IndexError& error) {
      EXPECT_STREQ(error.what(), "range 1");
    }
    std::atomic<int64_t> sum{0};
    parallel_for(100, 1, [&](int64_t b, int64_t e) { sum += e - b; });
    EXPECT_EQ(sum, 100);
    EXPECT_FALSE(in_parallel_region());
  }
  EXPECT_THROW(parallel_for(1, 10, [](int64_t, int64_t) { fail("serial"); }), Error);
}

TEST_F(Parallel, SerialWhileAnotherThreadIsInARegion) {
  set_num_threads(2);
  std::atomic<int> inside{0};
  std::atomic<bool> leave{false};
  std::thread other([&] {
    parallel_for(2, 1, [&](int64_t, int64_t) {
      ++inside;
      eventually([&] { return leave.load(); });
    });
  });
  ASSERT_TRUE(eventually([&] { return inside == 2; }));
  int calls = 0;
  parallel_for(1000, 1, [&](int64_t begin, int64_t end) {
    ++calls;
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 1000);
  });
  EXPECT_EQ(calls, 1);
  leave = true;
  other.join();
}

// Workers that are asleep, awake, late or surplus: each piece runs once, and none after its region.
TEST_F(Parallel, ManyRegionsOfChangingSize) {
  std::vector<int> visits(64);
  for (int region = 0; region < 6000; ++region) {
    set_num_threads(1 + region % 5);
    const int64_t n = 1 + region % 64;
    std::fill(visits.begin(), visits.end(), 0);
    parallel_for(n, 1 + region % 3, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++visits[i];
    });
    for (int64_t i = 0; i < 64; ++i) ASSERT_EQ(visits[i], i < n) << region;
    if (region % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST_F(Parallel, UserThreadsDoNotMultiplyThePool) {
  constexpr int kUsers = 12, kThreads = 3;
  set_num_threads(kThreads);
  parallel_for(3, 1, [](int64_t, int64_t) {});
  const auto tasks = [] {
    const std::filesystem::directory_iterator all("/proc/self/task");
    return static_cast<int>(std::distance(begin(all), end(all)));
  };
  const int before = tasks();
  std::atomic<int> ready{0}, turn{0};
  std::atomic<bool> leave{false};
  std::vector<std::thread> users;
  std::atomic<int64_t> total{0};
  for (int u = 0; u < kUsers; ++u) {
    users.emplace_back([&, u] {
      // One after the other, so that each would get its own workers; then all at once.
      eventually([&] { return turn == u; });
      parallel_for(3, 1, [&](int64_t b, int64_t e) { total += e - b; });
      ++turn;
      eventually([&] { return turn == kUsers; });
      for (int i = 0; i < 200; ++i) parallel_for(30, 1, [&](int64_t b, int64_t e) { total += e - b; });
      ++ready;
      eventually([&] { return leave.load(); });
    });
  }
  ASSERT_TRUE(eventually([&] { return ready == kUsers; }));
  EXPECT_EQ(tasks() - before, kUsers);
  leave = true;
  for (auto& user : users) user.join();
  EXPECT_EQ(total, kUsers * (3 + 200 * 30));
}

TEST_F(Parallel, ThreadsWithoutOwnWorkersStillRunInParallel) {
  set_num_threads(2);
  std::vector<std::thread> users;
  std::atomic<int> turn{0}, parallel{0};
  constexpr int kUsers = 5;
  for (int u = 0; u < kUsers; ++u) {
    users.emplace_back([&, u] {
      eventually([&] { return turn == u; });
      std::atomic<int> arrived{0};
      parallel_for(2, 1, [&](int64_t, int64_t) {
        ++arrived;
        parallel += eventually([&] { return arrived == 2; });
      });
      try {
        parallel_for(2, 1, [](int64_t, int64_t) { fail("from a region"); });
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Error&) {
      }
      ++turn;
      eventually([&] { return turn == kUsers; });
    });
  }
  for (auto& user : users) user.join();
  EXPECT_EQ(parallel, 2 * kUsers);
}

TEST_F(Parallel, SetNumThreads) {
  EXPECT_THROW(set_num_threads(0), Error);
  EXPECT_THROW(set_num_threads(-3), Error);
  set_num_threads(5);
  EXPECT_EQ(num_threads(), 5);
  EXPECT_THAT(num_threads_reason(), HasSubstr("set_num_threads"));
}

// --- fork ---

// Runs f in a forked child under an alarm; returns its exit code, or minus the signal that ended it.
template <class F>
int in_forked_child(F f) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    _exit(f());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST_F(Parallel, ForkedChildIsSerialUntilItAsks) {
  if (DS_TSAN) GTEST_SKIP() << "ThreadSanitizer does not support threads after fork";
  set_num_threads(3);
  for (int repeat = 0; repeat < 20; ++repeat) {
    // All have started: a thread that is starting holds locks of AddressSanitizer's, which a child inherits.
    std::atomic<int> here{0};
    parallel_for(3, 1, [&](int64_t, int64_t) {
      ++here;
      eventually([&] { return here == 3; });
    });
    const int code = in_forked_child([] {
      if (num_threads() != 1) return 2;
      if (std::string(num_threads_reason()).find("forked") == std::string::npos) return 3;
      int calls = 0;
      parallel_for(1000, 1, [&](int64_t, int64_t) { ++calls; });
      if (calls != 1) return 4;
      set_num_threads(2);
      std::atomic<int> arrived{0}, both{0};
      parallel_for(2, 1, [&](int64_t, int64_t) {
        ++arrived;
        both += eventually([&] { return arrived == 2; });
      });
      if (both != 2) return 6;
      try {
        parallel_for(2, 1, [](int64_t begin, int64_t) { DS_CHECK(begin == 0, "second"); });
        return 7;
      } catch (const Error&) {
      }
      return 0;
    });
    ASSERT_EQ(code, 0);
  }
}

TEST_F(Parallel, ForkWhileAnotherThreadIsInARegion) {
  if (DS_TSAN) GTEST_SKIP() << "ThreadSanitizer does not support threads after fork";
  set_num_threads(2);
  std::atomic<bool> leave{false};
  std::atomic<int> inside{0};
  std::thread other([&] {
    parallel_for(2, 1, [&](int64_t, int64_t) {
      ++inside;
      eventually([&] { return leave.load(); });
    });
  });
  ASSERT_TRUE(eventually([&] { return inside == 2; }));
  const int code = in_forked_child([] {
    set_num_threads(2);
    std::atomic<int> calls{0};
    parallel_for(2, 1, [&](int64_t, int64_t) { ++calls; });
    return calls == 2 ? 0 : 1;  // the copied "busy" mark of a thread that is not here must not count
  });
  leave = true;
  other.join();
  EXPECT_EQ(code, 0);
}

// --- the default ---

TEST(ParallelDefault, DISABLED_Print) {
  try {
    std::printf("threads=%d;\n%s;\n", num_threads(), num_threads_reason());
  } catch (const ValueError& error) {
    std::printf("ValueError: %s\n", error.what());
  }
}

TEST(ParallelDefault, ComesFromAffinityQuotaAndEnvironment) {
  const auto quota = cgroup_cpu_quota();
  int machine = affinity_count();
  if (quota) machine = std::min(machine, std::max(1, static_cast<int>(std::ceil(*quota))));
  const struct {
    const char* environment;
    std::string expected;
  } cases[] = {
      {"", "threads=" + std::to_string(machine) + ";"},
      {"", "OMP_NUM_THREADS unset;"},
      {"OMP_NUM_THREADS=1", "threads=1;"},
      {"OMP_NUM_THREADS=1,4", "threads=1;"},
      {"OMP_NUM_THREADS=100000", "threads=" + std::to_string(machine) + ";"},
      {"DEEPSEEK_NUM_THREADS=7", "threads=7;"},
      {"OMP_NUM_THREADS=1 DEEPSEEK_NUM_THREADS=3", "overridden by DEEPSEEK_NUM_THREADS 3;"},
      {"DEEPSEEK_NUM_THREADS=0", "ValueError: DEEPSEEK_NUM_THREADS must be a positive integer, got \"0\""},
      {"DEEPSEEK_NUM_THREADS=two", "ValueError"},
      {"DEEPSEEK_NUM_THREADS=99999999999999999999", "ValueError"},
  };
  for (const auto& c : cases)
    EXPECT_THAT(testing::run_child_test(c.environment, "ParallelDefault.DISABLED_Print").output, HasSubstr(c.expected))
        << c.environment;
  cpu_set_t one;
  ASSERT_EQ(sched_getaffinity(0, sizeof one, &one), 0);
  int first = 0;
  while (!CPU_ISSET(first, &one)) ++first;
  EXPECT_THAT(testing::run_child_test("taskset -c " + std::to_string(first), "ParallelDefault.DISABLED_Print").output,
              HasSubstr("affinity 1,"));
}

}  // namespace
}  // namespace deepseek
