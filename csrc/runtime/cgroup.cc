#include "runtime/cgroup.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

namespace deepseek {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

bool lists(const std::string& comma_separated, const std::string& name) {
  std::istringstream in(comma_separated);
  for (std::string item; std::getline(in, item, ',');)
    if (item == name) return true;
  return false;
}

// The folders that hold the controller's files, from the process's own group up to the mount point.
struct Hierarchy {
  bool v2 = false;
  std::vector<std::string> folders;
};

struct Group {
  bool v2 = false;
  std::string path;
};

// Lines are "id:controller,controller:/path"; v2 has no controllers. A v1 hierarchy that owns the controller wins.
std::optional<Group> find_group(const std::string& root, const std::string& controller) {
  std::ifstream in(root + "/proc/self/cgroup");
  std::optional<Group> found;
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    if (first == std::string::npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (lists(controllers, controller)) return Group{false, line.substr(second + 1)};
    if (controllers.empty()) found = Group{true, line.substr(second + 1)};
  }
  return found;
}

struct Mount {
  std::string root, point;  // `root` is the group that the mount point shows
};

// Fields: id, parent, major:minor, root, mount point, options, any optional ones, "-", type, source, super options.
std::optional<Mount> find_mount(const std::string& root, const std::string& controller, bool v2) {
  std::ifstream in(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string skip, type, source, options;
    Mount mount;
    fields >> skip >> skip >> skip >> mount.root >> mount.point;
    while (fields >> skip && skip != "-") {
    }
    fields >> type >> source >> options;
    if (v2 ? type == "cgroup2" : type == "cgroup" && lists(options, controller)) return mount;
  }
  return std::nullopt;
}

Hierarchy hierarchy(const std::string& root, const std::string& controller) {
  Hierarchy h;
  const auto group = find_group(root, controller);
  if (!group) return h;
  const auto mount = find_mount(root, controller, group->v2);
  if (!mount) return h;
  h.v2 = group->v2;
  // Inside a container the mount may show only the container's group, while the path counts from the host's root.
  std::string path = group->path;
  if (mount->root != "/" && path.compare(0, mount->root.size(), mount->root) == 0) path.erase(0, mount->root.size());
  if (path.find("/..") != std::string::npos) path.clear();
  while (!path.empty() && path.back() == '/') path.pop_back();
  for (;;) {
    h.folders.push_back(root + mount->point + path);
    if (path.empty()) return h;
    path.erase(std::min(path.rfind('/'), path.size()));
  }
}

// The first number in a one-line file; none for "max", an empty or an absent file.
std::optional<int64_t> read_number(const std::string& file) {
  std::ifstream in(file);
  int64_t value;
  return in >> value ? std::optional(value) : std::nullopt;
}

// The number after `key` in a file of "key value" or "key: value kB" lines.
std::optional<int64_t> read_field(const std::string& file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string name;
    int64_t value;
    if (fields >> name >> value && name == key) return value;
  }
  return std::nullopt;
}

std::optional<double> quota_in(const std::string& folder, bool v2) {
  double quota = -1, period = 0;
  if (v2) {
    std::ifstream(folder + "/cpu.max") >> quota >> period;  // "max 100000" leaves quota at 0
  } else {
    quota = static_cast<double>(read_number(folder + "/cpu.cfs_quota_us").value_or(-1));
    period = static_cast<double>(read_number(folder + "/cpu.cfs_period_us").value_or(0));
  }
  return quota > 0 && period > 0 ? std::optional(quota / period) : std::nullopt;
}

std::optional<int64_t> memory_limit_in(const std::string& folder, bool v2) {
  return read_number(folder + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
}

int64_t memory_headroom_in(const std::string& folder, bool v2) {
  const auto limit = memory_limit_in(folder, v2);
  const auto used = read_number(folder + (v2 ? "/memory.current" : "/memory.usage_in_bytes"));
  if (!limit || !used) return kUnlimited;
  const int64_t droppable =
      read_field(folder + "/memory.stat", v2 ? "inactive_file" : "total_inactive_file").value_or(0);
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *used - droppable));
}

int64_t meminfo(const std::string& root, const char* key) {
  const auto kib = read_field(root + "/proc/meminfo", key);
  return kib ? *kib * 1024 : kUnlimited;
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const std::string& root) {
  const Hierarchy h = hierarchy(root, "cpu");
  std::optional<double> smallest;
  for (const std::string& folder : h.folders)
    if (const auto quota = quota_in(folder, h.v2); quota && (!smallest || *quota < *smallest)) smallest = quota;
  return smallest;
}

int affinity_count() {
  // The fixed-size cpu_set_t holds 1024 CPUs; the call fails with EINVAL on larger machines until the set fits.
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(cpus);
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(cpus);
    const int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
  return static_cast<int>(std::max<long>(1, sysconf(_SC_NPROCESSORS_ONLN)));
}

int64_t available_memory(const std::string& root) {
  int64_t bytes = meminfo(root, "MemAvailable:");
  const Hierarchy h = hierarchy(root, "memory");
  for (const std::string& folder : h.folders) bytes = std::min(bytes, memory_headroom_in(folder, h.v2));
  return bytes;
}

int64_t total_memory(const std::string& root) {
  int64_t bytes = meminfo(root, "MemTotal:");
  const Hierarchy h = hierarchy(root, "memory");
  for (const std::string& folder : h.folders)
    bytes = std::min(bytes, memory_limit_in(folder, h.v2).value_or(kUnlimited));
  return bytes;
}

}  // namespace deepseek
