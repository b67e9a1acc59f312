#include "runtime/cgroup.h"

#include <filesystem>
#include <fstream>
#include <limits>

#include "gtest/gtest.h"

namespace deepseek {
namespace {

// A folder that stands for the root of another machine.
class Cgroup : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "cgroup_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void v2(const std::string& path, const std::string& mount_root = "/") {
    write("/proc/self/cgroup", "0::" + path + "\n");
    write("/proc/self/mountinfo", "22 1 0:20 / /proc rw - proc proc rw\n30 22 0:26 " + mount_root +
                                      " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void v1(const std::string& path, const std::string& mount_root = "/") {
    write("/proc/self/cgroup", "5:cpu,cpuacct:" + path + "\n4:memory:" + path + "\n0::/\n");
    write("/proc/self/mountinfo",
          "31 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
          "32 23 0:29 " +
              mount_root +
              " /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n"
              "33 23 0:30 " +
              mount_root + " /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  }
  void meminfo(int64_t total_kib, int64_t available_kib) {
    write("/proc/meminfo", "MemTotal:       " + std::to_string(total_kib) +
                               " kB\nMemFree: 1 kB\nMemAvailable:   " + std::to_string(available_kib) + " kB\n");
  }

  std::string root_;
};

constexpr int64_t kMiB = 1 << 20;

TEST_F(Cgroup, NothingKnown) {
  EXPECT_EQ(cgroup_cpu_quota(root_), std::nullopt);
  EXPECT_EQ(available_memory(root_), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(total_memory(root_), std::numeric_limits<int64_t>::max());
}

TEST_F(Cgroup, V2SmallestQuotaOnTheWayUp) {
  v2("/a/b");
  write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), std::nullopt);
  write("/sys/fs/cgroup/a/cpu.max", "250000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 2.5);
  write("/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 0.5);
}

TEST_F(Cgroup, V2InAContainerWithItsOwnNamespace) {
  v2("/");
  write("/sys/fs/cgroup/cpu.max", "400000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 4.0);
}

TEST_F(Cgroup, PathThatLeavesTheMountCountsFromTheMount) {
  v2("/../other");
  write("/sys/fs/cgroup/cpu.max", "300000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 3.0);
}

TEST_F(Cgroup, V1QuotaAndAbsentQuota) {
  v1("/job");
  write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
  write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), std::nullopt);
  write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "150000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 1.5);
}

TEST_F(Cgroup, V1MountThatShowsOnlyTheContainer) {
  v1("/docker/abc", "/docker/abc");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 2.0);
}

TEST_F(Cgroup, MemoryIsTheSmallerOfMachineAndHeadroom) {
  v2("/job");
  meminfo(64 * 1024, 32 * 1024);
  EXPECT_EQ(total_memory(root_), 64 * kMiB);
  EXPECT_EQ(available_memory(root_), 32 * kMiB);
  write("/sys/fs/cgroup/job/memory.max", "max\n");
  write("/sys/fs/cgroup/job/memory.current", std::to_string(18 * kMiB));
  EXPECT_EQ(available_memory(root_), 32 * kMiB);
  write("/sys/fs/cgroup/job/memory.max", std::to_string(20 * kMiB));
  EXPECT_EQ(available_memory(root_), 2 * kMiB);
  EXPECT_EQ(total_memory(root_), 20 * kMiB);
  write("/sys/fs/cgroup/job/memory.stat", "anon 1\ninactive_file " + std::to_string(8 * kMiB) + "\n");
  EXPECT_EQ(available_memory(root_), 10 * kMiB);
  write("/sys/fs/cgroup/job/memory.current", std::to_string(40 * kMiB));
  EXPECT_EQ(available_memory(root_), 0);
}

TEST_F(Cgroup, V1Memory) {
  v1("/job");
  meminfo(64 * 1024, 60 * 1024);
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", std::to_string(10 * kMiB));
  write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", std::to_string(6 * kMiB));
  write("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 5\ntotal_inactive_file " + std::to_string(kMiB) + "\n");
  EXPECT_EQ(available_memory(root_), 5 * kMiB);
  EXPECT_EQ(total_memory(root_), 10 * kMiB);
}

TEST(CgroupOfThisMachine, IsPlausible) {
  EXPECT_GE(affinity_count(), 1);
  EXPECT_GT(available_memory(), 0);
  EXPECT_LE(available_memory(), total_memory());
  EXPECT_LT(total_memory(), std::numeric_limits<int64_t>::max());
}

}  // namespace
}  // namespace deepseek
