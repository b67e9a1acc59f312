// ops/attention/attention.cc against loops over queries and keys.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

constexpr int64_t kQueries = 3, kKeys = 4, kWidth = 2;

std::vector<double> reference(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                              const std::vector<double>& added) {
  const std::vector<double> qs = values_of(q), ks = values_of(k), vs = values_of(v);
  std::vector<double> out;
  for (int64_t i = 0; i < kQueries; ++i) {
    std::vector<double> weight(kKeys);
    double total = 0;
    for (int64_t j = 0; j < kKeys; ++j) {
      double score = added[static_cast<size_t>(i * kKeys + j)];
      for (int64_t d = 0; d < kWidth; ++d)
        score += scale * qs[static_cast<size_t>(i * kWidth + d)] * ks[static_cast<size_t>(j * kWidth + d)];
      total += weight[static_cast<size_t>(j)] = std::exp(score);
    }
    for (int64_t d = 0; d < kWidth; ++d) {
      double sum = 0;
      for (int64_t j = 0; j < kKeys; ++j)
        sum += weight[static_cast<size_t>(j)] / total * vs[static_cast<size_t>(j * kWidth + d)];
      out.push_back(total == 0 ? 0 : sum);
    }
  }
  return out;
}

TEST(AttentionOps, MasksAndScales) {
  const Tensor q = spread({kQueries, kWidth}), k = spread({kKeys, kWidth}, -1, 1, 2),
               v = spread({kKeys, kWidth}, -1, 1, 3);
  std::vector<double> none(kQueries * kKeys), causal(none), bias(none), kept;
  for (int64_t i = 0; i < kQueries; ++i)
    for (int64_t j = 0; j < kKeys; ++j) {
      const auto at = static_cast<size_t>(i * kKeys + j);
      causal[at] = j > i ? -INFINITY : 0;
      bias[at] = 0.1 * static_cast<double>(i - j);
      kept.push_back(j <= i);
    }
  const double usual = 1 / std::sqrt(2.0);
  const char* op = "scaled_dot_product_attention";
  const Dims out{kQueries, kWidth};
  expect_values({
      {op, {q, k, v}, {}, out, reference(q, k, v, usual, none)},
      {op, {q, k, v}, {{"scale", "0.3"}}, out, reference(q, k, v, 0.3, none)},
      {op, {q, k, v}, {{"is_causal", "True"}}, out, reference(q, k, v, usual, causal)},
      {op, {q, k, v, flags({kQueries, kKeys}, kept)}, {}, out, reference(q, k, v, usual, causal)},
      {op, {q, k, v, tensor({kQueries, kKeys}, bias)}, {}, out, reference(q, k, v, usual, bias)},
  });
  kept.assign(kept.size(), 0);  // rows without any key give zeros
  const Tensor empty = call(op, {q, k, v, flags({kQueries, kKeys}, kept)});
  EXPECT_EQ(values_of(empty), std::vector<double>(6, 0));
}

TEST(AttentionOps, GroupedQueriesEqualRepeatedHeads) {
  const Tensor q = spread({1, 4, 3, 2}), k = spread({1, 2, 4, 2}, -1, 1, 2), v = spread({1, 2, 4, 2}, -1, 1, 3);
  const auto repeat = [](const Tensor& t) { return call("repeat_interleave", {t}, {{"repeats", "2"}, {"dim", "1"}}); };
  const Tensor grouped = call("scaled_dot_product_attention", {q, k, v}, {{"enable_gqa", "True"}});
  expect_near(values_of(grouped), values_of(call("scaled_dot_product_attention", {q, repeat(k), repeat(v)})), 1e-14,
              "grouped");
}

TEST(AttentionOps, Gradients) {
  const Tensor q = spread({2, 3, 2}), k = spread({2, 3, 2}, -1, 1, 2), v = spread({2, 3, 2}, -1, 1, 3);
  expect_gradients({
      {"scaled_dot_product_attention", {q, k, v}, {{"is_causal", "True"}}},
      {"scaled_dot_product_attention", {q, k, v, spread({3, 3}, -1, 1, 4)}, {}, 0, 1},
  });
}

TEST(AttentionOps, Errors) {
  const Tensor q = spread({3, 2}), h = tensor({3, 2}, {1, 2, 3, 4, 5, 6}, DType::kFloat32),
               mask = flags({3, 3}, std::vector<double>(9, 1));
  expect_errors({
      {"scaled_dot_product_attention", {vector({1}), q, q}, {}, "must have at least 2 dimensions"},
      {"scaled_dot_product_attention", {q, h, q}, {}, "Expected query, key, and value to have the same dtype"},
      {"scaled_dot_product_attention",
       {q, q, q, mask},
       {{"is_causal", "True"}},
       "Explicit attn_mask should not be set when is_causal=True"},
      {"scaled_dot_product_attention",
       {q, q, q, longs({3, 3}, std::vector<double>(9, 1))},
       {},
       "Expected attn_mask dtype to be bool"},
      {"scaled_dot_product_attention",
       {spread({3, 3, 2}), spread({2, 3, 2}), spread({2, 3, 2})},
       {{"enable_gqa", "True"}},
       "must divide"},
  });
}

}  // namespace
}  // namespace deepseek
