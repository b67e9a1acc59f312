// Fused cross-entropy against double-precision references on every SIMD target.
#include "kernels/nn/cross_entropy.h"

#include <cmath>
#include <limits>
#include <vector>

#include "runtime/parallel.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

template <class T>
void cross_entropy_case(int64_t rows, int64_t classes, bool weighted, double smoothing) {
  using C = ComputeType<T>;
  const auto logits = random_values<T>(rows * classes, 1);
  std::vector<C> weight(classes);
  for (int64_t c = 0; c < classes; ++c) weight[c] = C(0.5 + c % 3);
  std::vector<int64_t> target(rows);
  for (int64_t r = 0; r < rows; ++r) target[r] = r % 4 == 3 ? -100 : r * 7 % classes;
  const CrossEntropyArgs args{weighted ? weight.data() : nullptr, -100, smoothing};
  const Dims sizes{rows, classes};
  const View x{const_cast<T*>(logits.data()), dtype_of<T>, sizes, contiguous_strides(sizes)};
  const View t{target.data(), DType::kInt64, {rows}, {1}};
  std::vector<C> loss(rows), lse(rows), grad(rows);
  std::vector<T> dx(rows * classes);
  for (int64_t r = 0; r < rows; ++r) grad[r] = C(1 + r % 2);
  cross_entropy_forward(x, t, args, loss.data(), lse.data());
  cross_entropy_backward({dx.data(), dtype_of<T>, sizes, x.strides}, x, t, args, lse.data(), grad.data(), 1);
  const double tolerance = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = &logits[r * classes];
    double sum = 0, smooth = 0, total = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(double(row[c]));
    const double want_lse = std::log(sum);
    for (int64_t c = 0; c < classes; ++c) {
      const double w = weighted ? double(weight[c]) : 1;
      total += w;
      smooth += w * (want_lse - double(row[c]));
    }
    ASSERT_NEAR(lse[r], want_lse, tolerance * (1 + std::abs(want_lse)));
    const bool ignored = target[r] == -100;
    const double w = ignored ? 0 : weighted ? double(weight[target[r]]) : 1;
    double want =
        ignored ? 0 : (1 - smoothing) * w * (want_lse - double(row[target[r]])) + smoothing / classes * smooth;
    ASSERT_NEAR(loss[r], want, 4 * tolerance * (1 + std::abs(want)));
    for (int64_t c = 0; c < classes; ++c) {
      const double p = std::exp(double(row[c]) - want_lse), hit = c == target[r];
      double g =
          (1 - smoothing) * w * (p - hit) + smoothing / classes * (total * p - (weighted ? double(weight[c]) : 1));
      g = ignored ? 0 : g * double(grad[r]);
      const double step = std::is_same_v<T, BFloat16> ? 4e-3 : std::is_same_v<T, Half> ? 1e-3 : tolerance;
      ASSERT_NEAR(double(dx[r * classes + c]), g, step * std::abs(g) + 4 * tolerance);
    }
  }
}

TEST(CrossEntropy, ForwardAndBackward) {
  for_each_target([] {
    for (const int64_t classes : {1, 2, 7, 16, 33, 1000})
      for (const bool weighted : {false, true})
        for (const double smoothing : {0.0, 0.1}) {
          cross_entropy_case<float>(9, classes, weighted, smoothing);
          cross_entropy_case<double>(9, classes, weighted, smoothing);
          cross_entropy_case<BFloat16>(9, classes, weighted, smoothing);
          cross_entropy_case<Half>(9, classes, weighted, smoothing);
        }
    cross_entropy_case<float>(0, 5, false, 0.0);
  });
}

TEST(CrossEntropy, ExtremeRows) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> x = {1000, -1000, 0, -kInf, 2, 3, NAN, 1, 2, -kInf, -kInf, -kInf, kInf, 0, 0};
  std::vector<int64_t> t = {0, 1, 1, 0, 0};
  std::vector<float> loss(5), lse(5);
  cross_entropy_forward({x.data(), DType::kFloat32, {5, 3}, {3, 1}}, {t.data(), DType::kInt64, {5}, {1}}, {},
                        loss.data(), lse.data());
  EXPECT_EQ(loss[0], 0);
  EXPECT_NEAR(loss[1], 1.3132617f, 1e-6);
  for (int r = 2; r < 5; ++r) EXPECT_TRUE(std::isnan(loss[r])) << r;
}

TEST(CrossEntropy, TargetsAreCheckedAndWeighed) {
  std::vector<int64_t> t = {0, -100, 7};
  const View target{t.data(), DType::kInt64, {3}, {1}};
  check_targets(target, 8, -100);
  EXPECT_THROW(check_targets(target, 7, -100), IndexError);
  EXPECT_THROW(check_targets(target, 8, -1), IndexError);
  EXPECT_EQ(cross_entropy_total_weight(target, {}, DType::kFloat32), 2);
  const std::vector<float> w = {0.5f, 0, 0, 0, 0, 0, 0, 4};
  EXPECT_EQ(cross_entropy_total_weight(target, {w.data(), -100, 0}, DType::kFloat32), 4.5);
}

TEST(CrossEntropy, RowsDoNotDependOnThreadsOrBatch) {
  const int64_t rows = 300, classes = 1003;
  const auto x = random_values<float>(rows * classes, 1);
  std::vector<int64_t> t(rows, 5);
  std::vector<float> loss(rows), lse(rows), one(1), one_lse(1), again(rows);
  const View xv{const_cast<float*>(x.data()), DType::kFloat32, {rows, classes}, {classes, 1}},
      tv{t.data(), DType::kInt64, {rows}, {1}};
  set_num_threads(1);
  cross_entropy_forward(xv, tv, {}, loss.data(), lse.data());
  set_num_threads(2);
  cross_entropy_forward(xv, tv, {}, again.data(), lse.data());
  EXPECT_EQ(loss, again);
  for (int64_t r : {0, 150, 299}) {
    View row = xv;
    row.data = xv.at(r * classes);
    row.sizes[0] = 1;
    cross_entropy_forward(row, {&t[r], DType::kInt64, {1}, {1}}, {}, one.data(), one_lse.data());
    EXPECT_EQ(one[0], loss[r]);
  }
}

}  // namespace
}  // namespace deepseek::kernels
