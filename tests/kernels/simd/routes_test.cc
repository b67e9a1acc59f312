// Counters of the kernels' routes: the one that ran counts, on the target it ran on.
#include "kernels/simd/routes.h"

#include <map>

#include "kernels/loops/copy.h"
#include "kernels/nn/softmax.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {

using testing::Array;

std::map<std::string, uint64_t> counted() {
  std::map<std::string, uint64_t> nonzero;
  for (const auto& [key, n] : route_counts())
    if (n > 0) nonzero[key] = n;
  return nonzero;
}

TEST(Routes, CountTheTargetThatRan) {
  testing::for_each_target([] {
    Array<float> in({3, 5}), out({3, 5});
    reset_route_counts();
    softmax(out.view(), in.view(), 1);
    softmax(out.view(), in.view(), 0);
    const bool avx2 = (hwy::SupportedTargets() & HWY_AVX2) != 0;
    const std::map<std::string, uint64_t> expected{
        {avx2 ? "softmax.forward/AVX2" : "softmax.forward/AVX3", 2},
        {avx2 ? "softmax.forward_lines/AVX2" : "softmax.forward_lines/AVX3", 1},
        {"lines.gathered", 1}};
    EXPECT_EQ(counted(), expected);
  });
}

TEST(Routes, TellPathsApart) {
  Array<float> in({40, 40}), wide({40, 80}), out({40, 40});
  reset_route_counts();
  copy(out.view(), in.view());
  copy(out.view(), testing::transposed(in.view(), 0, 1));
  copy(out.view(), testing::sliced(in.view(), 1, -1));
  copy(out.view(), testing::sliced(wide.view(), 1, 2));
  const std::map<std::string, uint64_t> expected{
      {"copy.block", 1}, {"copy.tiled", 1}, {"copy.reversed", 1}, {"copy.cast", 1}};
  EXPECT_EQ(counted(), expected);
  reset_route_counts();
  EXPECT_TRUE(counted().empty());
}

TEST(Routes, EveryKeyIsNamedOnce) {
  std::map<std::string, int> seen;
  for (const auto& [key, n] : route_counts()) EXPECT_EQ(++seen[key], 1) << key;
}

}  // namespace
}  // namespace deepseek::kernels
