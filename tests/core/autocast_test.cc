// Casts that autocast keeps: by region, by what they were made of, and apart from those of a recording.
#include "core/dispatch/autocast.h"

#include "core/packed.h"
#include "ops/matmul/matmul.h"
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using testing::leaf;
using testing::tensor;

class Region {
 public:
  Region() : before_(mode_.autocast) {
    mode_.autocast = true;
    enter_autocast_region();
  }
  ~Region() {
    mode_.autocast = before_;
    leave_autocast_region();
  }
  Region(const Region&) = delete;

 private:
  Mode& mode_ = mode();
  bool before_;
};

Tensor weight() { return leaf({2, 2}, {1, 2, 3, 4}, DType::kFloat32); }
Tensor lower(const Tensor& t) { return autocast_inputs(linear_op(), {&t, 1})[0]; }  // to bfloat16

TEST(Autocast, AWeightIsCastOnceARegion) {
  const Tensor w = weight();
  Tensor first;
  {
    const Region outer;
    first = lower(w);
    EXPECT_TRUE(lower(w).is(first));
    {
      const Region inner;
      EXPECT_TRUE(lower(w).is(first));
    }
    EXPECT_EQ(autocast_cache_size(), 1U);
    {
      const OwnAutocastCache own;
      EXPECT_FALSE(lower(w).is(first));
    }
    EXPECT_TRUE(lower(w).is(first));
    clear_autocast_cache();
    EXPECT_FALSE(lower(w).is(first));
  }
  EXPECT_EQ(autocast_cache_size(), 0U);
  EXPECT_FALSE(lower(w).is(lower(w)));  // no region that would end
}

TEST(Autocast, AWriteOrNewMemoryMakesItAnew) {
  const Tensor w = weight();
  const Region region;
  const Tensor first = lower(w);
  {
    const GradGuard off(false);
    add_(w, w);
  }
  const Tensor second = lower(w);
  EXPECT_FALSE(second.is(first));
  EXPECT_EQ(testing::values_of(second)[3], 8);
  w.storage()->expose();
  EXPECT_FALSE(lower(w).is(lower(w)));
}

TEST(Autocast, ItsGradientIsFloat32) {
  const Tensor w = weight();
  const Region region;
  EXPECT_EQ(lower(w).edge().node->outputs[0].dtype, DType::kFloat32);
}

TEST(Autocast, AnythingElseIsKeptUntilTheNext) {
  const Tensor x = tensor({2}, {1, 2}, DType::kFloat32), y = tensor({2}, {3, 4}, DType::kFloat32);
  const Region region;
  const Tensor first = lower(x);
  EXPECT_TRUE(lower(x).is(first));
  lower(y);
  EXPECT_FALSE(lower(x).is(first));
  EXPECT_EQ(autocast_cache_size(), 0U);
}

TEST(Autocast, WithoutGradientsACopyStaysWithTheMemory) {
  const Tensor w = weight();
  for (int round = 0; round < 2; ++round) {
    const GradGuard off(false);
    const Region region;
    EXPECT_EQ(testing::values_of(lower(w))[1], 2);
    EXPECT_EQ(packed_bytes(w), 8U);
  }
  {
    const Region region;
    EXPECT_TRUE(lower(w).requires_grad());
    EXPECT_EQ(packed_bytes(w), 8U);  // it still holds
  }
  {
    const GradGuard off(false);
    add_(w, w);
  }
  const Region region;
  lower(w);
  EXPECT_EQ(packed_bytes(w), 0U);
}

}  // namespace
}  // namespace deepseek
