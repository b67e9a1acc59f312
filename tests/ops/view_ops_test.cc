// ops/shape/view.cc: results that share the input's memory.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

Tensor counted(const Dims& sizes) {
  std::vector<double> v;
  for (int64_t i = 0; i < numel_of(sizes); ++i) v.push_back(static_cast<double>(i));
  return tensor(sizes, v);
}

struct Case {
  const char* op;
  Dims in;
  Attributes attributes;
  Dims sizes, strides;
  int64_t offset = 0;
};
const Case kViews[] = {
    {"view", {2, 6}, {{"size", "[3, -1]"}}, {3, 4}, {4, 1}},
    {"view", {2, 6}, {{"size", "[12]"}}, {12}, {1}},
    {"view", {}, {{"size", "[1, 1]"}}, {1, 1}, {1, 1}},
    {"transpose", {2, 3}, {{"dim0", "0"}, {"dim1", "-1"}}, {3, 2}, {1, 3}},
    {"permute", {2, 3, 4}, {{"dims", "[2, 0, 1]"}}, {4, 2, 3}, {1, 12, 4}},
    {"expand", {2, 1}, {{"size", "[3, -1, 4]"}}, {3, 2, 4}, {0, 1, 0}},
    {"unsqueeze", {2, 3}, {{"dim", "-1"}}, {2, 3, 1}, {3, 1, 1}},
    {"unsqueeze", {2, 3}, {{"dim", "0"}}, {1, 2, 3}, {6, 3, 1}},
    {"squeeze", {1, 2, 1, 3}, {}, {2, 3}, {3, 1}},
    {"squeeze", {1, 2, 1, 3}, {{"dim", "[2]"}}, {1, 2, 3}, {6, 3, 1}},
    {"squeeze", {2, 3}, {{"dim", "[0]"}}, {2, 3}, {3, 1}},
    {"select", {2, 3}, {{"dim", "1"}, {"index", "-1"}}, {2}, {3}, 2},
    {"_slice", {10}, {{"start", "2"}, {"end", "-1"}, {"step", "3"}}, {3}, {3}, 2},
    {"_slice", {10}, {{"start", "-100"}, {"end", "100"}}, {10}, {1}},
    {"_slice", {10}, {{"start", "7"}, {"end", "3"}}, {0}, {1}, 7},
    {"diagonal", {3, 4}, {}, {3}, {5}},
    {"diagonal", {3, 4}, {{"offset", "2"}}, {2}, {5}, 2},
    {"diagonal", {3, 4}, {{"offset", "-1"}}, {2}, {5}, 4},
    {"unfold", {10}, {{"dimension", "0"}, {"size", "4"}, {"step", "3"}}, {3, 4}, {3, 1}},
};

TEST(ViewOps, GeometryAndSharing) {
  for (const Case& c : kViews) {
    SCOPED_TRACE(c.op);
    const Tensor x = counted(c.in);
    const Tensor v = call(c.op, {x}, c.attributes);
    EXPECT_EQ(v.sizes(), c.sizes);
    EXPECT_TRUE(v.numel() == 0 || v.strides() == c.strides) << v.strides();
    EXPECT_EQ(v.offset(), c.offset);
    EXPECT_EQ(v.storage().get(), x.storage().get());
  }
}

TEST(ViewOps, Gradients) {
  for (const Case& c : kViews) {
    if (numel_of(c.sizes) == 0) continue;
    expect_gradients({{c.op, {spread(c.in)}, c.attributes}});
    // Of an input that is itself laid out in another order.
    if (c.in.size() < 2 || std::string(c.op) == "view") continue;
    Dims turned = c.in;
    std::swap(turned[0], turned[1]);
    expect_gradients([&](const TensorList& in) { return call(c.op, {transpose(in[0], 0, 1)}, c.attributes); },
                     {spread(turned)}, c.op);
  }
}

