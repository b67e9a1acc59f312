// Philox4x32-10 (Salmon et al., SC'11): element i of a draw is a function of (seed, offset + i) only.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace deepseek {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

struct RngState {
  uint64_t seed;
  uint64_t offset;  // in 128-bit Philox counters
  bool operator==(const RngState&) const = default;
};

inline constexpr uint64_t kDefaultSeed = 67280421310721;  // PyTorch's

// The position of a generator. reserve(n) hands out the state for n elements and moves on; two threads that reserve at
// the same time get disjoint states. Changing the seed while another thread reserves gives it the old or the new seed.
class Generator {
 public:
  explicit Generator(uint64_t seed = kDefaultSeed) : seed_(seed), offset_(0) {}
  Generator(const Generator& o) : seed_(o.seed_.load()), offset_(o.offset_.load()) {}
  Generator& operator=(const Generator& o) {
    set_state(o.state());
    return *this;
  }

  void manual_seed(uint64_t seed) { set_state({seed, 0}); }
  uint64_t initial_seed() const { return seed_.load(std::memory_order_relaxed); }
  RngState state() const { return {seed_.load(std::memory_order_relaxed), offset_.load(std::memory_order_relaxed)}; }
  void set_state(RngState s) {
    seed_.store(s.seed, std::memory_order_relaxed);
    offset_.store(s.offset, std::memory_order_relaxed);
  }
  RngState reserve(int64_t elements) {
    const uint64_t counters = (static_cast<uint64_t>(elements) + 3) / 4;
    return {seed_.load(std::memory_order_relaxed), offset_.fetch_add(counters, std::memory_order_relaxed)};
  }

 private:
  std::atomic<uint64_t> seed_, offset_;
};

// Shared by the whole process; starts at kDefaultSeed.
Generator& default_generator();

}  // namespace deepseek
