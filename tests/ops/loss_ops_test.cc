// ops/nn/loss.cc against the definition, in all reductions and kinds of target.
#include "tests/core_testing.h"

namespace deepseek {
namespace {
using namespace deepseek::testing;

struct Row {
  std::vector<double> logits;
  int64_t target;
};

// -sum_c t_c w_c log softmax(x)_c with smoothed targets, one row.
double row_loss(const Row& r, const std::vector<double>& weight, double smoothing) {
  double total = 0;
  for (double v : r.logits) total += std::exp(v);
  const auto classes = static_cast<double>(r.logits.size());
  double loss = 0;
  for (size_t c = 0; c < r.logits.size(); ++c) {
    const double t = (static_cast<int64_t>(c) == r.target ? 1 - smoothing : 0) + smoothing / classes;
    loss -= t * weight[c] * (r.logits[c] - std::log(total));
  }
  return loss;
}

TEST(LossOps, CrossEntropyAgainstTheDefinition) {
  const std::vector<Row> rows{{{1, 2, 0.5}, 1}, {{-1, 0, 3}, 0}, {{0.2, 0.1, 0.3}, -100}, {{2, 2, 2}, 2}};
  const std::vector<double> weight{1, 0.5, 2};
  std::vector<double> flat, targets;
  for (const Row& r : rows) {
    flat.insert(flat.end(), r.logits.begin(), r.logits.end());
    targets.push_back(static_cast<double>(r.target));
  }
  const Tensor x = tensor({4, 3}, flat), t = longs({4}, targets), w = vector(weight);
  for (bool weighted : {false, true})
    for (const char* smoothing : {"0.0", "0.3"}) {
      std::vector<double> each;
      double sum = 0, count = 0;
      for (const Row& r : rows) {
        const std::vector<double> used = weighted ? weight : std::vector<double>{1, 1, 1};
        each.push_back(r.target < 0 ? 0 : row_loss(r, used, std::stod(smoothing)));
        sum += each.back();
        count += r.target < 0 ? 0 : used[static_cast<size_t>(r.target)];
      }
      const TensorList in{x, t, weighted ? w : Tensor()};
      const std::string s = smoothing;
      expect_values({
          {"cross_entropy", in, {{"reduction", "'none'"}, {"label_smoothing", s}}, {4}, each},
          {"cross_entropy", in, {{"reduction", "'sum'"}, {"label_smoothing", s}}, {}, {sum}},
          {"cross_entropy", in, {{"label_smoothing", s}}, {}, {sum / count}},
      });
    }
}

TEST(LossOps, OtherShapesAndTargets) {
  const Tensor x = tensor({1, 2, 2}, {0, 1, 2, 3}), one_hot = tensor({1, 2, 2}, {1, 0, 0, 1});
  const double right = std::log1p(std::exp(-2)), wrong = right + 2;
  expect_values({
      {"cross_entropy", {x, longs({1, 2}, {0, 1})}, {{"reduction", "'none'"}}, {1, 2}, {wrong, right}},
      {"cross_entropy", {x, one_hot}, {{"reduction", "'none'"}}, {1, 2}, {wrong, right}},
      {"cross_entropy", {vector({0, 2}), longs({}, {1})}, {}, {}, {right}},
      {"cross_entropy", {tensor({1, 2}, {0, 2}), longs({1}, {-100})}, {}, {}, {NAN}},
      {"nll_loss", {tensor({2, 2}, {-1, -2, -3, -4}), longs({2}, {1, 0})}, {}, {}, {2.5}},
      {"nll_loss", {tensor({2, 2}, {-1, -2, -3, -4}), longs({2}, {1, 0}), vector({1, 3})}, {}, {}, {9.0 / 4}},
      {"mse_loss", {vector({1, 2}), vector({3, 2})}, {}, {}, {2}},
      {"mse_loss", {vector({1, 2}), vector({3, 2})}, {{"reduction", "'none'"}}, {2}, {4, 0}},
  });
}

TEST(LossOps, Gradients) {
  const Tensor x = spread({3, 4}), t = longs({3}, {2, -100, 0}), w = vector({1, 0.5, 2, 1.5});
  expect_gradients({
      {"cross_entropy", {x, t}},
      {"cross_entropy", {x, t, w}, {{"label_smoothing", "0.2"}}},
      {"cross_entropy", {x, t}, {{"reduction", "'none'"}}},
      {"cross_entropy", {spread({2, 3, 2}), longs({2, 2}, {0, 1, 2, 0})}, {{"reduction", "'sum'"}}},
      {"cross_entropy", {x, spread({3, 4}, 0.1, 0.9, 2)}},
      {"nll_loss", {x, t, w}},
      {"mse_loss", {x, spread({3, 4}, -1, 1, 3)}},
  });
}

TEST(LossOps, Errors) {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  expect_errors({
      {"cross_entropy", {x, longs({2}, {0, 3})}, {}, "out of bounds"},
      {"cross_entropy", {x, longs({2}, {0, -1})}, {}, "out of bounds"},
      {"cross_entropy",
       {x, longs({2}, {0, 1}), vector({1, 2})},
       {},
       "weight tensor should be defined either for all 3 classes"},
      {"cross_entropy",
       {x, longs({2}, {0, 1})},
       {{"label_smoothing", "1.5"}},
       "label_smoothing must be between 0.0 and 1.0"},
  });
  expect_errors<ValueError>({
      {"cross_entropy", {x, longs({3}, {0, 1, 2})}, {}, "Expected input batch_size (2) to match target batch_size (3)"},
      {"cross_entropy", {x, longs({2}, {0, 1})}, {{"reduction", "'max'"}}, "max is not a valid value for reduction"},
  });
}

}  // namespace
}  // namespace deepseek