TEST(ViewOps, Lists) {
  const Tensor x = counted({3, 4});
  const TensorList rows = unbind(x, 0);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(values_of(rows[2]), (std::vector<double>{8, 9, 10, 11}));
  const TensorList parts = split(x, {1, 3}, 1);
  EXPECT_EQ(parts[1].sizes(), (Dims{3, 3}));
  EXPECT_EQ(parts[1].storage().get(), x.storage().get());
  const TensorList uneven = call_all("split", {x}, {{"split_size", "3"}, {"dim", "1"}});
  ASSERT_EQ(uneven.size(), 2u);
  EXPECT_EQ(uneven[1].sizes(), (Dims{3, 1}));
  for (size_t output : {0, 1})
    expect_gradients({{"unbind", {spread({2, 3})}, {{"dim", "0"}}, output},
                      {"split.sizes", {spread({3, 4})}, {{"split_size", "[1, 3]"}, {"dim", "1"}}, output}});
}

TEST(ViewOps, ReshapeCopiesOnlyWhenItMust) {
  const Tensor x = counted({2, 3, 4});
  EXPECT_EQ(reshape(x, {6, 4}).storage().get(), x.storage().get());
  const Tensor turned = transpose(x, 0, 2);
  EXPECT_NE(reshape(turned, {24}).storage().get(), x.storage().get());
  EXPECT_EQ(values_of(reshape(turned, {4, 6})), values_of(turned));
  EXPECT_EQ(view(slice(x, 2, 0, 2), {6, 2}).storage().get(), x.storage().get());  // the outer dims still merge
  expect_gradients([](const TensorList& in) { return reshape(transpose(in[0], 0, 1), {6}); }, {spread({2, 3})},
                   "reshape");
}

TEST(ViewOps, OverlappingReadsAddTheirGradients) {
  const Tensor x = leaf({4}, {1, 2, 3, 4});
  const Tensor y = call("unfold", {x}, {{"dimension", "0"}, {"size", "3"}, {"step", "1"}}), loss = sum(y);
  EXPECT_EQ(values_of(grad({&loss, 1}, {}, {&x, 1}, {})[0]), (std::vector<double>{1, 2, 2, 1}));
}

TEST(ViewOps, Errors) {
  const Tensor x = counted({2, 3});
  expect_errors({
      {"view", {x}, {{"size", "[4]"}}, "shape '[4]' is invalid for input of size 6"},
      {"view", {x}, {{"size", "[-1, -1]"}}, "only one dimension can be inferred"},
      {"view", {x}, {{"size", "[-2, 3]"}}, "invalid shape dimension -2"},
      {"view", {counted({0})}, {{"size", "[-1, 0]"}}, "ambiguous"},
      {"view", {x}, {{"size", "[4611686018427387904, 4, -1]"}}, "too many elements"},
      {"view",
       {transpose(x, 0, 1)},
       {{"size", "[6]"}},
       "is not compatible with input tensor's size [3, 2] and stride [1, 3]"},
      {"expand", {x}, {{"size", "[2, 4]"}}, "expand"},
      {"permute", {x}, {{"dims", "[0, 0]"}}, "permute"},
      {"permute", {x}, {{"dims", "[0]"}}, "permute"},
      {"_slice", {x}, {{"step", "0"}}, "step"},
      {"split.sizes", {x}, {{"split_size", "[1, 1]"}, {"dim", "1"}}, "split"},
      {"unfold", {x}, {{"dimension", "0"}, {"size", "5"}, {"step", "1"}}, "size"},
  });
  expect_errors<IndexError>({
      {"transpose", {x}, {{"dim0", "0"}, {"dim1", "2"}}, "Dimension out of range"},
      {"select", {x}, {{"dim", "0"}, {"index", "2"}}, "index 2 is out of bounds for dimension 0 with size 2"},
      {"unsqueeze", {x}, {{"dim", "4"}}, "Dimension out of range"},
  });
}

}  // namespace
}  // namespace deepseek
