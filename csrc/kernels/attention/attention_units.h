// The units of work of several tasks as one row of numbers, for share_units.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace deepseek::kernels {

class UnitQueue {
 public:
  // The next task has so many units.
  void add(int64_t units, double flops_per_unit) {
    tasks_.push_back({tasks_.size(), units, flops_per_unit});
    units_ += units;
    flops_ += static_cast<double>(units) * flops_per_unit;
  }
  // Tasks with costly units come first, so that the cheap ones fill the gaps at the end.
  void sort() {
    std::stable_sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) { return a.flops > b.flops; });
    starts_.clear();
    int64_t start = 0;
    for (const Task& task : tasks_) starts_.push_back(start), start += task.units;
  }
  int64_t units() const { return units_; }
  double flops_per_unit() const { return flops_ / static_cast<double>(std::max<int64_t>(units_, 1)); }

  struct Place {
    size_t task = 0;   // in the order of add()
    int64_t unit = 0;  // of the task
  };
  Place place(int64_t unit) const {
    const auto at = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), unit) - starts_.begin()) - 1;
    return {tasks_[at].index, unit - starts_[at]};
  }

 private:
  struct Task {
    size_t index;
    int64_t units;
    double flops;  // of one unit
  };
  std::vector<Task> tasks_ = {};
  std::vector<int64_t> starts_ = {};
  int64_t units_ = 0;
  double flops_ = 0;
};

}  // namespace deepseek::kernels
