#include "base/dims.h"

#include <limits>

#include "base/check.h"
#include "gtest/gtest.h"

namespace deepseek {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(Dims, Edits) {
  Dims d{2, 3};
  d.push_back(5);
  EXPECT_EQ(d, (Dims{2, 3, 5}));
  d.insert(0, 7);
  d.insert(2, 8);
  d.insert(5, 9);
  EXPECT_EQ(d, (Dims{7, 2, 8, 3, 5, 9}));
  d.erase(5);
  d.erase(0);
  d.erase(1);
  EXPECT_EQ(d, (Dims{2, 3, 5}));
  d.pop_back();
  d.resize(4, 1);
  EXPECT_EQ(d, (Dims{2, 3, 1, 1}));
  d.resize(1);
  EXPECT_EQ(d, (Dims{2}));
  EXPECT_EQ(d.back(), 2);
  EXPECT_EQ(d, Dims{2});
  EXPECT_NE(d, (Dims{2, 1}));
  EXPECT_TRUE(Dims{}.empty());
  EXPECT_EQ(Dims::filled(3, 4), (Dims{4, 4, 4}));
}

TEST(Dims, AtMostEight) {
  Dims d = Dims::filled(8, 1);
  EXPECT_THROW(d.push_back(1), Error);
  EXPECT_THROW(d.insert(0, 1), Error);
  EXPECT_THROW(d.resize(9), Error);
  EXPECT_THROW((Dims{1, 2, 3, 4, 5, 6, 7, 8, 9}), Error);
  EXPECT_EQ(d, Dims::filled(8, 1));
}

TEST(Dims, Prints) {
  std::ostringstream out;
  out << Dims{} << Dims{1} << Dims{1, -2};
  EXPECT_EQ(out.str(), "[][1][1, -2]");
}

TEST(Dims, Numel) {
  EXPECT_EQ(numel_of({}), 1);
  EXPECT_EQ(numel_of({2, 3, 4}), 24);
  EXPECT_EQ(numel_of({2, 0, 4}), 0);
  EXPECT_EQ(numel_of({int64_t{1} << 32, (int64_t{1} << 31) - 1}), (int64_t{1} << 32) * ((int64_t{1} << 31) - 1));
  EXPECT_EQ(numel_of({kMax}), kMax);
  EXPECT_THROW(numel_of({kMax, 2}), Error);
  EXPECT_THROW(numel_of({int64_t{1} << 32, int64_t{1} << 32}), Error);
  EXPECT_THROW(numel_of({3, -1}), Error);
  EXPECT_EQ(numel_of({0, kMax, kMax}), 0);
}

TEST(Dims, ContiguousStrides) {
  EXPECT_EQ(contiguous_strides({2, 3, 4}), (Dims{12, 4, 1}));
  EXPECT_EQ(contiguous_strides({5}), (Dims{1}));
  EXPECT_EQ(contiguous_strides({2, 0, 3}), (Dims{3, 3, 1}));
  EXPECT_TRUE(contiguous_strides({}).empty());
}

TEST(Dims, IsContiguous) {
  const struct {
    Dims sizes, strides;
    bool expected;
  } cases[] = {
      {{}, {}, true},          {{2, 3}, {3, 1}, true},  {{2, 3}, {1, 2}, false},
      {{2, 3}, {6, 2}, false}, {{1, 3}, {99, 1}, true}, {{3, 1}, {1, 99}, true},
      {{3, 2}, {0, 1}, false}, {{0, 3}, {1, 5}, true},  // no elements: any strides
      {{3, 0}, {7, 7}, true},  {{3}, {-1}, false},
  };
  for (const auto& c : cases) EXPECT_EQ(is_contiguous(c.sizes, c.strides), c.expected) << c.sizes << c.strides;
}

TEST(Dims, WrapDim) {
  EXPECT_EQ(wrap_dim("op", -1, 3), 2);
  EXPECT_EQ(wrap_dim("op", -3, 3), 0);
  EXPECT_EQ(wrap_dim("op", 2, 3), 2);
  EXPECT_EQ(wrap_dim("op", 0, 0), 0);
  EXPECT_EQ(wrap_dim("op", -1, 0), 0);
  EXPECT_THROW(wrap_dim("op", 3, 3), IndexError);
  EXPECT_THROW(wrap_dim("op", -4, 3), IndexError);
  EXPECT_THROW(wrap_dim("op", 1, 0), IndexError);
}

}  // namespace
}  // namespace deepseek
