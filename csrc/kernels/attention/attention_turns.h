// The order in which threads add to the gradients of queries.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace deepseek::kernels {

// Gradients of queries are summed over the tiles of keys in order: block n of a key head may add to a panel of rows
// when block n - 1 has. Blocks start in that order, so the earliest that runs never waits, whatever the threads do.
class Turns {
 public:
  Turns(int64_t heads, int64_t panels) : panels_(panels), next_(static_cast<size_t>(heads * panels)) {}
  void wait(int64_t head, int64_t panel, int64_t block) const {
    const auto& next = next_[static_cast<size_t>(head * panels_ + panel)];
    for (int spins = 0; next.load(std::memory_order_acquire) != block;)
      if (++spins > 1000) std::this_thread::yield();
  }
  void done(int64_t head, int64_t panel, int64_t block) {
    next_[static_cast<size_t>(head * panels_ + panel)].store(block + 1, std::memory_order_release);
  }

 private:
  int64_t panels_;
  std::vector<std::atomic<int64_t>> next_;
};

}  // namespace deepseek::kernels
