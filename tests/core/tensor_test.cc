#include "core/tensor.h"

#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;
using ::testing::HasSubstr;

TEST(Tensor, EmptyIsContiguousAndOwnsItsMemory) {
  const Tensor t = Tensor::empty({2, 3}, DType::kInt16);
  EXPECT_EQ(t.strides(), (Dims{3, 1}));
  EXPECT_EQ(t.dim(), 2);
  EXPECT_EQ(t.numel(), 6);
  EXPECT_EQ(t.nbytes(), 12);
  EXPECT_EQ(t.size(-1), 3);
  EXPECT_THROW(t.size(2), IndexError);
  EXPECT_TRUE(t.is_contiguous());
  EXPECT_EQ(t.storage()->bytes(), 12u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data_ptr()) % 64, 0u);
  EXPECT_FALSE(Tensor().defined());
}

TEST(Tensor, SizesThatDoNotFitAreRefusedBeforeMemoryIsTouched) {
  EXPECT_THROW(Tensor::empty({int64_t{1} << 62, 8}, DType::kFloat32), Error);
  EXPECT_THROW(Tensor::empty({int64_t{1} << 61}, DType::kFloat64), OutOfMemoryError);
  EXPECT_THROW(Tensor::empty({int64_t{1} << 50}, DType::kUInt8), OutOfMemoryError);
  EXPECT_THROW(Tensor::empty_strided({3, 3}, {int64_t{1} << 62, int64_t{1} << 62}, DType::kUInt8), Error);
  EXPECT_THROW(Tensor::empty({-1}, DType::kFloat32), Error);
}

TEST(Tensor, AliasesShareMemoryAndVersion) {
  const Tensor t = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor column = t.alias({{2}, {3}, 1});
  EXPECT_EQ(values_of(column), (std::vector<double>{2, 5}));
  const Tensor nested = column.alias({{1}, {1}, 3});  // offsets add up
  EXPECT_EQ(nested.item(), Scalar(5.0));
  t.storage()->bump_version();
  EXPECT_EQ(nested.version(), 1u);
  EXPECT_FALSE(t.is(t.alias()));
  EXPECT_TRUE(same_geometry(t, t.alias()));
  EXPECT_FALSE(same_geometry(t, column));
}

TEST(Tensor, ViewAsBroadcasts) {
  const Tensor t = tensor({2, 1}, {1, 2});
  EXPECT_EQ(values_of(t.view_as({3, 2, 2})), (std::vector<double>{1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2}));
  EXPECT_EQ(t.view_as({2, 1}).strides, t.strides());
}

TEST(Tensor, ItemOfEveryDType) {
  for (int d = 0; d < kNumDTypes; ++d) {
    const auto dtype = static_cast<DType>(d);
    const Scalar s = tensor({1, 1}, {1}, dtype).item();
    EXPECT_EQ(s.to_double(), 1) << name_of(dtype);
    EXPECT_EQ(category(s.dtype()), category(dtype)) << name_of(dtype);
  }
  EXPECT_THROW(tensor({2}, {1, 2}).item(), Error);
}

TEST(Tensor, WrappedNumbers) {
  EXPECT_EQ(Tensor::wrapped(2.5).item(), Scalar(2.5));
  EXPECT_EQ(Tensor::wrapped(true).dtype(), DType::kBool);
  EXPECT_TRUE(Tensor::wrapped(1).cell()->wrapped_number);
}

struct Geometry {
  Dims sizes, strides;
  bool overlaps, dense;
  Dims preserved;
};
TEST(Tensor, GeometryRules) {
  const Geometry cases[] = {
      {{}, {}, false, true, {}},
      {{2, 3}, {3, 1}, false, true, {3, 1}},
      {{2, 3}, {1, 2}, false, true, {1, 2}},
      {{2, 3, 4}, {1, 8, 2}, false, true, {1, 8, 2}},
      {{2, 3}, {0, 1}, true, false, {3, 1}},
      {{3, 2}, {1, 1}, true, false, {2, 1}},
      {{2, 3}, {6, 2}, false, false, {3, 1}},
      {{2, 3}, {-3, 1}, false, false, {3, 1}},
      {{0, 3}, {0, 0}, false, true, {3, 1}},
      {{1, 3}, {77, 1}, false, true, {3, 1}},
      {{4, 3}, {2, 3}, true, false, {1, 4}},
      {{2, 3, 2}, {0, 1, 3}, true, false, {6, 1, 3}},
  };
  for (const Geometry& g : cases) {
    std::ostringstream what;
    what << g.sizes << g.strides;
    SCOPED_TRACE(what.str());
    EXPECT_EQ(may_overlap_itself(g.sizes, g.strides), g.overlaps);
    EXPECT_EQ(is_dense(g.sizes, g.strides), g.dense);
    EXPECT_EQ(preserved_strides(g.sizes, g.strides), g.preserved);
  }
}

TEST(Tensor, ExternalMemoryIsReleasedOnce) {
  double values[4] = {1, 2, 3, 4};
  int released = 0;
  {
    const Tensor t =
        Tensor::from_storage(Storage::external(
                                 values, sizeof(values), [](void* count) { ++*static_cast<int*>(count); }, &released),
                             {4}, {1}, 0, DType::kFloat64);
    const Tensor half = slice(t, 0, 1, 3);
    EXPECT_EQ(values_of(half), (std::vector<double>{2, 3}));
    EXPECT_EQ(released, 0);
  }
  EXPECT_EQ(released, 1);
}

TEST(Tensor, DefaultDType) {
  EXPECT_EQ(default_dtype(), DType::kFloat32);
  set_default_dtype(DType::kFloat64);
  EXPECT_EQ((vector({1}, DType::kInt64) / 2).dtype(), DType::kFloat64);
  set_default_dtype(DType::kFloat32);
  EXPECT_THROW(set_default_dtype(DType::kInt64), TypeError);
  EXPECT_THROW(set_default_dtype(DType::kFloat8E4M3), TypeError);
}

TEST(Tensor, LeavesAndResults) {
  const Tensor x = leaf({2}, {1, 2}), c = vector({1, 2});
  EXPECT_TRUE(x.requires_grad() && x.is_leaf());
  EXPECT_TRUE(c.is_leaf() && !c.requires_grad());
  const Tensor y = x * c;
  EXPECT_TRUE(y.requires_grad() && !y.is_leaf());
  EXPECT_EQ(y.edge().node->name(), "MulBackward0");
  EXPECT_EQ(x.edge().node->name(), "AccumulateGrad");
  EXPECT_THROW(set_requires_grad(y, false), Error);
  EXPECT_THROW(set_requires_grad(longs({1}, {1})), Error);
  EXPECT_FALSE(detach(y).requires_grad());
}

}  // namespace
}  // namespace deepseek
