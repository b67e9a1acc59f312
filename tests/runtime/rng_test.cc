#include "runtime/rng.h"

#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace deepseek {
namespace {

// Random123's published known answers for philox4x32-10.
TEST(Philox, KnownAnswers) {
  const struct {
    std::array<uint32_t, 4> counter;
    std::array<uint32_t, 2> key;
    std::array<uint32_t, 4> expected;
  } cases[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto& c : cases) EXPECT_EQ(philox4x32(c.counter, c.key), c.expected);
}

TEST(Generator, ReservesWholeCounters) {
  Generator g(7);
  const struct {
    int64_t elements;
    uint64_t counters;
  } cases[] = {{0, 0}, {1, 1}, {4, 1}, {5, 2}, {1000, 250}, {int64_t{1} << 40, uint64_t{1} << 38}};
  uint64_t offset = 0;
  for (const auto& c : cases) {
    EXPECT_EQ(g.reserve(c.elements), (RngState{7, offset}));
    offset += c.counters;
    EXPECT_EQ(g.state(), (RngState{7, offset}));
  }
}

TEST(Generator, StateCopiesAndSeeds) {
  Generator g(1);
  g.reserve(100);
  const RngState saved = g.state();
  const Generator copy = g;
  g.reserve(8);
  EXPECT_EQ(copy.state(), saved);
  g.set_state(saved);
  EXPECT_EQ(g.state(), saved);
  g.manual_seed(5);
  EXPECT_EQ(g.state(), (RngState{5, 0}));
  EXPECT_EQ(g.initial_seed(), 5u);
}

TEST(Generator, DefaultSeed) {
  EXPECT_EQ(Generator().initial_seed(), 67280421310721u);
  EXPECT_EQ(&default_generator(), &default_generator());
}

TEST(Generator, ConcurrentReservesAreDisjoint) {
  Generator g;
  constexpr int kThreads = 4, kDraws = 2000;
  std::vector<std::vector<uint64_t>> offsets(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kDraws; ++i) offsets[t].push_back(g.reserve(4).offset);
    });
  for (auto& t : threads) t.join();
  std::set<uint64_t> all;
  for (const auto& o : offsets) all.insert(o.begin(), o.end());
  EXPECT_EQ(all.size(), size_t{kThreads} * kDraws);
}

}  // namespace
}  // namespace deepseek
