// ops/index/index.cc and ops/index/advanced_index.cc.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

TEST(IndexOps, Values) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6}), rows = longs({3}, {1, 0, 1}), none = longs({0}, {});
  const Tensor at = longs({2, 2}, {2, 0, 1, 1}), src = tensor({2, 2}, {10, 20, 30, 40});
  expect_values({
      {"gather", {x, at}, {{"dim", "1"}}, {2, 2}, {3, 1, 5, 5}},
      {"scatter", {x, longs({1, 3}, {0, 1, 0}), tensor({1, 3}, {7, 8, 9})}, {{"dim", "0"}}, {2, 3}, {7, 2, 9, 4, 8, 6}},
      {"scatter_add", {x, at, src}, {{"dim", "1"}}, {2, 3}, {21, 2, 13, 4, 75, 6}},
      {"index_select", {x, rows}, {{"dim", "0"}}, {3, 3}, {4, 5, 6, 1, 2, 3, 4, 5, 6}},
      {"index_select", {x, none}, {{"dim", "1"}}, {2, 0}, {}},
      {"index_add",
       {x, rows, ones({3, 3}, DType::kFloat64)},
       {{"dim", "0"}, {"alpha", "2"}},
       {2, 3},
       {3, 4, 5, 8, 9, 10}},
      {"index_copy", {x, longs({1}, {1}), tensor({1, 3}, {7, 8, 9})}, {{"dim", "0"}}, {2, 3}, {1, 2, 3, 7, 8, 9}},
      {"index_fill", {x, longs({1}, {-1}), scalar(0.0)}, {{"dim", "1"}}, {2, 3}, {1, 2, 0, 4, 5, 0}},
      {"take", {x, longs({2}, {0, -1})}, {}, {2}, {1, 6}},
      {"take_along_dim", {x, longs({2, 1}, {2, 0})}, {{"dim", "1"}}, {2, 1}, {3, 4}},
      {"nonzero", {flags({2, 2}, {0, 1, 1, 0})}, {}, {2, 2}, {0, 1, 1, 0}, DType::kInt64},
      {"count_nonzero", {x}, {}, {}, {6}, DType::kInt64},
      {"masked_select", {x, flags({3}, {1, 0, 1})}, {}, {4}, {1, 3, 4, 6}},
      {"masked_scatter", {x, flags({3}, {1, 0, 1}), vector({7, 8, 9, 10})}, {}, {2, 3}, {7, 2, 8, 9, 5, 10}},
      {"_index", {x, rows}, {}, {3, 3}, {4, 5, 6, 1, 2, 3, 4, 5, 6}},
      {"_index", {x, Tensor(), longs({2}, {-1, 0})}, {}, {2, 2}, {3, 1, 6, 4}},
      {"_index", {x, longs({2, 1}, {0, 1}), longs({2}, {0, 2})}, {}, {2, 2}, {1, 3, 4, 6}},
      {"embedding", {longs({2, 1}, {1, 0}), x}, {}, {2, 1, 3}, {4, 5, 6, 1, 2, 3}},
  });
}

TEST(IndexOps, MasksAndWrites) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6}), mask = flags({2, 3}, {0, 1, 0, 1, 0, 0});
  EXPECT_EQ(values_of(index(x, {&mask, 1})), (std::vector<double>{2, 4}));
  const Tensor twice = longs({3}, {0, 0, 1});
  EXPECT_EQ(values_of(index_put(x, {&twice, 1}, scalar(1.0), true)), (std::vector<double>{3, 4, 5, 5, 6, 7}));
  index_put_(x, {&mask, 1}, vector({-1, -2}), false);
  EXPECT_EQ(values_of(x), (std::vector<double>{1, -1, 3, -2, 5, 6}));
}

TEST(IndexOps, Gradients) {
  const Tensor x = spread({3, 4}), index_rows = longs({4}, {2, 0, 2, 1}), at = longs({2, 3}, {0, 2, 2, 1, 0, 0});
  const Tensor src = spread({2, 3}, -1, 1, 2), lines = spread({4, 4}, -1, 1, 3);
  expect_gradients({
      {"gather", {x, at}, {{"dim", "0"}}},
      {"scatter", {x, longs({2, 3}, {0, 2, 1, 1, 0, 0}), src}, {{"dim", "0"}}},
      {"scatter_add", {x, at, src}, {{"dim", "0"}}},
      {"index_select", {x, index_rows}, {{"dim", "0"}}},
      {"index_add", {x, index_rows, lines}, {{"dim", "0"}, {"alpha", "2"}}},
      {"index_copy", {x, longs({2}, {2, 0}), spread({2, 4}, -1, 1, 4)}, {{"dim", "0"}}},
      {"index_fill", {x, longs({1}, {1}), spread({}, 0, 1)}, {{"dim", "1"}}},
      {"masked_select", {x, flags({4}, {1, 0, 1, 1})}},
      {"masked_scatter", {x, flags({4}, {1, 0, 1, 1}), spread({9}, -1, 1, 5)}},
      {"_index", {x, longs({3}, {0, 0, 2}), longs({3}, {1, 1, 3})}},
      {"_index_put", {x, spread({3}, -1, 1, 6), longs({3}, {0, 1, 2}), longs({3}, {1, 1, 3})}},
      {"_index_put",
       {x, spread({3}, -1, 1, 6), longs({3}, {0, 0, 2}), longs({3}, {1, 1, 3})},
       {{"accumulate", "True"}}},
      {"embedding", {longs({3}, {2, 0, 2}), x}},
      {"take", {x, longs({3}, {0, 5, 5})}},
      {"sort", {x}, {{"dim", "1"}}},
      {"topk", {x}, {{"k", "2"}}},
      {"kthvalue", {x}, {{"k", "2"}}},
  });
}

TEST(IndexOps, ThePaddingRowGetsNoGradient) {
  const Tensor w = spread({3, 2}), y = sum(embedding(longs({3}, {0, 1, 1}), w, 1));
  EXPECT_EQ(values_of(grad({&y, 1}, {}, {&w, 1}, {})[0]), (std::vector<double>{1, 1, 0, 0, 0, 0}));
}

TEST(IndexOps, Errors) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  expect_errors({
      {"gather", {x, vector({0})}, {{"dim", "0"}}, "gather"},
      {"gather", {x, longs({1}, {0})}, {{"dim", "0"}}, "dimension"},
      {"gather", {x, longs({1, 1}, {5})}, {{"dim", "0"}}, "index 5 is out of bounds"},
      {"scatter", {x, longs({1, 4}, {0, 0, 0, 0}), ones({1, 4}, DType::kFloat64)}, {{"dim", "0"}}, "scatter"},
      {"index_select", {x, longs({1}, {2})}, {{"dim", "0"}}, "out of"},
      {"index_add", {x, longs({2}, {0, 1}), ones({1, 3}, DType::kFloat64)}, {{"dim", "0"}}, "index_add"},
      {"_index", {x, longs({1}, {2})}, {}, "out of bounds"},
      {"_index",
       {x, longs({2}, {0, 1}), longs({3}, {0, 1, 2})},
       {},
       "indexing tensors could not be broadcast together"},
      {"take", {x, longs({1}, {6})}, {}, "out of"},
      {"masked_scatter", {x, flags({3}, {1, 1, 1}), vector({1})}, {}, "masked_scatter"},
      {"embedding", {longs({1}, {2}), x}, {}, "index out of range"},
  });
}

}  // namespace
}  // namespace deepseek
