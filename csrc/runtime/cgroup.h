// What the process may use of the machine: control groups (v1 and v2), affinity and free memory.
// `root` is put before /proc and /sys paths, so that tests can show other machines.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace deepseek {

// CPUs' worth of run time a period (the smallest quota on the way to the root), or none.
std::optional<double> cgroup_cpu_quota(const std::string& root = "");

// CPUs this process may be scheduled on.
int affinity_count();

// Bytes that can still be allocated: min(what every cgroup limit leaves, MemAvailable). File pages that the kernel can
// drop count as free. INT64_MAX when nothing tells.
int64_t available_memory(const std::string& root = "");

// min(MemTotal, the smallest cgroup limit).
int64_t total_memory(const std::string& root = "");

}  // namespace deepseek
