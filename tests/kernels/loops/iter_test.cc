#include "kernels/loops/iter.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Case {
  const char* what;
  Dims sizes;
  std::vector<Dims> strides;  // of each operand
  Dims collapsed;
};

const Case kCases[] = {
    {"scalar", {}, {{}, {}}, {1}},
    {"contiguous", {2, 3, 4}, {{12, 4, 1}, {12, 4, 1}}, {24}},
    {"size one dims", {1, 5, 1, 2}, {{10, 2, 2, 1}, {7, 2, 3, 1}}, {10}},
    {"one transposed operand", {3, 4}, {{4, 1}, {1, 3}}, {3, 4}},
    {"both transposed", {3, 4}, {{1, 3}, {1, 3}}, {12}},
    {"permuted alike", {2, 3, 4}, {{1, 8, 2}, {1, 8, 2}}, {24}},
    {"row broadcast", {3, 4}, {{4, 1}, {0, 1}}, {3, 4}},
    {"column broadcast", {3, 4}, {{4, 1}, {1, 0}}, {3, 4}},
    {"all broadcast", {3, 4}, {{4, 1}, {0, 0}}, {12}},
    {"inner two merge", {5, 2, 3}, {{12, 3, 1}, {6, 3, 1}}, {5, 6}},
    {"outer two merge", {2, 5, 3}, {{20, 4, 1}, {15, 3, 1}}, {10, 3}},
    {"negative", {4, 3}, {{3, 1}, {-3, 1}}, {4, 3}},
    {"negative merges", {4, 3}, {{3, 1}, {-3, -1}}, {12}},
    {"every second", {6}, {{1}, {2}}, {6}},
    {"three operands", {2, 3, 4}, {{12, 4, 1}, {12, 4, 1}, {0, 4, 1}}, {2, 12}},
};

Loop<3> loop_of(const Case& c, std::vector<std::vector<float>>& memory) {
  Loop<3> loop;
  for (const Dims& strides : c.strides) {
    memory.emplace_back(256);
    // Far enough from both ends for negative strides.
    loop.add(View{memory.back().data() + 128, DType::kFloat32, c.sizes, strides});
  }
  return loop;
}

using Address = std::vector<const char*>;

// Addresses of every element, in the order of the uncollapsed nest.
std::vector<Address> plain_addresses(const Loop<3>& loop) {
  std::vector<Address> all;
  const int64_t n = loop.numel();
  for (int64_t i = 0; i < n; ++i) {
    Address at;
    for (int k = 0; k < loop.operands; ++k) {
      int64_t rest = i, offset = 0;
      for (int d = loop.sizes.size() - 1; d >= 0; --d) {
        offset += rest % loop.sizes[d] * loop.strides[static_cast<size_t>(k)][d];
        rest /= loop.sizes[d];
      }
      at.push_back(loop.data[static_cast<size_t>(k)] + offset * 4);
    }
    all.push_back(at);
  }
  return all;
}

std::vector<Address> walked(const Loop<3>& loop, int64_t begin, int64_t end) {
  std::vector<Address> all;
  loop.for_range(begin, end, [&](const auto& p, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      Address at;
      for (int k = 0; k < loop.operands; ++k) at.push_back(p[static_cast<size_t>(k)] + i * loop.inner_stride(k) * 4);
      all.push_back(at);
    }
  });
  return all;
}

TEST(Loop, CollapsesToTheFewestDims) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.what);
    std::vector<std::vector<float>> memory;
    Loop<3> loop = loop_of(c, memory);
    loop.collapse();
    EXPECT_EQ(loop.sizes, c.collapsed);
  }
}

TEST(Loop, CollapsingVisitsTheSameElements) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.what);
    std::vector<std::vector<float>> memory;
    Loop<3> loop = loop_of(c, memory);
    std::vector<Address> expected = plain_addresses(loop);
    loop.collapse();
    std::vector<Address> got = walked(loop, 0, loop.numel());
    std::sort(expected.begin(), expected.end());
    std::sort(got.begin(), got.end());
    EXPECT_EQ(got, expected);
  }
}

TEST(Loop, RangesJoinToTheWhole) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.what);
    std::vector<std::vector<float>> memory;
    Loop<3> loop = loop_of(c, memory);
    loop.collapse();
    const std::vector<Address> whole = walked(loop, 0, loop.numel());
    for (int64_t cut = 0; cut <= loop.numel(); ++cut) {
      std::vector<Address> parts = walked(loop, 0, cut);
      for (const Address& a : walked(loop, cut, loop.numel())) parts.push_back(a);
      EXPECT_EQ(parts, whole) << "cut at " << cut;
    }
  }
}

TEST(Loop, OutputIsWalkedInMemoryOrder) {
  // A transposed output with a contiguous input: the inner loop runs along the output's memory.
  std::vector<float> out(35), in(35);
  Loop<2> loop;
  loop.add(View{out.data(), DType::kFloat32, {5, 7}, {1, 5}});
  loop.add(View{in.data(), DType::kFloat32, {5, 7}, {7, 1}});
  loop.collapse();
  EXPECT_EQ(loop.inner_stride(0), 1);
  EXPECT_EQ(loop.inner(), 5);
}

}  // namespace
}  // namespace deepseek::kernels
