// Packed copies: kept while the memory is what it was, made anew after every write, freed with the storage.
#include "core/packed.h"

#include <atomic>
#include <thread>

#include "tests/core_testing.h"

namespace deepseek {
namespace {
using testing::tensor;
using testing::vector;

template <class T>
Ref<Packed> holding(T value, size_t bytes = sizeof(T)) {
  Ref<Packed> p = make_ref<Packed>(bytes);
  *p->as<T>() = value;
  return p;
}

struct Packing {
  int made = 0;
  // The sum of the first source and 100 times each other one.
  double get(Inputs sources, std::string_view layout = "sum", uint64_t variant = 0, size_t bytes = 8) {
    const Ref<Packed> p = packed(sources, {layout, variant}, [&] {
      ++made;
      double sum = 0, factor = 1;
      for (const Tensor& t : sources) {
        if (t.defined())
          for (double v : testing::values_of(t)) sum += factor * v;
        factor = 100;
      }
      return holding(sum, bytes);
    });
    return *p->as<double>();
  }
  double get(const Tensor& t) { return get(std::array{t}); }
};

TEST(Packed, IsMadeOnceAndAgainAfterAWrite) {
  const Tensor t = vector({1, 2, 3});
  Packing p;
  EXPECT_EQ(p.get(t), 6);
  EXPECT_EQ(p.get(t), 6);
  EXPECT_EQ(p.made, 1);
  add_(t, vector({1, 1, 1}));
  EXPECT_EQ(p.get(t), 9);
  EXPECT_EQ(p.get(t), 9);
  EXPECT_EQ(p.made, 2);
  EXPECT_EQ(packed_bytes(t), 8U);  // the outdated one is gone
}

TEST(Packed, AWriteThroughAViewCounts) {
  const Tensor t = vector({1, 2, 3});
  Packing p;
  EXPECT_EQ(p.get(t), 6);
  copy_(slice(t, 0, 1, 2), vector({10}));
  EXPECT_EQ(p.get(t), 14);
}

TEST(Packed, ViewsLayoutsAndVariantsAreApart) {
  const Tensor t = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  Packing p;
  EXPECT_EQ(p.get(select(t, 0, 0)), 6);
  EXPECT_EQ(p.get(select(t, 0, 1)), 15);
  EXPECT_EQ(p.get(transpose(t, 0, 1)), 21);
  EXPECT_EQ(p.get(t), 21);
  EXPECT_EQ(p.get(std::array{t}, "other"), 21);
  EXPECT_EQ(p.get(std::array{t}, "sum", 7), 21);
  EXPECT_EQ(p.made, 6);
  EXPECT_EQ(packed_bytes(t), 48U);
  p.get(select(t, 0, 0));
  p.get(select(t, 0, 1));
  p.get(std::array{t}, "sum", 7);
  EXPECT_EQ(p.made, 6);
}

TEST(Packed, OtherSourcesCount) {
  const Tensor t = vector({1, 2});
  Tensor scale = vector({1});
  Packing p;
  EXPECT_EQ(p.get(std::array{t, scale}), 103);
  EXPECT_EQ(p.get(std::array{t, scale}), 103);
  EXPECT_EQ(p.made, 1);
  add_(scale, vector({1}));
  EXPECT_EQ(p.get(std::array{t, scale}), 203);
  EXPECT_EQ(packed_bytes(t), 8U);
  scale = vector({5});  // other memory, kept apart although the old one is dropped
  EXPECT_EQ(p.get(std::array{t, scale}), 503);
  EXPECT_EQ(p.get(std::array{t, Tensor()}), 3);
  EXPECT_EQ(p.made, 4);
}

TEST(Packed, ASourceInTheSameStorageDoesNotKeepItAlive) {
  const int64_t before = memory_stats().allocated_bytes;
  {
    const Tensor t = vector(std::vector<double>(1000, 1.0));
    Packing p;
    EXPECT_EQ(p.get(std::array{slice(t, 0, 0, 900), slice(t, 0, 900, 1000)}), 10900);
  }
  EXPECT_EQ(memory_stats().allocated_bytes, before);
}

TEST(Packed, BytesCountAndAreFreedWithTheStorage) {
  const int64_t before = memory_stats().allocated_bytes;
  {
    const Tensor t = vector({1, 2});
    const int64_t with_tensor = memory_stats().allocated_bytes;
    Packing p;
    p.get(std::array{t}, "sum", 0, 1 << 20);
    EXPECT_GE(memory_stats().allocated_bytes, with_tensor + (1 << 20));
    EXPECT_EQ(packed_bytes(t), size_t{1} << 20);
  }
  EXPECT_EQ(memory_stats().allocated_bytes, before);
}

TEST(Packed, AHolderMayReadOnAfterTheStorageIsGone) {
  Ref<Packed> held;
  {
    const Tensor t = vector({1, 2});
    held = packed(std::array{t}, {"held"}, [] { return holding(42.0); });
  }
  EXPECT_EQ(*held->as<double>(), 42);
}

TEST(Packed, MemoryInOtherHandsIsPackedEveryTime) {
  const Tensor t = vector({1, 2});
  Packing p;
  EXPECT_EQ(p.get(t), 3);
  t.storage()->expose();
  t.data<double>()[0] = 5;  // a write that version() does not see
  EXPECT_EQ(p.get(t), 7);
  t.data<double>()[0] = 6;
  EXPECT_EQ(p.get(t), 8);
}

TEST(Packed, AFailureLeavesNothingBehind) {
  const Tensor t = vector({1, 2});
  const auto refuse = []() -> Ref<Packed> { fail("no"); };
  EXPECT_THROW(packed(std::array{t}, {"sum"}, refuse), Error);
  Packing p;
  EXPECT_EQ(p.get(t), 3);
  EXPECT_EQ(p.made, 1);
}

TEST(Packed, ThreadsAgree) {
  for (int round = 0; round < 20; ++round) {
    const Tensor t = vector({1, 2, 3});
    std::atomic<int> right = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&, i] {
        for (uint64_t k = 0; k < 50; ++k) {
          const uint64_t variant = (k + static_cast<uint64_t>(i)) % 5;
          const Ref<Packed> p = packed(std::array{t}, {"threads", variant}, [&] { return holding(variant); });
          right += *p->as<uint64_t>() == variant;
        }
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(right, 200);
    EXPECT_EQ(packed_bytes(t), 40U);
  }
}

}  // namespace
}  // namespace deepseek
