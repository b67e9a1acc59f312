#include "base/small_vector.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace deepseek {
namespace {

// Counts live objects, so leaks and double destruction show.
struct Tracked {
  static inline int live = 0;
  int value;
  Tracked(int v = 0) : value(v) { ++live; }
  Tracked(const Tracked& o) : value(o.value) { ++live; }
  Tracked(Tracked&& o) noexcept : value(std::exchange(o.value, -1)) { ++live; }
  Tracked& operator=(const Tracked&) = default;
  Tracked& operator=(Tracked&& o) noexcept {
    value = std::exchange(o.value, -1);
    return *this;
  }
  ~Tracked() { --live; }
};
using Small = SmallVector<Tracked, 3>;

Small counted(int n) {
  Small v;
  for (int i = 0; i < n; ++i) v.push_back(i);
  return v;
}
std::vector<int> values(const Small& v) {
  std::vector<int> out;
  for (const Tracked& t : v) out.push_back(t.value);
  return out;
}

TEST(SmallVector, EveryPairOfLengthsCopiesAndMoves) {
  for (int from : {0, 1, 3, 4, 20})
    for (int to : {0, 2, 3, 4, 20}) {
      const std::vector<int> expected = values(counted(from));
      Small target = counted(to), source = counted(from);
      target = source;
      EXPECT_EQ(values(target), expected);
      EXPECT_EQ(values(source), expected);
      target = counted(to);
      target = std::move(source);
      EXPECT_EQ(values(target), expected);
      EXPECT_TRUE(source.empty());
      source.push_back(5);  // a moved-from vector is empty and usable
      EXPECT_EQ(values(source), std::vector<int>{5});
      const Small copy(target), moved(std::move(target));
      EXPECT_EQ(values(copy), expected);
      EXPECT_EQ(values(moved), expected);
    }
  EXPECT_EQ(Tracked::live, 0);
}

TEST(SmallVector, PlainValuesAreCopiedMovedAndAppendedLikeAnyOther) {
  for (int from : {0, 1, 3, 4, 20})
    for (int to : {0, 2, 3, 4, 20}) {
      SmallVector<int, 3> source, target(static_cast<size_t>(to));
      for (int i = 0; i < from; ++i) source.push_back(i);
      target = source;
      target.append(source);
      std::vector<int> expected;
      for (int i = 0; i < 2 * from; ++i) expected.push_back(i % from);
      EXPECT_TRUE(std::ranges::equal(target, expected));
      const SmallVector<int, 3> moved(std::move(target)), copy(moved);
      EXPECT_TRUE(target.empty());
      EXPECT_TRUE(std::ranges::equal(moved, expected) && std::ranges::equal(copy, expected));
    }
}

TEST(SmallVector, SelfAssignmentKeepsValues) {
  for (int n : {2, 9}) {
    Small v = counted(n);
    Small& alias = v;
    v = alias;
    EXPECT_EQ(values(v), values(counted(n)));
    v = std::move(alias);
    EXPECT_EQ(values(v), values(counted(n)));
  }
}

TEST(SmallVector, ResizePopAndClear) {
  {
    Small v = counted(5);
    v.resize(2);
    EXPECT_EQ(values(v), (std::vector<int>{0, 1}));
    v.resize(7);
    EXPECT_EQ(values(v), (std::vector<int>{0, 1, 0, 0, 0, 0, 0}));
    v.pop_back();
    EXPECT_EQ(v.size(), 6u);
    EXPECT_EQ(v.back().value, 0);
    v.clear();
    EXPECT_TRUE(v.empty());
    EXPECT_EQ(Tracked::live, 0);
    v.emplace_back(4);
    EXPECT_EQ(v[0].value, 4);
  }
  EXPECT_EQ(Tracked::live, 0);
}

TEST(SmallVector, PushingAnElementOfItselfWhileGrowing) {
  SmallVector<std::string, 2> v{"a long enough string to live on the heap", "b"};
  v.push_back(v[0]);
  EXPECT_EQ(v[2], v[0]);
  for (int i = 0; i < 20; ++i) v.push_back(v[0]);
  EXPECT_EQ(v.back(), "a long enough string to live on the heap");
}

TEST(SmallVector, HoldsMoveOnlyAndOverAlignedTypes) {
  SmallVector<std::unique_ptr<int>, 1> owners;
  for (int i = 0; i < 5; ++i) owners.push_back(std::make_unique<int>(i));
  SmallVector<std::unique_ptr<int>, 1> taken = std::move(owners);
  EXPECT_EQ(*taken[4], 4);
  SmallVector<long double, 2> wide;
  for (int i = 0; i < 9; ++i) wide.push_back(i);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(wide.data()) % alignof(long double), 0u);
  EXPECT_EQ(wide[8], 8.0L);
}

}  // namespace
}  // namespace deepseek
